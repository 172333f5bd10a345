"""The picture of training patches can be read, whatever the size of the patches."""

from __future__ import annotations

import numpy as np
import torch
from PIL import ImageDraw

from pipelines.train.preview import CAPTION, SIDE, sheet
from tilenet.training import Patch


def patch(y: int, x: int) -> Patch:
    classes = torch.zeros(1, 3, y, x, dtype=torch.int64)
    classes[:, :, : y // 2] = 1
    return Patch(torch.randn(1, 1, 5, y + 2, x + 2), classes, 2.0 * classes + 0.125)


def test_small_patches_are_enlarged_voxel_by_voxel() -> None:
    picture = np.asarray(sheet([patch(20, 16)], (1, 1, 1)))
    assert picture.shape[0] > 0.8 * SIDE
    times = SIDE // 20
    column = np.all(picture == 255, axis=-1)[CAPTION : CAPTION + 20 * times, SIDE - 2]
    # The column lies in the classes: white above, where they are 1, and black below.
    assert column.tolist() == [True] * (10 * times) + [False] * (10 * times)


def test_large_patches_are_shrunk() -> None:
    picture = sheet([patch(700, 900)], (1, 1, 1))
    assert picture.width < 3 * (SIDE + 10)


def test_captions_are_whole_above_narrow_pictures() -> None:
    picture = sheet([patch(300, 4)], (1, 1, 1))
    pen = ImageDraw.Draw(picture)
    captions = ("input", "classes", "weights 0.12 to 2.12")
    assert picture.width > sum(pen.textlength(caption) for caption in captions)
    last = np.asarray(picture)[:CAPTION, -int(pen.textlength(captions[-1])) :]
    ink = np.flatnonzero((last < 100).any(axis=(0, 2)))
    assert len(ink) > last.shape[1] / 2, "the whole caption is there"
    assert ink.max() < last.shape[1] - 1, "and its last letter does not touch the edge"
