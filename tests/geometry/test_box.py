"""Boxes of voxels, against sets of voxels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilenet.geometry import ZYX, Box, nearest_multiples, round_up, zyx

Voxels = set[tuple[int, ...]]

triples = st.tuples(*[st.integers(1, 5)] * 3)


@st.composite
def boxes(draw: st.DrawFn, least: int = 0) -> Box:
    """A box near the origin, on either side of it; empty ones too if ``least`` is 0."""
    start = zyx(draw(st.integers(-6, 6)) for _ in range(3))
    return Box(start, zyx(a + draw(st.integers(least, 6)) for a in start))


def voxels(box: Box) -> Voxels:
    """The dumb way: every voxel of a box."""
    ranges = (range(a, b) for a, b in zip(box.start, box.stop, strict=True))
    return set(itertools.product(*ranges))


@given(boxes())
def test_size_is_the_number_of_voxels(box: Box) -> None:
    assert box.size == len(voxels(box))


@given(boxes(), boxes())
def test_an_intersection_holds_the_voxels_of_both(first: Box, second: Box) -> None:
    common = first.intersect(second)
    assert voxels(common) == voxels(first) & voxels(second)
    assert min(common.shape) >= 0
    assert common.size == second.intersect(first).size


@given(boxes(least=1), boxes(least=1))
def test_containing_means_that_no_voxel_lies_outside(outer: Box, inner: Box) -> None:
    assert outer.contains(inner) == (voxels(inner) <= voxels(outer))


@given(boxes(least=1))
def test_a_box_contains_itself_and_each_of_its_intersections(box: Box) -> None:
    assert box.contains(box)
    assert not box.contains(box.grow((0, 0, 0), (0, 0, 1)))
    assert not box.contains(box.grow((1, 0, 0), (0, 0, 0)))


@given(boxes(), triples)
def test_counting_from_another_origin_moves_every_voxel(box: Box, origin: ZYX) -> None:
    moved = box.relative_to(origin)
    expected = {tuple(np.subtract(voxel, origin).tolist()) for voxel in voxels(box)}
    assert voxels(moved) == expected
    assert moved.shape == box.shape
    assert moved.relative_to(zyx(-n for n in origin)) == box


@given(boxes(least=1), triples)
def test_snapping_gives_the_smallest_box_on_the_lattice_around_a_box(box: Box, step: ZYX) -> None:
    snapped = box.snap_outward(step)
    cells = {tuple(np.floor_divide(voxel, step).tolist()) for voxel in voxels(box)}
    expected = {
        voxel for voxel in voxels(snapped) if tuple(np.floor_divide(voxel, step).tolist()) in cells
    }
    assert snapped.contains(box)
    assert all(n % s == 0 for n, s in zip(snapped.start + snapped.stop, step * 2, strict=True))
    assert voxels(snapped) == expected, "no cell that the box does not touch"
    assert snapped.snap_outward(step) == snapped


@given(boxes(), triples, triples)
def test_growing_moves_the_faces_outward(box: Box, before: ZYX, after: ZYX) -> None:
    grown = box.grow(before, after)
    assert grown.start == tuple(np.subtract(box.start, before).tolist())
    assert grown.stop == tuple(np.add(box.stop, after).tolist())


@given(triples, st.data())
def test_slices_cut_a_box_out_of_an_array(shape: ZYX, data: st.DataObject) -> None:
    start = zyx(data.draw(st.integers(0, n)) for n in shape)
    box = Box(start, zyx(data.draw(st.integers(a, n)) for a, n in zip(start, shape, strict=True)))
    array = np.zeros(shape, bool)
    array[box.slices] = True
    assert set(zip(*(axis.tolist() for axis in np.nonzero(array)), strict=True)) == voxels(box)


@given(triples)
def test_the_box_of_a_shape_starts_at_the_origin(shape: ZYX) -> None:
    assert Box.of_shape(shape) == Box((0, 0, 0), shape)
    assert Box.of_shape(shape).shape == shape


def test_a_box_reads_like_a_region() -> None:
    assert str(Box((0, -1, 2), (3, 4, 5))) == "z=0:3,y=-1:4,x=2:5"


@given(st.integers(-200, 200), st.integers(1, 50))
def test_rounding_up_gives_the_smallest_multiple_not_below(value: int, step: int) -> None:
    expected = next(n for n in itertools.count(value) if n % step == 0)
    assert round_up(value, step) == expected


@given(st.integers(-100, 200), st.integers(1, 50))
def test_nearest_multiples_are_the_positive_neighbours(value: int, step: int) -> None:
    multiples = range(step, 400, step)
    below = [m for m in multiples if m <= value][-1:]
    above = [m for m in multiples if m >= value][:1]
    assert nearest_multiples(value, step) == tuple(sorted({*below, *above}))


def test_the_nearest_multiple_of_a_multiple_is_itself() -> None:
    assert nearest_multiples(32, 16) == (32,)


def test_a_triple_is_made_of_plain_integers() -> None:
    made = zyx(np.array([1, 2, 3]))
    assert made == (1, 2, 3)
    assert all(type(n) is int for n in made)


@pytest.mark.parametrize("values", [(1, 2), (1, 2, 3, 4)])
def test_a_triple_has_three_values(values: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="values to unpack"):
        zyx(values)
