"""The largest splits and mergers: by hand, whatever the blocks, and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipelines import cli
from pipelines.evaluate.mistakes import PANEL, _coloured
from tests.evaluate.test_evaluate import evaluate
from tests.support.runs import store_volume
from tilenet.metrics import PairTable, largest_mistakes


def bodies() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """True and found ones: 1 is split three ways, 2 and 3 are merged, 4 is whole."""
    true = np.zeros((3, 20, 40), np.uint16)
    true[:, :8, :30], true[:, 10:, :20], true[:, 10:, 20:39], true[0, 0:3, 35:] = 1, 2, 3, 4
    found = np.zeros_like(true)
    found[:, :8, :15], found[0, :8, 15:30], found[1, :8, 15:22] = 11, 12, 12
    found[2, :8, 15:30], found[:, 10:, :39], found[0, 0:3, 35:] = 13, 14, 15
    return true, found


def test_they_are_those_that_lose_most_voxels() -> None:
    true, found = bodies()
    split, merger = largest_mistakes(PairTable.of(true, found))
    assert (split.kind, split.instance, split.parts) == ("split", 1, (11, 12))
    assert split.voxels == 8 * 15 + 8 * 7 + 8 * 15
    assert (merger.kind, merger.instance, merger.parts) == ("merger", 14, (2, 3))
    assert merger.voxels == 3 * 10 * 19
    assert largest_mistakes(PairTable.of(true, true)) == []


@pytest.mark.parametrize("chunk", [(1, 8, 8), (2, 16, 24), (3, 20, 40)])
def test_they_are_drawn_where_both_parts_are_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chunk: tuple[int, int, int]
) -> None:
    true, found = bodies()
    paths = [store_volume(tmp_path / f"{n}.zarr", v, chunk=chunk)
             for n, v in (("found", found), ("true", true))]  # fmt: skip
    picture = tmp_path / "mistakes.png"
    record = evaluate(
        capsys, *paths, "--segmentation", "--figures", "seg", "--mistakes", str(picture)
    )
    split, merger = record["mistakes"]
    # In the first section of 1 the smaller part, 12, is largest.
    assert (split["instance"], split["box"]) == (1, "z=0:1,y=0:8,x=0:30")
    assert (merger["instance"], merger["box"]) == (14, "z=0:1,y=10:20,x=0:39")
    with Image.open(picture) as image:
        pixels = np.asarray(image)
    for ids, panels in ((true, pixels[:, :PANEL]), (found, pixels[:, PANEL + 6 :])):
        shown = {tuple(c) for c in panels.reshape(-1, 3).tolist()}
        values = [v for v in np.unique(ids[0]) if v]
        colours = {v: tuple(_coloured(np.array([v]))[0].tolist()) for v in values}
        assert len(set(colours.values())) == len(values)
        assert all(colours[v] in shown for v in values)


def test_what_cannot_be_drawn_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    true = store_volume(tmp_path / "true.zarr", bodies()[0])
    assert cli.run(["evaluate", true, true, "--segmentation", "--mistakes", "a.tif"]) == 1
    assert "--mistakes a.tif: is no picture" in capsys.readouterr().err
    assert cli.run(["evaluate", true, true, "--mistakes", str(tmp_path / "a.png")]) == 1
    assert "--mistakes: is for instances" in capsys.readouterr().err
    picture = str(tmp_path / "none.png")
    assert cli.run(["evaluate", true, true, "--segmentation", "--mistakes", picture]) == 0
    with Image.open(picture) as image:
        assert image.size[1] > 0
