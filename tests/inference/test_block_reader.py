"""A block's input, range by range: the planes of the whole padded volume, each voxel read once."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks.test_unet_architecture import architectures
from tilenet.geometry import ZYX, Box, read_box_of, zyx
from tilenet.inference import Stream, StreamedNetwork, UNet
from tilenet.inference.block_reader import Feed
from tilenet.networks import TileGrid, UNetArchitecture, fed_planes, slabs
from tilenet.networks.orientations import FLIPS
from tilenet.planning import ReadingOrder
from tilenet.planning.reading_order import planes_held

small = st.integers(1, 12)
shapes = st.tuples(small, small, small)


class Reads:
    """A volume that remembers what was read of it."""

    def __init__(self, shape: ZYX, channels: int = 0) -> None:
        leading = (channels,) if channels else ()
        rng = np.random.default_rng(0)
        self.values = rng.integers(0, 255, (*leading, *shape), dtype=np.uint8)
        self.count = np.zeros(shape, int)
        self.boxes: list[Box] = []

    def __call__(self, box: Box) -> np.ndarray:
        self.count[box.slices] += 1
        self.boxes.append(box)
        return self.values[(..., *box.slices)].copy()


def planes_of(values: np.ndarray, axis: int, piece: slice) -> np.ndarray:
    index: tuple[Any, ...] = (..., piece, *[slice(None)] * (2 - axis))
    return np.asarray(values[index])


@settings(max_examples=200)
@given(
    shapes,
    st.tuples(*[st.integers(0, 20)] * 6),
    st.sampled_from(range(3)),
    st.integers(1, 7),
    st.lists(st.integers(1, 9), min_size=40, max_size=40),
    st.sampled_from((0, 2)),
)
def test_planes_are_those_of_the_padded_volume_and_every_voxel_is_read_once(
    shape: ZYX, ends: tuple[int, ...], axis: int, at_once: int, sizes: list[int], channels: int
) -> None:
    # Any box around some voxel of the volume, padded on all sides or on none.
    middle = zyx(n // 2 for n in shape)
    box = Box(middle, zyx(n + 1 for n in middle)).grow(zyx(ends[:3]), zyx(ends[3:]))
    volume = Reads(shape, channels)
    pads = [(max(0, -a), max(0, b - n)) for a, b, n in zip(box.start, box.stop, shape, strict=True)]
    whole = np.pad(volume.values, [*[(0, 0)] * bool(channels), *pads], mode="reflect")
    moved = box.relative_to(zyx(-p for p, _ in pads))
    expected = whole[(..., *moved.slices)]
    start, size = 0, box.shape[axis]
    with Feed(volume, box, shape, axis=axis, granule=at_once) as feed:
        for count in [*sizes, size]:
            piece = slice(start, min(size, start + count))
            if start < piece.stop:
                found = feed.planes(piece)
                np.testing.assert_array_equal(found, planes_of(expected, axis, piece))
            start = piece.stop
    stored = read_box_of(box, shape)
    assert np.all(volume.count[stored.slices] == 1)
    assert volume.count.sum() == stored.size
    starts = [read.start[axis] for read in volume.boxes]
    assert all(n % at_once == 0 for n in starts[1:]), "reads begin at chunks"


@settings(max_examples=100)
@given(architectures(), st.sampled_from(range(3)), st.integers(1, 3), st.integers(1, 40), st.data())
def test_no_more_planes_are_held_than_the_plan_counts(
    architecture: UNetArchitecture, axis: int, units: int, at_once: int, data: st.DataObject
) -> None:
    law, slab = architecture.laws[axis], units * architecture.alignment[axis]
    # What is fed beyond the last plane that is wanted: an alignment and a slab, but for one each.
    beyond = data.draw(st.integers(0, law.alignment + slab - 2))
    if architecture.is_planar:
        axis, slab, beyond = 0, 1, 0  # section by section
        law = architecture.laws[0]
    size = law.output_for(50) + law.gain + law.loss
    shape = [1, 1, 1]
    shape[axis] = size - 2 * law.halo - beyond
    box = Box((0, 0, 0), zyx(shape)).with_range(axis, -law.halo, size - law.halo)
    most = 0
    with Feed(Reads(zyx(shape)), box, zyx(shape), axis=axis, granule=at_once) as feed:
        for piece in slabs(law, size, slab):
            feed.planes(piece)
            # What is read ahead is as many planes as are read at once, at most.
            held = sum(values.shape[axis] for _, values in feed._held) + at_once
            most = max(most, held)
    assert most <= planes_held(law, fed=slab, at_once=at_once)


@pytest.mark.parametrize("chunk", [1, 8, 16, 100])
def test_whole_chunks_are_read_of_a_slab_at_least(chunk: int) -> None:
    block = Box.of_shape((4, 16, 16))
    stream = TileGrid(block, block.shape, UNetArchitecture.volumetric(2, 2), block.shape)
    count = ReadingOrder.of(stream, 1, 32).granule((7, chunk, 7))
    assert count % chunk == 0
    assert 32 <= count < 32 + chunk
    by_section = TileGrid(block, (1, 16, 16), UNetArchitecture.planar(2, 2), block.shape)
    assert ReadingOrder.of(by_section, 1, 32).granule((chunk, 7, 7)) == chunk


def test_one_section_is_a_stream_and_several_come_one_by_one() -> None:
    shape, planar = (4, 64, 64), UNetArchitecture.planar(2, 2)
    one, block = Box((1, 0, 0), (2, 32, 64)), Box((0, 0, 0), (4, 32, 64))

    def cut(box: Box, tile: ZYX, network: UNetArchitecture = planar) -> TileGrid:
        return TileGrid(box, tile, network, shape)

    whole = cut(one, (1, 32, 64))
    assert ReadingOrder.of(whole, 2, 8) == ReadingOrder("stream", 2, 8)
    averaged = dataclasses.replace(whole, orientations=FLIPS)
    for tiles in (cut(block, (1, 32, 64)), cut(one, (1, 32, 32)), averaged):
        assert ReadingOrder.of(tiles, 2, 8) == ReadingOrder("sections", 0, 1)
    in_3d = cut(block, (4, 32, 32), UNetArchitecture.volumetric(2, 2))
    assert ReadingOrder.of(in_3d, 2, 8) == ReadingOrder("whole", 2, 8)


@settings(max_examples=60)
@given(architectures(), st.sampled_from(range(3)), st.integers(1, 3), st.integers(1, 30))
def test_a_stream_is_fed_no_more_than_what_is_wanted_needs(
    architecture: UNetArchitecture, axis: int, units: int, wanted: int
) -> None:
    import torch

    if architecture.is_planar and axis == 0:
        axis = 1
    law, slab = architecture.laws[axis], units * architecture.alignment[axis]
    size = law.output_for(wanted + 20) + law.gain + law.loss
    enough = fed_planes(law, size, slab, wanted)
    shape = list(architecture.input_for(architecture.smallest_output))
    shape[axis] = 1
    if np.prod(shape) * enough > 2e5:
        return
    stream = Stream(StreamedNetwork(UNet(architecture).double(), axis))
    given_planes = done = 0
    with torch.inference_mode():
        for piece in slabs(law, size, slab):
            if done >= wanted:
                break
            shape[axis] = piece.stop - piece.start
            sections = 1 if architecture.is_planar else shape[0]
            x = torch.zeros(architecture.in_channels, sections, *shape[1:], dtype=torch.float64)
            scores = stream.feed(x)
            done += 0 if scores is None else scores.shape[axis + 1]
            given_planes = piece.stop
    assert done >= wanted
    assert given_planes <= enough


def test_what_cannot_be_read_is_raised_where_it_is_asked_for_and_nothing_hangs() -> None:
    def read(box: Box) -> np.ndarray:
        if box.start[0] >= 4:
            raise OSError("gone")
        return np.zeros(box.shape, np.uint8)

    def use() -> None:
        with Feed(read, Box.of_shape((9, 2, 2)), (9, 2, 2), axis=0, granule=2) as feed:
            assert feed.planes(slice(0, 3)).shape == (3, 2, 2)
            feed.planes(slice(3, 6))

    with pytest.raises(OSError, match="gone"):
        use()
