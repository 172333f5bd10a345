"""A contact sheet of training patches: what the network is shown, asked for, and told to mind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pipelines.train.job import TrainingJob
from tilenet.training import Patch

#: Patches on a sheet.
COUNT = 8

#: Pixels of a picture's longer side, about, of a caption's height, and between pictures.
SIDE, CAPTION, GAP = 320, 14, 4

_Picture = npt.NDArray[np.uint8]


def write_preview(job: TrainingJob, folder: Path) -> str:
    """Draw the first patches of a training into a folder, which is made if need be."""
    patches = job.patches
    drawn = [patches.augmented(patches.sample(index)) for index in range(COUNT)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "patches.png"
    sheet(drawn, patches.architecture.halo).save(path)
    y, x = patches.patch[1:]
    shown = f"input with the {y} x {x} pixels of output framed, classes, weights"
    return f"{path}: {COUNT} patches: {shown}"


def sheet(patches: list[Patch], halo: tuple[int, int, int]) -> Image.Image:
    """Draw patches, one per row: input with the output framed, classes, weights."""
    rows = []
    for patch in patches:
        middle = patch.classes.shape[1] // 2
        grey = patch.x[0, 0, middle + halo[0]].numpy()
        classes = patch.classes[0, middle].numpy()
        weights = patch.weights[0, middle].numpy()
        framed = _frame(_stretch(grey, -2.5, 2.5), halo)
        top = max(1, int(patch.classes.max()))
        shown = [framed, _stretch(classes, 0, top), _heat(np.log1p(weights))]
        caption = f"weights {weights.min():.2g} to {weights.max():.3g}"
        rows.append((["input", "classes", caption], [_fit(picture) for picture in shown]))
    return _arrange(rows)


def _arrange(rows: Sequence[tuple[list[str], list[Image.Image]]]) -> Image.Image:
    # Columns as wide as their pictures and captions.
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    widths = [
        max(
            max(picture[i].width, math.ceil(pen.textlength(captions[i])) + GAP)
            for captions, picture in rows
        )
        for i in range(len(rows[0][1]))
    ]
    heights = [max(p.height for p in pictures) + CAPTION + GAP for _, pictures in rows]
    canvas = Image.new("RGB", (sum(widths) + GAP * len(widths), sum(heights)), "lightgray")
    pen, top = ImageDraw.Draw(canvas), 0
    for (captions, pictures), height in zip(rows, heights, strict=True):
        left = 0
        for caption, picture, width in zip(captions, pictures, widths, strict=True):
            pen.text((left + 2, top + 1), caption, fill="black")
            canvas.paste(picture, (left, top + CAPTION))
            left += width + GAP
        top += height
    return canvas


def _stretch(values: npt.NDArray[np.generic], low: float, high: float) -> _Picture:
    unit = (values.astype(np.float32) - low) / (high - low)
    grey: _Picture = (255 * unit.clip(0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _heat(values: npt.NDArray[np.generic]) -> _Picture:
    # Black, red, yellow, white, as far as the largest weight.
    unit = 3 * values.astype(np.float32) / max(1e-6, float(values.max()))
    channels = np.stack([(unit - i).clip(0, 1) for i in range(3)], axis=-1)
    heat: _Picture = (255 * channels).astype(np.uint8)
    return heat


def _frame(picture: _Picture, halo: tuple[int, int, int]) -> _Picture:
    y, x = halo[1:]
    framed = picture.copy()
    bottom, right = picture.shape[0] - y - 1, picture.shape[1] - x - 1
    for row in (y, bottom):
        framed[row, x : right + 1] = (255, 200, 0)
    for column in (x, right):
        framed[y : bottom + 1, column] = (255, 200, 0)
    return framed


def _fit(picture: _Picture) -> Image.Image:
    # Small ones are enlarged by a whole number, so that every voxel is one square.
    image = Image.fromarray(picture)
    times = SIDE // max(image.size)
    if times > 1:
        size = image.width * times, image.height * times
        return image.resize(size, Image.Resampling.NEAREST)
    image.thumbnail((SIDE, SIDE))
    return image
