"""The join tables of an unfinished label volume, stored inside its group.

They lie beside the volume's array, so that they are where the output is, on a disk or behind a
URL, and outlive a killed run. They are removed when every block is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from tilenet.errors import UnreadableVolume
from tilenet.volumes.listing import lattice, stored_keys
from tilenet.volumes.stores import make_store, open_node

#: Path of the tables below the output's group.
FOLDER = "join"

#: Entries per stored chunk: a worker reads the few that hold its block's.
CHUNK = 2**18


def write_join(location: str, ids: npt.NDArray[Any], offsets: npt.NDArray[np.int64]) -> None:
    """Store the join tables, the offsets last.

    Parameters
    ----------
    location : str, path or URL of the output's group
    ids : ndarray of uint32 or uint64, shape (components of all blocks,)
    offsets : ndarray of int64, shape (blocks + 1,)
    """
    tables = _without_tables(location).create_group(FOLDER)
    for name, values in (("ids", ids), ("offsets", offsets)):
        array = tables.create_array(
            name,
            # An array of length 0 has no chunks, and existence is what says that it is whole.
            shape=(max(1, len(values)),),
            dtype=values.dtype,
            chunks=(min(CHUNK, max(1, len(values))),),
            config={"write_empty_chunks": True},
        )
        array[:] = values if len(values) else values.dtype.type(0)


def has_join(location: str) -> bool:
    """Tell whether the tables are stored, and whole.

    Parameters
    ----------
    location : str, path or URL of the output's group

    Returns
    -------
    bool
        False also where writing them was interrupted.
    """
    try:
        arrays = [_open(location, name) for name in ("ids", "offsets")]
    except UnreadableVolume:
        return False
    return all(
        {f"c/{i}" for i in range(*lattice(array))} <= set(stored_keys(array)) for array in arrays
    )


def read_join(location: str, block: int) -> npt.NDArray[Any]:
    """Read the final ids of a block's components.

    Parameters
    ----------
    location : str, path or URL of the output's group
    block : int, position of the block in its grid

    Returns
    -------
    ndarray of uint32 or uint64, shape (components + 1,)
        By the block's label; 0 is the background's.
    """
    start, stop = (int(n) for n in np.asarray(_open(location, "offsets")[block : block + 2]))
    ids = _open(location, "ids")
    if start == stop:
        return np.zeros(1, ids.dtype)
    return np.concatenate([np.zeros(1, ids.dtype), np.asarray(ids[start:stop])])


def remove_join(location: str) -> None:
    """Remove the tables, if there are any.

    Parameters
    ----------
    location : str, path or URL of the output's group
    """
    _without_tables(location)


def _without_tables(location: str) -> zarr.Group:
    group = zarr.open_group(make_store(location, writable=True), mode="r+")
    if FOLDER in group:
        del group[FOLDER]
    return group


def _open(location: str, name: str) -> zarr.Array[Any]:
    array = open_node(location, f"{FOLDER}/{name}")
    assert isinstance(array, zarr.Array)
    return array
