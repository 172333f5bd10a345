"""In which order a block is read, and its result is complete. Pure: standard library only.

A block is read along its *row axis*, every voxel once, and its result comes along the same axis, so
that neither is in memory as a whole:

- one tile in one orientation: along the stream axis, slab by slab;
- a planar network otherwise: along z, section by section, each with all its tiles;
- else (several tiles of a network that sees many sections, or averaged orientations): all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

from tilenet.geometry import ZYX, round_up
from tilenet.networks import IDENTITY, AxisLaw, TileGrid

#: Rows of shards that are written, or wait for it, while a task computes the next one.
QUEUED_ROWS = 2

#: Threads in which a task writes: at least as many as keep the disk busy while another shard is
#: encoded, and at most as many as paid. Measured: shards of 16 and 512 KiB, each synced, took 0.5
#: times as long in 4 threads as in one, and in 8 no less; of 16 MiB as long as in one.
WRITERS = (2, 4)

#: Bytes of the shards that more than the fewest threads may write at once.
WRITING_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class ReadingOrder:
    """In which order a block is read, and its result is complete.

    Parameters
    ----------
    way : {"stream", "sections", "whole"}
        Slab by slab along the stream axis, section by section along z, or all at once.
    axis, planes : int
        The row axis, 0, 1 or 2 for z, y or x, and planes along it that an evaluation is fed at
        once: a slab, or one section.
    """

    way: Literal["stream", "sections", "whole"]
    axis: int
    planes: int

    @classmethod
    def of(cls, tiles: TileGrid, axis: int, slab: int | None) -> Self:
        """Give the order of a block's tiles; ``slab`` planes are fed along ``axis`` at once.

        A stream where it is one tile in one orientation; of a planar network also one section.
        ``slab`` is None for all planes at once.
        """
        if len(tiles) == 1 and tiles.orientations == (IDENTITY,):
            return cls("stream", axis, slab or tiles.input_shape[axis])
        if tiles.architecture.is_planar:
            return cls("sections", 0, 1)
        return cls("whole", axis, slab or tiles.input_shape[axis])

    def granule(self, chunk_shape: ZYX) -> int:
        """Give how many planes are read at once, of an input with such chunks, (z, y, x).

        Whole chunks, so that none is decoded twice: one slab's, or one section's, at least.
        """
        return round_up(self.planes, chunk_shape[self.axis])


def sections(tiles: TileGrid) -> Iterator[TileGrid]:
    """Give the tiles of each section, for a network to which sections are nothing to one another.

    Parameters
    ----------
    tiles : TileGrid

    Yields
    ------
    TileGrid
        Of one section each, in order along z.
    """
    _, y, x = tiles.tile_shape
    for block in tiles.block.cut(0, 1):
        yield replace(tiles, block=block, tile_shape=(1, y, x))


def planes_held(law: AxisLaw, *, fed: int, at_once: int) -> int:
    """Bound the stored planes that are in memory while a block is read along the row axis.

    Those that the next slab or section (``fed`` planes) lies in or that will be mirrored, and those
    that are read ahead, ``at_once``.
    """
    span = fed + law.halo + law.alignment - 1
    # Wherever they begin they lie in so many granules, and one more is read ahead.
    return at_once * ((span + at_once - 2) // at_once + 2)


def writers(shard_bytes: int) -> int:
    """Choose in how many threads a task writes.

    Parameters
    ----------
    shard_bytes : int, of a shard's voxels, all channels

    Returns
    -------
    int
        The larger a shard is, the fewer: each is encoded in memory, and syncing takes less of it.
    """
    least, most = WRITERS
    return max(least, min(most, WRITING_BYTES // shard_bytes))
