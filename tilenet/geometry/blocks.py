"""Blocks of a volume: a lattice of boxes, computed when asked.

Arithmetic on integers: a grid of 10^9 blocks costs as much as a grid of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from tilenet.geometry.box import ZYX, Box, zyx


@dataclass(frozen=True, slots=True)
class BlockGrid(Sequence[Box]):
    """The blocks of a region of a volume, in C order, each cropped to the volume.

    Parameters
    ----------
    volume_shape, block_shape : tuple of int, (z, y, x)
        Blocks at the volume's upper faces may be smaller.
    region : Box, optional
        Only blocks that touch this box; the whole volume by default.
    """

    volume_shape: ZYX
    block_shape: ZYX
    region: Box | None = None

    @property
    def lattice(self) -> Box:
        """The blocks' coordinates on the lattice of block shapes."""
        whole = Box.of_shape(self.volume_shape)
        region = whole if self.region is None else self.region.intersect(whole)
        snapped = region.snap_outward(self.block_shape)
        return Box(
            zyx(a // n for a, n in zip(snapped.start, self.block_shape, strict=True)),
            zyx(b // n for b, n in zip(snapped.stop, self.block_shape, strict=True)),
        )

    @property
    def covered(self) -> Box:
        """The union of the blocks: the region snapped outward to whole blocks."""
        start = zyx(a * n for a, n in zip(self.lattice.start, self.block_shape, strict=True))
        stop = zyx(b * n for b, n in zip(self.lattice.stop, self.block_shape, strict=True))
        return Box(start, stop).intersect(Box.of_shape(self.volume_shape))

    def __len__(self) -> int:
        return self.lattice.size

    @overload
    def __getitem__(self, index: int) -> Box: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Box]: ...
    def __getitem__(self, index: int | slice) -> Box | Sequence[Box]:
        if isinstance(index, slice):
            return _View(self, range(len(self))[index])
        lattice = self.lattice
        position = range(lattice.size)[index]
        offset = unravel(position, lattice.shape)
        return self.block_at(zyx(a + n for a, n in zip(lattice.start, offset, strict=True)))

    def block_at(self, coordinates: ZYX) -> Box:
        """Give the block at a lattice position, cropped to the volume."""
        start = zyx(c * n for c, n in zip(coordinates, self.block_shape, strict=True))
        block = Box(start, zyx(a + n for a, n in zip(start, self.block_shape, strict=True)))
        return block.intersect(Box.of_shape(self.volume_shape))


@dataclass(frozen=True, slots=True)
class _View(Sequence[Box]):
    # A slice of a grid: as lazy as the grid.
    grid: BlockGrid
    indices: range

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Box: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Box]: ...
    def __getitem__(self, index: int | slice) -> Box | Sequence[Box]:
        if isinstance(index, slice):
            return _View(self.grid, self.indices[index])
        return self.grid[self.indices[index]]


def unravel(position: int, counts: Sequence[int]) -> tuple[int, ...]:
    """Give the coordinates of a position on a lattice, in C order.

    Parameters
    ----------
    position : int, counted from 0
    counts : sequence of int
        Extents of the lattice, of any size: NumPy's integers end where a damaged shape goes on.

    Returns
    -------
    tuple of int
        One coordinate per extent.
    """
    coordinates = []
    for count in reversed(counts):
        position, coordinate = divmod(position, count)
        coordinates.append(coordinate)
    return tuple(reversed(coordinates))
