"""Volumes in Zarr: open, read a box, write a block, and ask which blocks are there.

A volume is one array, seen as (z, y, x) or (c, z, y, x) whatever the order, the number and the
names of its stored axes are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from tilenet.errors import TilenetError, UnreadableBlock
from tilenet.geometry import ZYX, BlockGrid, Box
from tilenet.volumes import listing
from tilenet.volumes.layout import Layout, find_layout
from tilenet.volumes.provenance import CREATION
from tilenet.volumes.reading_errors import is_of_system, why_unreadable
from tilenet.volumes.stores import is_remote, open_for_writing, stored_sizes

#: Chunks are read in groups of so many bytes, one chunk at least. Of an array without shards zarrs
#: keeps every chunk that a box cuts until it has read the last; of one with shards it decodes as
#: many chunks at once as there are cores, and zarr-python ten. Measured: a plane of 4 MiB through
#: 32 chunks of 8 MiB took 285 MiB. Groups cost at most a tenth of a read's time.
READ_BYTES = 16 * 2**20

#: What the commands of ours make, by the attribute "kind": every shard of it is stored in the end.
WHOLE_KINDS = ("volume", "prediction", "instances", "weights")


@dataclass(frozen=True)
class Volume:
    """One stored array, seen as (z, y, x) or (c, z, y, x).

    Parameters
    ----------
    location : str, path or URL
    array : zarr.Array
    layout : Layout
    attributes : mapping
        The group's attributes under "tilenet": provenance.
    """

    location: str
    array: zarr.Array[Any]
    layout: Layout
    attributes: Mapping[str, Any]

    @property
    def shape(self) -> ZYX:
        """Voxels, (z, y, x)."""
        crop = self.layout.crop
        return self.layout.along_zyx(self.array.shape) if crop is None else crop.shape

    @property
    def channels(self) -> int | None:
        """Number of channels; None when the volume is seen as (z, y, x)."""
        if "c" not in self.layout.axes or self.layout.channel is not None:
            return None
        return int(self.array.shape[self.layout.axes.index("c")])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the stored values."""
        return np.dtype(self.array.dtype)

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        """Nanometres, (z, y, x); None when the metadata do not say."""
        return self.layout.voxel_size

    @property
    def translation(self) -> tuple[float, float, float] | None:
        """Position of the first voxel's centre, nanometres, (z, y, x); None when not stated."""
        return self.layout.translation

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed in opening it, a sentence each, for people."""
        return self.layout.notes

    @property
    def creation(self) -> str | None:
        """Id that it was created with, by us; None where it has none."""
        found = self.attributes.get(CREATION)
        return None if found is None else str(found)

    @property
    def write_shape(self) -> ZYX:
        """Shape of what is written as one object: a shard, or a chunk of an unsharded array."""
        return self.layout.along_zyx(self.array.shards or self.array.chunks)

    @property
    def chunk_shape(self) -> ZYX:
        """Shape of what is decoded as one piece, (z, y, x)."""
        return self.layout.along_zyx(self.array.chunks)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk, with all channels that it holds."""
        return math.prod(self.array.chunks) * self.dtype.itemsize

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Read the voxels of a box.

        Parameters
        ----------
        box : Box, inside the volume

        Returns
        -------
        ndarray, shape (z, y, x) or (c, z, y, x), the stored dtype
            A fresh array.

        Raises
        ------
        UnreadableBlock
            When stored bytes cannot be read or decoded.
        """
        try:
            values = self._stored(self.layout.index(box))
        except Exception as error:  # codecs and stores raise what they like
            problem = self._broken_shards(box) + why_unreadable(error)
            damaged = not is_of_system(error)
            raise UnreadableBlock(self.location, str(box), problem, damaged) from error
        return self.layout.arrange(values)

    def _broken_shards(self, box: Box) -> str:
        # Which objects, for the message; over a network every look may wait for its time-out.
        broken: list[str] = []
        shards = () if is_remote(self.location) else self._shards(box)
        for part in (shard.intersect(box) for shard in shards):
            try:
                self._stored(self.layout.index(part))
            except Exception:  # whatever it was, it is told already
                broken.extend(self.shard_keys(part))
        return f"{', '.join(broken)}: " if broken else ""

    def _shards(self, box: Box) -> BlockGrid:
        return BlockGrid(self.shape, self.write_shape, box)

    def read_whole(self, box: Box) -> npt.NDArray[Any]:
        """Read a box, and refuse zeros that stand for what is gone.

        Parameters
        ----------
        box : Box, inside the volume

        Returns
        -------
        ndarray, shape (z, y, x) or (c, z, y, x), the stored dtype
            A fresh array.

        Raises
        ------
        UnreadableBlock
            When it cannot be read, or a shard is missing of a volume that a command of ours made.
            Of others Zarr says that what is not stored has the fill value.
        """
        values = self.read(box)
        if self.attributes.get("kind") in WHOLE_KINDS:
            for part in (shard.intersect(box) for shard in self._shards(box)):
                self._check_there(part, values[(..., *part.relative_to(box.start).slices)])
        return values

    def _check_there(self, part: Box, values: npt.NDArray[Any]) -> None:
        # Some of a shard's voxels differ from zero nearly always, and then it is there.
        if any(some.any(axis=(-3, -2, -1)).all() for some in (values[..., ::8, ::8], values)):
            return
        keys = list(self.shard_keys(part))
        sizes = stored_sizes(self.array, keys)
        gone = [key for key, size in zip(keys, sizes, strict=True) if size is None]
        if gone:
            problem = f"{', '.join(gone)}: is missing, and was stored before"
            # Where the array's own metadata are gone too, the whole is out of reach.
            metadata = stored_sizes(self.array, ["zarr.json", ".zarray"])
            damaged = any(size is not None for size in metadata)
            raise UnreadableBlock(self.location, str(part), problem, damaged)

    def _stored(self, index: tuple[slice, ...]) -> npt.NDArray[Any]:
        ranges = [range(*s.indices(n)) for s, n in zip(index, self.array.shape, strict=True)]
        groups = self._groups(ranges)
        if len(groups) == 1:
            return np.asarray(self.array[index])
        values = np.empty([len(wanted) for wanted in ranges], self.dtype)
        for part in groups:
            inside = (
                slice(s.start - r.start, s.stop - r.start)
                for s, r in zip(part, ranges, strict=True)
            )
            values[tuple(inside)] = self.array[part]
        return values

    def _groups(self, ranges: Sequence[range]) -> list[tuple[slice, ...]]:
        # Parts of a box that cut no more chunks than may be read at once; whole rows of them first.
        room, cuts = max(1, READ_BYTES // self.chunk_bytes), list[list[slice]]()
        for wanted, chunk in zip(reversed(ranges), reversed(self.array.chunks), strict=True):
            first = wanted.start // chunk
            count = max(1, min(room, math.ceil(wanted.stop / chunk) - first))
            cuts.insert(0, _cuts(wanted, first * chunk, count * chunk))
            room //= count
        return list(itertools.product(*cuts))

    def write(self, box: Box, values: npt.NDArray[Any]) -> None:
        """Write the voxels of a block, durably.

        Parameters
        ----------
        box : Box
            Whole shards, or up to the volume's edge; one writer at a time for each shard.
        values : ndarray, shape (z, y, x) or (c, z, y, x), the stored dtype

        Raises
        ------
        UnreadableBlock
            When what is stored there, or said of it, is such that nothing can be written.
        """
        # The only channel of an array that has but one may come without its axis.
        missing = (np.newaxis,) * (self.array.ndim - values.ndim)
        try:
            self.array[self.layout.index(box)] = values[missing]
        except (OSError, MemoryError, TilenetError):
            raise
        except Exception as error:  # codecs raise what they like
            raise UnreadableBlock(self.location, str(box), why_unreadable(error)) from error

    # -- which blocks are stored ----------------------------------------------------------------

    def missing(self, blocks: Sequence[Box]) -> list[int]:
        """Ask the store which blocks are not whole.

        Parameters
        ----------
        blocks : sequence of Box
            Boxes of whole shards, or up to the volume's edge.

        Returns
        -------
        list of int
            Indices of the blocks of which at least one shard is not stored, ascending.
        """
        wanted = (key for box in blocks for key in self.shard_keys(box))
        whole = self.layout.index(Box.of_shape(self.shape))
        stored = listing.stored_along_axes(self.array, self.layout.axes, whole, wanted)
        return listing.missing_blocks(stored, self.write_shape, blocks)

    def shard_keys(self, box: Box) -> Iterator[str]:
        """Name the stored objects that hold a box.

        Parameters
        ----------
        box : Box, inside the volume

        Returns
        -------
        iterator of str
            Keys relative to the array.
        """
        return listing.shard_keys(self.array, self.layout.index(box))


def open_volume(
    location: str,
    *,
    level: str | None = None,
    channel: int | None = None,
    axes: str | None = None,
) -> Volume:
    """Open a volume for reading.

    Parameters
    ----------
    location : str
        Local path or URL of an OME-Zarr group (0.1 to 0.5, and what is plain of 0.6), of one of its
        levels, or of a plain Zarr array (v3 or v2).
    level : str, optional
        Path or index of a pyramid level; the finest by default.
    channel : int, optional
        Channel to read; without it all channels are.
    axes : str, optional
        Meaning of the stored axes, for example "czyx", where the metadata do not say or are wrong.

    Returns
    -------
    Volume
        Opened, nothing read yet.

    Raises
    ------
    UnreadableVolume, AmbiguousVolume
        When there is no volume, or several readings of it.
    """
    location = str(location)
    found = find_layout(location, level=level, channel=channel, axes=axes)
    return Volume(location, found.array, found.layout, found.attributes)


def reopen_for_writing(location: str) -> Volume:
    """Open a volume of ours for writing blocks.

    Parameters
    ----------
    location : str, path or URL

    Returns
    -------
    Volume
        Durable, and storing blocks that are all zero too.
    """
    volume = open_volume(location)
    array = open_for_writing(location, volume.layout.level or "0")
    return Volume(location, array, volume.layout, volume.attributes)


def _cuts(wanted: range, first: int, step: int) -> list[slice]:
    # The parts of a range that lie in one step each, counted from the first.
    starts = [wanted.start, *range(first + step, wanted.stop, step)]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], wanted.stop], strict=True)]
