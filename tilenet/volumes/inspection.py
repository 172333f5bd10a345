"""The stored objects of a volume, one by one: whole or not, and what lies beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from zarr.abc.store import SuffixByteRequest
from zarr.codecs import ShardingCodec

from tilenet.errors import InvalidData, StoreFailed, UnreadableBlock
from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.volumes.listing import names_below
from tilenet.volumes.reading_errors import is_of_system
from tilenet.volumes.stores import (
    RemoteStore,
    can_list,
    decoded_by_zarr,
    default_buffer_prototype,
    in_turn,
    make_store,
    stored_sizes,
    sync,
)
from tilenet.volumes.volume import READ_BYTES, Volume

#: Bytes of an entry of a shard's index, offset and length of a chunk, and of the index's checksum.
ENTRY_BYTES, CHECKSUM_BYTES = 16, 4

#: What an index says of a chunk that is not stored: all bits set.
NOT_STORED = 2**64 - 1

#: Kind and cause of what is not there.
MISSING = ("missing", "is not stored")


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that is wrong with an output.

    Parameters
    ----------
    kind : str
        "missing", "damaged", "impossible" (values that cannot be), "different" (from what is
        computed anew), "unreachable", "unchecked", "stray", "unfinished" or "provenance".
    path, box, cause : str
        Stored object, relative to the output; voxels; what is wrong. Path and box may be empty.
    tolerable : bool
        Of what is different: no more so than numeric plans may differ.
    """

    kind: str
    path: str
    box: str
    cause: str
    tolerable: bool = False

    def __str__(self) -> str:
        place = " ".join(part for part in (self.path, self.box) if part)
        return f"{self.kind}: {place}: {self.cause}" if place else f"{self.kind}: {self.cause}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What stored values can be: finite, and within bounds.

    Parameters
    ----------
    low, high : float
    """

    low: float
    high: float

    def problem(self, values: npt.NDArray[Any]) -> str | None:
        """Say what is wrong with values, if anything."""
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return f"{int((~np.isfinite(values)).sum())} values are NaN or infinite"
        for value in (values.min(), values.max()):
            if not self.low <= value <= self.high:
                return f"holds {value}, and what is stored lies in {self.low:g} to {self.high:g}"
        return None


def views(volume: Volume) -> list[Volume]:
    """List the channels of a volume of ours as (z, y, x): each lies in shards of its own."""
    channels = range(volume.channels or 0)
    layouts = [replace(volume.layout, channel=channel) for channel in channels]
    return [replace(volume, layout=layout) for layout in layouts] or [volume]


def object_path(volume: Volume, key: str) -> str:
    """Name a stored object, relative to the location that the volume was opened by.

    Parameters
    ----------
    volume : Volume
    key : str, relative to its array

    Returns
    -------
    str
        Path.
    """
    return f"{volume.array.path}/{key}".lstrip("/")


def check_shard(volume: Volume, shard: Box, bounds: Bounds | None) -> Flaw | None:
    """Look whether a channel's shard is stored, whole, decodable, and of possible values.

    Gives what was found first. Memory holds one group of chunks.
    """
    (key,) = volume.shard_keys(shard)
    try:
        kind, cause = _index_problem(volume, shard, key) or _values_problem(volume, shard, bounds)
    except StoreFailed as error:
        kind, cause = "unreachable", error.problem
    except OSError as error:
        kind, cause = "unreachable", error.strerror or str(error)
    return Flaw(kind, object_path(volume, key), str(shard), cause) if cause else None


def _index_problem(volume: Volume, shard: Box, key: str) -> tuple[str, str] | None:
    (size,) = stored_sizes(volume.array, [key])
    if size is None:
        return MISSING
    codec = next(iter(getattr(volume.array.metadata, "codecs", ())), None)
    if not isinstance(codec, ShardingCodec):
        return None  # decoding says all there is to know
    sizes = zip(volume.array.shards or (), volume.array.chunks, strict=True)
    counts = tuple(s // c for s, c in sizes)
    length = math.prod(counts) * ENTRY_BYTES + CHECKSUM_BYTES
    if size < length:
        return "damaged", f"has {size} bytes, fewer than the index of a shard ({length})"
    raw = _read_tail(volume, key, length)
    if raw is None:
        return MISSING
    index = _index(raw)
    if index is None:
        return "damaged", "its index does not match its checksum: cut off, or overwritten"
    problem = _entries_problem(index, size - length, _inside(volume, shard, counts))
    return ("damaged", problem) if problem else None


def _read_tail(volume: Volume, key: str, length: int) -> bytes | None:
    prototype, tail = default_buffer_prototype(), SuffixByteRequest(length)
    stored = sync(volume.array.store.get(object_path(volume, key), prototype, tail))
    return None if stored is None else stored.to_bytes()


def _index(raw: bytes) -> npt.NDArray[np.uint64] | None:
    entries, checksum = raw[:-CHECKSUM_BYTES], raw[-CHECKSUM_BYTES:]
    if google_crc32c.value(entries).to_bytes(CHECKSUM_BYTES, "little") != checksum:
        return None
    return np.frombuffer(entries, "<u8").reshape(-1, 2)


def _inside(volume: Volume, shard: Box, counts: Sequence[int]) -> npt.NDArray[np.bool_]:
    # Of a shard at the edge, chunks that lie beyond the volume as a whole need not be stored.
    voxels = dict(zip("zyx", zip(shard.shape, volume.chunk_shape, strict=True), strict=True))
    inside = np.zeros(counts, bool)
    ranges = (
        slice(math.ceil(voxels[axis][0] / voxels[axis][1])) if axis in voxels else slice(None)
        for axis in volume.layout.axes
    )
    inside[tuple(ranges)] = True
    return inside.ravel()


def _entries_problem(
    index: npt.NDArray[np.uint64], size: int, inside: npt.NDArray[np.bool_]
) -> str | None:
    stored = (index != NOT_STORED).any(axis=1)
    lacking = int((inside & ~stored).sum())
    if lacking:
        return f"its index lacks {lacking} of {int(inside.sum())} chunks"
    # Python's integers do not overflow, whatever an index says.
    entries = sorted((int(offset), int(length)) for offset, length in index[stored])
    end = 0
    for offset, length in entries:
        if offset != end:
            return f"its index says that a chunk begins at byte {offset}, where {end} is expected"
        end += length
    return None if end == size else f"its chunks have {end} bytes by its index, but {size} in it"


def _values_problem(volume: Volume, shard: Box, bounds: Bounds | None) -> tuple[str, str]:
    pieces = BlockGrid(volume.shape, _piece_shape(volume), shard)
    for piece in (piece.intersect(shard) for piece in pieces):
        try:
            values = volume.read(piece)
        except UnreadableBlock as error:
            return _why_unreadable(volume, piece, error)
        problem = bounds.problem(values) if bounds else None
        if problem:
            return "impossible", f"in {piece}: {problem}"
    return "", ""


def _piece_shape(volume: Volume) -> ZYX:
    # As many chunks as are read at once, whole rows of them first.
    room, piece = max(1, READ_BYTES // volume.chunk_bytes), list(volume.chunk_shape)
    for axis in (2, 1, 0):
        count = max(1, min(room, volume.write_shape[axis] // piece[axis]))
        piece[axis], room = count * piece[axis], room // count
    return zyx(piece)


def _why_unreadable(volume: Volume, piece: Box, error: UnreadableBlock) -> tuple[str, str]:
    # What is called damaged may be deleted, and zarrs has no numbers for errors of the system. So
    # only bytes that zarr-python reads, through Python, and cannot decode either are damaged.
    if is_of_system(error.__cause__):
        return "unreachable", error.problem
    again = replace(volume, array=decoded_by_zarr(volume.array))
    chunks = BlockGrid(volume.shape, volume.chunk_shape, piece)
    for chunk in (chunk.intersect(piece) for chunk in chunks):
        try:
            again.read(chunk)
        except UnreadableBlock as second:
            if is_of_system(second.__cause__) or isinstance(second.__cause__, MemoryError):
                return "unreachable", second.problem
            return "damaged", f"the chunk {chunk} cannot be decoded: {second.problem}"
    if None in stored_sizes(volume.array, list(volume.shard_keys(piece))):
        return MISSING
    return "unreachable", f"could be decoded at the second attempt only: {error.problem}"


def list_objects(location: str) -> Iterator[str]:
    """List whatever lies below a location, as it is told.

    Parameters
    ----------
    location : str, path or URL of the output

    Returns
    -------
    iterator of str
        Relative to it; none of a web server, which cannot be asked, and of an object store no empty
        ones, which may be folders.
    """
    store = make_store(location)
    if not can_list(store):
        return iter(())
    if isinstance(store, RemoteStore):
        return in_turn(entry["path"] async for entry in store.entries("") if entry["size"])
    return names_below(store, "")


def delete_objects(location: str, paths: Sequence[str]) -> None:
    """Delete stored objects; nothing, with an error, when one lies outside of the location.

    Parameters
    ----------
    location : str, path or URL of the output
    paths : sequence of str, relative to it
        What is not there is passed over.
    """
    for path in paths:
        if not path or path.startswith("/") or ".." in path.split("/"):
            problem = f"does not lie below {location}, so nothing is deleted"
            raise InvalidData(f"Object {path!r}", problem, "Report this: it is a defect.")
    store = make_store(location, writable=True)

    async def delete() -> None:
        if isinstance(store, RemoteStore):
            await store.remove(paths)
            return
        for path in paths:
            await store.delete(path)

    sync(delete())
