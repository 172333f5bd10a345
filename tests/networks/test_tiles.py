"""Invariants 1 and 2: blocks partition the volume, and every tile's boxes fit together."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks.test_unet_architecture import architectures
from tests.support.oracles import ARCHITECTURES
from tilenet.errors import UnalignedBlock
from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.networks import TileGrid, UNetArchitecture

shapes = st.tuples(*[st.integers(1, 30)] * 3)


def check_grid(grid: BlockGrid) -> None:
    """Assert every invariant of a grid by painting its blocks."""
    whole = Box.of_shape(grid.volume_shape)
    painted = np.zeros(grid.volume_shape, np.int64)
    for block in grid:
        assert whole.contains(block)
        assert block.size > 0
        for a, b, n, size in zip(
            block.start, block.stop, grid.volume_shape, grid.block_shape, strict=True
        ):
            assert a % size == 0, "a block starts on the lattice"
            assert b - a == size or b == n, "a block is whole, or reaches the volume's edge"
        painted[block.slices] += 1
    region = whole if grid.region is None else grid.region
    assert painted.max(initial=0) <= 1, "blocks are disjoint"
    assert painted[region.slices].min(initial=1) == 1, "nothing of the region is left out"
    assert (painted == 1).sum() == grid.covered.size
    assert painted[grid.covered.slices].all()


@st.composite
def regions(draw: st.DrawFn, shape: ZYX) -> Box:
    start = zyx(draw(st.integers(0, n - 1)) for n in shape)
    return Box(start, zyx(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))


@given(shapes, shapes, st.data())
def test_blocks_partition_the_volume_and_the_region(
    shape: ZYX, block: ZYX, data: st.DataObject
) -> None:
    check_grid(BlockGrid(shape, block))
    check_grid(BlockGrid(shape, block, data.draw(regions(shape))))


@given(shapes, shapes, st.data())
def test_indexing_and_slicing_are_those_of_a_list(
    shape: ZYX, block: ZYX, data: st.DataObject
) -> None:
    grid = BlockGrid(shape, block)
    listed = list(grid)
    assert len(grid) == len(listed)
    i = data.draw(st.integers(-len(grid), len(grid) - 1))
    assert grid[i] == listed[i]
    cut = data.draw(st.slices(len(grid)))
    assert list(grid[cut]) == listed[cut]
    assert list(grid[cut][::-1]) == listed[cut][::-1]
    with pytest.raises(IndexError):
        grid[len(grid)]


def test_a_grid_of_a_billion_blocks_costs_what_a_grid_of_one_costs() -> None:
    start = time.perf_counter()
    grid = BlockGrid((64_000, 64_000, 64_000), (64, 64, 64))
    assert len(grid) == 10**9
    assert grid[-1].stop == (64_000, 64_000, 64_000)
    assert len(grid[10**8 : 9 * 10**8 : 7]) == 114_285_715
    assert grid[10**8 : 9 * 10**8 : 7][3] == grid[10**8 + 21]
    assert time.perf_counter() - start < 0.05  # microseconds; the margin is for a busy machine


def check_tiles(tiles: TileGrid) -> None:
    """Assert every invariant of a block's tiles."""
    architecture = tiles.architecture
    painted = np.zeros(tiles.volume_shape, np.int64)
    for tile in tiles:
        painted[tile.kept.slices] += 1
        assert tile.input.shape == tiles.input_shape, "one shape for every evaluation"
        assert architecture.output_of(tile.input.shape) == tile.output.shape
        assert tile.output.contains(tile.kept)
        assert tile.output.start == tile.kept.start, "cropped, never shifted back"
        assert all(a % n == 0 for a, n in zip(tile.kept.start, architecture.alignment, strict=True))
        assert tiles.input_box.contains(tile.input)
    assert (painted[tiles.block.slices] == 1).all()
    assert painted.sum() == tiles.block.size
    assert Box.of_shape(tiles.volume_shape).contains(tiles.read_box)
    counts = [-(-b // t) for b, t in zip(tiles.block.shape, tiles.tile_shape, strict=True)]
    assert len(tiles) == np.prod(counts)


@settings(max_examples=60)
@given(architectures(), shapes, st.tuples(*[st.integers(1, 4)] * 6), st.data())
def test_tiles_of_any_block_of_any_network(
    architecture: UNetArchitecture, shape: ZYX, multiples: tuple[int, ...], data: st.DataObject
) -> None:
    step = architecture.alignment
    tile = zyx(a * m for a, m in zip(step, multiples[:3], strict=True))
    block = zyx(t * m for t, m in zip(tile, multiples[3:], strict=True))
    grid = BlockGrid(shape, block)
    i = data.draw(st.integers(0, len(grid) - 1))
    check_tiles(TileGrid(grid[i], tile, architecture, shape))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 9), (40, 64, 64), (1, 100, 37)])
def test_tiles_of_chosen_volumes(name: str, shape: ZYX) -> None:
    architecture = ARCHITECTURES[name]
    for factor in (1, 2):
        tile = zyx(a * factor for a in architecture.alignment)
        block = zyx(t * 8 for t in tile)
        for box in itertools.islice(BlockGrid(shape, block), 5):
            check_tiles(TileGrid(box, tile, architecture, shape))


def test_a_tile_off_the_alignment_is_refused_with_the_nearest() -> None:
    paper = UNetArchitecture.planar()
    block = Box((0, 0, 0), (1, 512, 512))
    with pytest.raises(UnalignedBlock, match=r"A tile of 100 along y .*16.* 96 and 112"):
        TileGrid(block, (1, 100, 128), paper, (1, 512, 512))


def test_a_block_off_the_alignment_is_refused() -> None:
    paper = UNetArchitecture.planar()
    with pytest.raises(UnalignedBlock, match="A block start of 8 along x"):
        TileGrid(Box((0, 0, 8), (1, 512, 512)), (1, 128, 128), paper, (1, 512, 512))
