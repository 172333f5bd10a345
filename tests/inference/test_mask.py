"""Low-resolution masks, against repeating every voxel of the mask."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.runs import store_volume
from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, Box, zyx
from tilenet.inference import MaskGrid, place_mask
from tilenet.inference.mask import enlarge, mask_box, mask_factor
from tilenet.volumes import open_volume

factors = st.tuples(*[st.integers(1, 5)] * 3)
shapes = st.tuples(*[st.integers(1, 17)] * 3)


def mask_shape(volume: ZYX, factor: ZYX) -> ZYX:
    return zyx(-(-v // f) for v, f in zip(volume, factor, strict=True))


def repeated(mask: npt.NDArray[np.uint8], factor: ZYX, volume: ZYX) -> npt.NDArray[np.bool_]:
    """The dumb way: repeat every voxel along every axis, and crop."""
    large: npt.NDArray[np.bool_] = mask != 0
    for axis in range(3):
        large = np.repeat(large, factor[axis], axis=axis)
    return large[: volume[0], : volume[1], : volume[2]]


@st.composite
def boxes_in(draw: st.DrawFn, shape: ZYX) -> Box:
    start = zyx(draw(st.integers(0, n - 1)) for n in shape)
    return Box(start, zyx(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))


@given(shapes, factors, st.data())
def test_an_enlarged_mask_is_the_repeated_one(
    volume: ZYX, factor: ZYX, data: st.DataObject
) -> None:
    small = mask_shape(volume, factor)
    mask = np.random.default_rng(0).integers(0, 3, small, dtype=np.uint8)
    box = data.draw(boxes_in(volume))
    needed = mask_box(box, factor)
    assert Box.of_shape(small).contains(needed)
    inside = enlarge(mask[needed.slices], box, factor)
    assert inside.dtype == np.bool_
    np.testing.assert_array_equal(inside, repeated(mask, factor, volume)[box.slices])


@given(shapes, factors)
def test_the_factor_makes_the_mask_cover_the_volume_exactly_once(volume: ZYX, factor: ZYX) -> None:
    small = mask_shape(volume, factor)
    found = mask_factor(volume, small)
    assert mask_shape(volume, found) == small


@given(shapes, shapes)
def test_a_mask_is_refused_when_and_only_when_no_whole_factor_fits(volume: ZYX, mask: ZYX) -> None:
    possible = all(
        any(-(-v // f) == m for f in range(1, v + 1)) for v, m in zip(volume, mask, strict=True)
    )
    if possible:
        assert mask_shape(volume, mask_factor(volume, mask)) == mask
    else:
        with pytest.raises(InvalidData, match="by whole factors"):
            mask_factor(volume, mask)


@pytest.mark.parametrize(
    ("volume", "mask", "factor"),
    [
        ((30, 512, 512), (30, 64, 64), (1, 8, 8)),
        ((30, 500, 500), (30, 63, 63), (1, 8, 8)),
        ((7, 9, 11), (7, 9, 11), (1, 1, 1)),
        ((7, 9, 11), (1, 1, 1), (7, 9, 11)),
    ],
)
def test_chosen_factors(volume: ZYX, mask: ZYX, factor: ZYX) -> None:
    assert mask_factor(volume, mask) == factor


def test_a_mask_that_does_not_fit_names_the_shape_that_would() -> None:
    with pytest.raises(InvalidData, match=r"\(30, 60, 64\).*factors \(1, 9, 8\).*\(30, 57, 64\)"):
        mask_factor((30, 512, 512), (30, 60, 64))


def test_a_mask_larger_than_the_volume_is_refused() -> None:
    with pytest.raises(InvalidData, match=r"would have the shape \(4, 4, 4\)"):
        mask_factor((4, 4, 4), (4, 4, 8))


def test_voxel_sizes_decide_where_several_factors_fit() -> None:
    assert mask_factor((30, 64, 64), (2, 4, 4)) == (15, 16, 16)
    assert mask_factor((30, 64, 64), (2, 4, 4), (16.0, 16.0, 16.0)) == (16, 16, 16)
    with pytest.raises(InvalidData, match="ratio of the voxel sizes"):
        mask_factor((30, 64, 64), (2, 4, 4), (1.0, 16.0, 16.0))


# --- where it lies -------------------------------------------------------------------------------

Position = tuple[float, float, float] | None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("masks")
    for name, shape in (("em", (4, 8, 8)), ("same", (2, 2, 2)), ("larger", (4, 5, 3))):
        store_volume(path / f"{name}.zarr", np.ones(shape, np.uint8), chunk=(4, 8, 8))
    return path


def grid(folder: Path, name: str, volume: Position, mask: Position, **stated: Any) -> MaskGrid:
    opened = []
    sizes = {"voxel_size": (40.0, 8.0, 8.0)}, {"voxel_size": (80.0, 32.0, 32.0), **stated}
    for one, at, size in (("em", volume, sizes[0]), (name, mask, sizes[1])):
        found = open_volume(str(folder / f"{one}.zarr"))
        layout = dataclasses.replace(found.layout, translation=at, **size)
        opened.append(dataclasses.replace(found, layout=layout))
    return place_mask(*opened)


@pytest.mark.parametrize(
    ("name", "volume", "mask", "offset", "noted"),
    [
        ("same", None, None, (0, 0, 0), False),
        ("same", (0.0, 0.0, 0.0), (20.0, 12.0, 12.0), (0, 0, 0), False),  # centres of one corner
        ("same", (80.0, 8.0, 8.0), (80.0, 8.0, 8.0), (0, 0, 0), False),
        ("same", (80.0, 8.0, 8.0), None, (0, 0, 0), True),
        ("larger", (0.0, 0.0, 0.0), (-60.0, -36.0, 4.0), (-2, -6, -1), False),
        ("larger", (800.0, 80.0, 80.0), (740.0, 12.0, 60.0), (-2, -10, -4), False),
    ],
)
def test_a_mask_lies_by_the_faces_of_first_voxels(
    folder: Path, name: str, volume: Position, mask: Position, offset: ZYX, noted: bool
) -> None:
    found = grid(folder, name, volume, mask)
    assert (found.factor, found.offset, bool(found.notes)) == ((2, 4, 4), offset, noted)


@pytest.mark.parametrize(
    ("mask", "stated", "words"),
    [
        ((-60.0, -36.0, 16.0), {}, "does not lie on whole voxels"),
        ((-60.0, -36.0, 20.0), {}, "at z=-2:6,y=-6:14,x=1:13 in voxels of .* not cover"),
        ((-60.0, -36.0, 4.0), {"voxel_size": (60.0, 32.0, 32.0)}, "does not lie on whole voxels"),
    ],
)
def test_a_mask_that_does_not_cover_the_volume_where_it_lies_is_refused(
    folder: Path, mask: Position, stated: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidData, match=words):
        grid(folder, "larger", (0.0, 0.0, 0.0), mask, **stated)
