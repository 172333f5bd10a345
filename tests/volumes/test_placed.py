"""Where labels lie in the voxels of another volume, by what both state."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.runs import store_volume
from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, Box
from tilenet.volumes import Volume, open_volume, place

Position = tuple[float, float, float] | None

SIZE = (40.0, 4.0, 4.0)

RAW, CROP = (8, 12, 14), (3, 5, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("placed")
    for shape in (RAW, CROP):
        values = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
        store_volume(path / f"{len(values)}.zarr", values, chunk=(4, 8, 8), voxel_size=SIZE)
    return path


def volume(folder: Path, shape: ZYX, translation: Position, **stated: Any) -> Volume:
    found = open_volume(str(folder / f"{shape[0]}.zarr"))
    layout = dataclasses.replace(found.layout, translation=translation, **stated)
    return dataclasses.replace(found, layout=layout)


@pytest.mark.parametrize(
    ("mine", "others", "offset"),
    [
        ((80.0, 12.0, 8.0), (0.0, 0.0, 0.0), (2, 3, 2)),
        ((480.0, 112.0, 408.0), (400.0, 100.0, 400.0), (2, 3, 2)),
        ((0.0, 0.0, 0.0), (40.0, 8.0, 0.0), (-1, -2, 0)),
        ((40.1, 4.0, 400.0), (40.0, 4.0, 400.0), (0, 0, 0)),  # a hundredth of a voxel is noise
        ((80.0, 12.0, 8.0), None, (2, 3, 2)),  # CREMI's raw volumes state none: they begin at 0
    ],
)
def test_a_crop_is_read_where_it_lies(
    folder: Path, mine: Position, others: Position, offset: ZYX
) -> None:
    crop = volume(folder, CROP, mine)
    placed = place(crop, volume(folder, RAW, others))
    assert placed.offset == offset
    wanted = Box(offset, tuple(n + 2 for n in offset))  # type: ignore[arg-type]
    assert np.array_equal(placed.read(wanted), crop.read(Box((0, 0, 0), (2, 2, 2))))
    says = "states no position, so it is taken to begin at 0." in " ".join(placed.notes)
    assert says == (others is None)


def test_what_the_user_says_wins_over_what_is_stated_and_is_said(folder: Path) -> None:
    raw, crop = volume(folder, RAW, (0.0, 0.0, 0.0)), volume(folder, CROP, (80.0, 12.0, 8.0))
    placed = place(crop, raw, (1, 1, 1))
    assert placed.offset == (1, 1, 1)
    text = "--label-offset 1,1,1 is taken, not the positions (80, 12, 8 nm and 0, 0, 0 nm)."
    assert placed.notes == (text,)
    assert place(crop, raw, (2, 3, 2)).notes == ()
    assert place(volume(folder, CROP, None), raw, (2, 3, 2)).offset == (2, 3, 2)


@pytest.mark.parametrize(
    ("shape", "mine", "others", "words"),
    [
        (CROP, (400.0, 0.0, 0.0), (0.0, 0.0, 0.0), "they lie at z=10:13,y=0:5,x=0:6 in voxels of"),
        (CROP, (400.0, 0.0, 0.0), (0.0, 0.0, 0.0), "z=0:8,y=0:12,x=0:14 (400, 0, 0 nm and 0,"),
        (RAW, (400.0, 0.0, 0.0), (0.0, 0.0, 0.0), "do not overlap"),
        (CROP, (80.0, 14.0, 8.0), (0.0, 0.0, 0.0), "are not whole voxels of (40.0, 4.0, 4.0) nm"),
        (RAW, (0.0, 0.1, 0.0), (0.0, 0.0, 0.0), "are not whole voxels"),
        (CROP, None, None, "have the shape (3, 5, 6)"),
        (CROP, None, (80.0, 12.0, 8.0), "nothing says where in that they lie"),
        # What many tools write of any volume says nothing.
        (CROP, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), "--label-offset Z,Y,X"),
        (CROP, (0.0, 0.0, 0.0), None, "--label-offset Z,Y,X"),
    ],
)
def test_volumes_that_do_not_lie_together_are_refused(
    folder: Path, shape: ZYX, mine: Position, others: Position, words: str
) -> None:
    with pytest.raises(InvalidData) as refused:
        place(volume(folder, shape, mine), volume(folder, RAW, others))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("mine", "others", "said"),
    [
        (None, None, False),
        ((0.0, 0.0, 0.0), None, False),
        ((80.0, 12.0, 8.0), (80.0, 12.0, 8.0), False),
        ((80.0, 12.0, 8.0), None, True),
        (None, (80.0, 12.0, 8.0), True),
    ],
)
def test_volumes_of_one_shape_lie_together_where_one_states_no_position(
    folder: Path, mine: Position, others: Position, said: bool
) -> None:
    placed = place(volume(folder, RAW, mine), volume(folder, RAW, others))
    assert placed.offset == (0, 0, 0)
    assert bool(placed.notes) == said


def test_where_voxel_sizes_are_only_about_equal_a_distance_has_to_fit_both(folder: Path) -> None:
    raw = volume(folder, RAW, (0.0, 0.0, 0.0))
    assert place(volume(folder, CROP, (0.0, 0.0, 40.0)), raw).offset == (0, 0, 10)
    with pytest.raises(InvalidData, match="are not whole voxels"):
        place(volume(folder, CROP, (0.0, 0.0, 40.0), voxel_size=(40.0, 4.0, 4.06)), raw)
