"""Which shards of an array are stored: a million of them in seconds, and in a byte each."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from tilenet import storage
from tilenet.errors import UnreadableVolume
from tilenet.geometry import ZYX
from tilenet.tiling import BlockGrid


def stored_shards(array: zarr.Array[Any], wanted: Iterable[str] = ()) -> npt.NDArray[np.bool_]:
    """List the shards of an array.

    Parameters
    ----------
    array : zarr.Array
        The array.
    wanted : iterable of str
        The keys that matter: where nothing can be listed, they are asked for one by one.

    Returns
    -------
    ndarray of bool, one axis per stored axis
        Whether each shard, or chunk of an array without shards, is stored.

    Raises
    ------
    UnreadableVolume
        When a folder cannot be listed.
    """
    sizes = array.shards or array.chunks
    counts = [math.ceil(n / size) for n, size in zip(array.shape, sizes, strict=True)]
    stored = np.zeros(math.prod(counts), np.bool_)
    # Whatever else lies there names no shard. A table per axis knows each index by one text only.
    strides = [math.prod(counts[axis + 1 :]) for axis in range(len(counts))]
    tables = [
        {str(i): i * stride for i in range(count)}
        for count, stride in zip(counts, strides, strict=True)
    ]
    start, separator = _key_parts(array)
    for key in _keys(array, wanted):
        parts = key.removeprefix(start).split(separator)
        if key.startswith(start) and len(parts) == len(tables):
            try:
                stored[sum(map(operator.getitem, tables, parts))] = True
            except KeyError:
                continue
    return stored.reshape(counts)


def _key_parts(array: zarr.Array[Any]) -> tuple[str, str]:
    # What a key begins with, and what stands between its numbers: c/0/1/2, c.0.1.2, 0.1.2.
    first = array.metadata.encode_chunk_key((0,) * array.ndim)
    start, _, rest = first.partition("0")
    return start, rest[:1] or "/"


def _keys(array: zarr.Array[Any], wanted: Iterable[str]) -> Iterable[str]:
    if not isinstance(array.store, LocalStore):
        return storage.list_keys(array, wanted)
    return _files_below(os.fspath(array.store.root / array.path))


def _files_below(root: str) -> Iterator[str]:
    # zarr-python's own listing takes ten times as long, most of it for Path objects.
    folders = [("", root)]
    while folders:
        prefix, folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((f"{prefix}{entry.name}/", entry.path))
                    elif entry.is_file():
                        yield prefix + entry.name
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UnreadableVolume.unreachable(folder, error) from error


def incomplete(
    stored: npt.NDArray[np.bool_], shard: ZYX, grid: BlockGrid
) -> npt.NDArray[np.bool_] | None:
    """Tell of all blocks of a grid at once whether they lack a shard.

    Parameters
    ----------
    stored : ndarray of bool, shape (z, y, x)
        Whether each shard of the volume is stored.
    shard : tuple of int
        Voxels of a shard, (z, y, x).
    grid : BlockGrid
        The blocks.

    Returns
    -------
    ndarray of bool, shape of the grid's lattice, or None
        True where a shard is missing; None when blocks are not whole shards.
    """
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
