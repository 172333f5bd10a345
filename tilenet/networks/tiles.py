"""Blocks of a volume and tiles of a block. Pure: standard library only.

A :class:`BlockGrid` cuts a volume into disjoint blocks, each written by one task. A
:class:`TileGrid` cuts a block into tiles, each computed by one evaluation of the network. Both are
arithmetic on integers: a grid of 10^9 items costs as much as a grid of one.

Along one axis, for the paper's network (halo 92, alignment 16) and tiles that keep 256::

    input box    [-92 ............................. 352)   what the network is given
    output box      [0 ....................... 260)        what it returns: the next legal size
    kept box        [0 .................... 256)           what is stored
    read box        [0 ............................ 352)   the stored voxels behind the input box

Voxels of the input box that lie outside the volume are mirrored, so the read box holds every
voxel that a mirror image comes from.

What the output has beyond the tile, here 4 voxels, lies at the high end of what the network sees.
Along a flipped axis that is the low end of the volume's: the tile [0 .. 256) is then cut from
[-96 .. 348). So a block whose flips are averaged needs the excess on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from tilenet.geometry import ALIGNMENT_REASON, ZYX, BlockGrid, Box, check_multiple, read_box_of, zyx
from tilenet.networks.orientations import IDENTITY, Orientation, check_quarter_turns
from tilenet.networks.unet_architecture import UNetArchitecture


@dataclass(frozen=True, slots=True)
class Tile:
    """One evaluation of the network, and where its voxels come from and go to.

    Parameters
    ----------
    kept, output, input : Box
        What is stored, inside the volume; what the network returns, which starts where ``kept``
        does (but where an orientation flips, see :meth:`TileGrid.seen`) and may overhang it; that
        grown by the halo, which may leave the volume on every side.
    """

    kept: Box
    output: Box
    input: Box

    @property
    def crop(self) -> tuple[slice, slice, slice]:
        """Slices that cut the kept voxels out of the network's output."""
        return self.kept.relative_to(self.output.start).slices


@dataclass(frozen=True, slots=True)
class TileGrid(Sequence[Tile]):
    """The tiles of one block, all of one input shape.

    Parameters
    ----------
    block : Box
        Inside the volume, starting at a multiple of the alignment.
    tile_shape : tuple of int
        Voxels that a tile keeps, (z, y, x), a multiple of the alignment: a tile that starts between
        two multiples is refused, for the network would compute other numbers there.
    architecture : UNetArchitecture
    volume_shape : tuple of int, (z, y, x)
    orientations : tuple of Orientation
        Those that every tile is evaluated in.
    """

    block: Box
    tile_shape: ZYX
    architecture: UNetArchitecture
    volume_shape: ZYX
    orientations: tuple[Orientation, ...] = (IDENTITY,)

    def __post_init__(self) -> None:
        check_quarter_turns(self.orientations, self.architecture, self.tile_shape)
        check_multiple("A tile", self.tile_shape, self.architecture.alignment, ALIGNMENT_REASON)
        alignment = self.architecture.alignment
        check_multiple("A block start", self.block.start, alignment, ALIGNMENT_REASON)

    @property
    def blocks(self) -> BlockGrid:
        """The kept boxes as a grid of the block."""
        return BlockGrid(self.block.shape, self.tile_shape)

    @property
    def output_shape(self) -> ZYX:
        """Shape that the network returns for every tile, (z, y, x)."""
        return self.architecture.output_for(self.tile_shape)

    @property
    def input_shape(self) -> ZYX:
        """Shape that the network is given for every tile, (z, y, x)."""
        return self.architecture.input_for(self.output_shape)

    @property
    def input_box(self) -> Box:
        """Union of the tiles' input boxes in every orientation; may leave the volume."""
        first = [self.seen(self[0], orientation).input.start for orientation in self.orientations]
        # No orientation reaches farther up than the one that flips nothing.
        return Box(zyx(min(starts) for starts in zip(*first, strict=True)), self[-1].input.stop)

    @property
    def read_box(self) -> Box:
        """Stored voxels that the whole block depends on, inside the volume."""
        return read_box_of(self.input_box, self.volume_shape)

    def seen(self, tile: Tile, orientation: Orientation) -> Tile:
        """Give a tile's boxes for an orientation, in coordinates of the volume."""
        # Along a flipped axis the output ends where the tile ends: the network sees that voxel
        # first, and the poolings begin there, at a multiple of the alignment.
        shift = zyx(
            kept - size if flipped else 0
            for flipped, kept, size in zip(
                orientation.flips, self.tile_shape, self.output_shape, strict=True
            )
        )
        back = zyx(-n for n in shift)
        return Tile(tile.kept, tile.output.relative_to(back), tile.input.relative_to(back))

    def __len__(self) -> int:
        return len(self.blocks)

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tile]: ...
    def __getitem__(self, index: int | slice) -> Tile | Sequence[Tile]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        origin = zyx(-n for n in self.block.start)
        kept = self.blocks[index].relative_to(origin)
        output = Box(
            kept.start, zyx(a + n for a, n in zip(kept.start, self.output_shape, strict=True))
        )
        halo = self.architecture.halo
        return Tile(kept, output, output.grow(halo, halo))
