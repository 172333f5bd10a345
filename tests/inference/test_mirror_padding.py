"""Mirror padding of a clipped read equals padding the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilenet.geometry import ZYX, Box, mirror_source, mirrored_index, read_box_of, zyx
from tilenet.inference import mirror

#: Beyond several reflections of the thinnest volumes.
FAR = 25


def reflected(volume: np.ndarray, box: Box) -> np.ndarray:
    """Pad the whole volume as far as needed, then cut the box out."""
    pads = [(FAR, FAR)] * 3
    padded = np.pad(volume, pads, mode="reflect")
    return padded[box.relative_to((-FAR, -FAR, -FAR)).slices]


@st.composite
def volumes_and_boxes(draw: st.DrawFn) -> tuple[ZYX, Box]:
    shape = zyx(draw(st.tuples(*[st.integers(1, 9)] * 3)))
    start = zyx(draw(st.integers(-FAR, n + FAR - 1)) for n in shape)
    stop = zyx(draw(st.integers(a + 1, n + FAR)) for a, n in zip(start, shape, strict=True))
    return shape, Box(start, stop)


@given(volumes_and_boxes())
def test_any_box_of_any_volume(case: tuple[ZYX, Box]) -> None:
    shape, box = case
    volume = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    read_box = read_box_of(box, shape)
    filled = mirror(volume[read_box.slices], read_box, input_box=box, volume_shape=shape)
    np.testing.assert_array_equal(filled, reflected(volume, box))


@pytest.mark.parametrize("direction", list(np.ndindex(3, 3, 3)))
def test_every_face_edge_and_corner(direction: tuple[int, ...]) -> None:
    shape, halo = (6, 7, 8), 4
    volume = np.random.default_rng(0).integers(0, 255, shape)
    starts = zyx((-halo, 1, n - 3)[d] for d, n in zip(direction, shape, strict=True))
    box = Box(starts, zyx(a + halo + 3 for a in starts))
    read_box = read_box_of(box, shape)
    filled = mirror(volume[read_box.slices], read_box, input_box=box, volume_shape=shape)
    np.testing.assert_array_equal(filled, reflected(volume, box))


def test_channels_are_mirrored_alike() -> None:
    volume = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    box = Box((-3, -2, 1), (5, 9, 8))
    read_box = read_box_of(box, (3, 4, 5))
    filled = mirror(
        volume[(slice(None), *read_box.slices)], read_box, input_box=box, volume_shape=(3, 4, 5)
    )
    for channel in range(2):
        np.testing.assert_array_equal(filled[channel], reflected(volume[channel], box))


@given(st.integers(1, 12), st.integers(-60, 60), st.integers(1, 60))
def test_the_read_range_is_the_smallest_that_serves(size: int, start: int, length: int) -> None:
    needed = [mirrored_index(i, size) for i in range(start, start + length)]
    assert mirror_source(start, start + length, size) == (min(needed), max(needed) + 1)


def test_the_edge_voxel_is_not_repeated() -> None:
    # Dask's "reflect" would give 0 0 1 2 2.
    assert [mirrored_index(i, 3) for i in range(-1, 4)] == [1, 0, 1, 2, 1]
