"""Which shards of an array are stored: a million of them in seconds, and in a byte each."""

from __future__ import annotations

import errno
import itertools
import math
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore

from tilenet.errors import UnreadableVolume
from tilenet.geometry import ZYX, BlockGrid, Box
from tilenet.volumes.stores import TAKEN, RemoteStore, can_list, in_turn, stored_sizes, sync


def lattice(array: zarr.Array[Any]) -> list[int]:
    """Count the shards, or chunks of an array without shards, along each stored axis."""
    sizes = array.shards or array.chunks
    # Not by floating-point numbers, which end where a damaged shape goes on.
    return [-(-n // size) for n, size in zip(array.shape, sizes, strict=True)]


def shard_keys(array: zarr.Array[Any], index: Sequence[slice]) -> Iterator[str]:
    """Name the stored objects that hold a part of an array."""
    return map(array.metadata.encode_chunk_key, itertools.product(*touched(array, index)))


def touched(array: zarr.Array[Any], index: Sequence[slice]) -> list[range]:
    """Say which shards along each stored axis hold a part of an array."""
    sizes = array.shards or array.chunks
    ranges = (range(*part.indices(n)) for part, n in zip(index, array.shape, strict=True))
    return [
        range(wanted.start // size, math.ceil(wanted.stop / size))
        for wanted, size in zip(ranges, sizes, strict=True)
    ]


class _Positions(dict[str, int]):
    # Where an index lies in flat order, by its text: by one text only. Filled as texts are met, for
    # a damaged shape may have more of them than there is memory.

    def __init__(self, count: int, stride: int) -> None:
        super().__init__()
        self.count, self.stride = count, stride

    def __missing__(self, text: str) -> int:
        if not (text.isascii() and text.isdigit()) or str(int(text)) != text:
            raise KeyError(text)
        if int(text) >= self.count:
            raise KeyError(text)
        self[text] = int(text) * self.stride
        return self[text]


def key_reader(array: zarr.Array[Any]) -> Callable[[str], int | None]:
    """Make what reads the keys of an array's shards.

    Parameters
    ----------
    array : zarr.Array

    Returns
    -------
    callable
        From a key relative to the array to the shard's position in C order; None if it is of none.
    """
    counts = lattice(array)
    tables = [_Positions(count, math.prod(counts[axis + 1 :])) for axis, count in enumerate(counts)]
    # What a key begins with, and what stands between its numbers: c/0/1/2, c.0.1.2, 0.1.2.
    first = array.metadata.encode_chunk_key((0,) * array.ndim)
    start, _, rest = first.partition("0")
    separator = rest[:1] or "/"

    def position(key: str) -> int | None:
        parts = key.removeprefix(start).split(separator)
        if not key.startswith(start) or len(parts) != len(tables):
            return None
        try:
            return sum(map(operator.getitem, tables, parts))
        except KeyError:
            return None

    return position


def stored_shards(array: zarr.Array[Any], wanted: Iterable[str] = ()) -> npt.NDArray[np.bool_]:
    """Tell which shards of an array are stored, along its stored axes."""
    counts = lattice(array)
    stored, position = np.zeros(math.prod(counts), np.bool_), key_reader(array)
    for key in stored_keys(array, wanted):
        found = position(key)
        if found is not None:
            stored[found] = True
    return stored.reshape(counts)


def stored_along_axes(
    array: zarr.Array[Any], axes: Sequence[str], index: Sequence[slice], wanted: Iterable[str]
) -> npt.NDArray[np.bool_]:
    """Tell which shards of a volume, (z, y, x), are stored of all channels that are read."""
    part = tuple(slice(each.start, each.stop) for each in touched(array, index))
    kept = [axis for axis in axes if axis in "zyx"]
    others = tuple(i for i, axis in enumerate(axes) if axis not in kept)
    stored: npt.NDArray[np.bool_] = stored_shards(array, wanted)[part]
    stored = np.logical_and.reduce(stored, axis=others)
    stored = stored.transpose([kept.index(axis) for axis in "zyx" if axis in kept])
    return stored if "z" in kept else stored[np.newaxis]


def count_stored(array: zarr.Array[Any]) -> int:
    """Ask the store how many objects it holds of an array.

    Parameters
    ----------
    array : zarr.Array

    Returns
    -------
    int
        Shards or chunks, and whatever else is there; all of the array where nothing can be listed.
    """
    if can_list(array.store):
        return sum(1 for _ in stored_keys(array))
    return math.prod(lattice(array))


def stored_keys(array: zarr.Array[Any], wanted: Iterable[str] = ()) -> Iterator[str]:
    """List what an array has stored, in no order: keys of shards, and whatever else lies there.

    Where nothing can be listed, the keys that are wanted are asked for one by one.
    """
    if can_list(array.store):
        yield from names_below(array.store, array.path)
        return
    keys = iter(wanted)
    while some := list(itertools.islice(keys, TAKEN)):
        sizes = stored_sizes(array, some)
        yield from (key for key, size in zip(some, sizes, strict=True) if size is not None)


def some_names_below(store: Store, path: str, most: int) -> list[str]:
    """List no more than so many names below a folder of a store that can list."""
    if isinstance(store, RemoteStore):
        # As it comes: the folders that names_below lists first may hold millions.
        prefix = f"{path}/" if path else ""
        return [name.removeprefix(prefix) for name in sync(store.some(prefix, most))]
    return list(itertools.islice(names_below(store, path), most))


def names_below(store: Store, path: str) -> Iterator[str]:
    """List what lies below a folder of a store that can list, in no order."""
    if isinstance(store, LocalStore):
        yield from _files_below(os.fspath(store.root / path))
        return
    prefix = f"{path}/" if path else ""
    listed = in_turn(store.list_prefix(prefix))
    yield from (name.removeprefix(prefix) for name in listed)


def _files_below(root: str) -> Iterator[str]:
    # zarr-python's own listing takes ten times as long, most of it for Path objects.
    folders: list[tuple[str, str, tuple[str, ...]]] = [("", root, (os.path.realpath(root),))]
    while folders:
        prefix, folder, entered = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _leads_nowhere(entry):
                        continue
                    if entry.is_dir():
                        # A link may lead back to where it lies, and so on for ever.
                        target = (os.path.realpath(entry.path),) if entry.is_symlink() else ()
                        if not set(target) & set(entered):
                            below = f"{prefix}{entry.name}/"
                            folders.append((below, entry.path, entered + target))
                    elif entry.is_file():
                        yield prefix + entry.name
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UnreadableVolume.unreachable(folder, error) from error


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    # A link to itself, say; one to what is not there is no file by its own account.
    try:
        entry.is_file()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return True
    return False


def missing_blocks(stored: npt.NDArray[np.bool_], shard: ZYX, blocks: Sequence[Box]) -> list[int]:
    if isinstance(blocks, BlockGrid) and len(blocks):
        lacking = incomplete(stored, shard, blocks)
        if lacking is not None:
            return [int(i) for i in np.flatnonzero(lacking)]
    return [i for i, box in enumerate(blocks) if not stored[_shards_of(box, shard)].all()]


def _shards_of(box: Box, shard: ZYX) -> tuple[slice, ...]:
    return tuple(
        slice(a // n, math.ceil(b / n)) for a, b, n in zip(box.start, box.stop, shard, strict=True)
    )


def incomplete(
    stored: npt.NDArray[np.bool_], shard: ZYX, grid: BlockGrid
) -> npt.NDArray[np.bool_] | None:
    """Tell of all blocks of a grid whether they lack a shard; None if blocks cut shards."""
    whole = stored
    for axis, (block, size) in enumerate(zip(grid.block_shape, shard, strict=True)):
        if block % size:
            return None
        first, last = grid.lattice.start[axis], grid.lattice.stop[axis]
        shards = range(first * block // size, last * block // size)
        whole = whole.take(range(shards.start, min(shards.stop, stored.shape[axis])), axis)
        starts = np.arange(0, len(shards), block // size)
        whole = np.logical_and.reduceat(whole, starts, axis=axis)
    return ~whole
