"""Joining the components of all blocks, and numbering the result.

The tables grow with the number of components and contacts, never with that of voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilenet.components import BlockComponents
from tilenet.errors import InvalidData


@dataclass(frozen=True)
class JoinTable:
    """The final id of every component of every block.

    Parameters
    ----------
    ids : ndarray of uint32 or uint64, shape (components of all blocks,)
        Final ids, from 1.
    offsets : ndarray of int64, shape (blocks + 1,)
        ``ids[offsets[i]:offsets[i + 1]]`` are those of block i, by its labels from 1.
    count : int
        Instances in the volume.
    """

    ids: npt.NDArray[np.uint32 | np.uint64]
    offsets: npt.NDArray[np.int64]
    count: int


def id_dtype(count: int) -> np.dtype[np.uint32 | np.uint64]:
    """Choose the data type of instance ids.

    Parameters
    ----------
    count : int
        Instances.

    Returns
    -------
    dtype
        uint32, or uint64 where that is too small.
    """
    return np.dtype(np.uint32 if count <= np.iinfo(np.uint32).max else np.uint64)


def join(blocks: Sequence[BlockComponents]) -> JoinTable:
    """Join the components of blocks that share a component of a region.

    Ids are consecutive from 1 in the order of the instances' first voxels in the volume, so they
    depend on the volume alone.

    Parameters
    ----------
    blocks : sequence of BlockComponents
        Every block of the volume, in the grid's order.

    Returns
    -------
    JoinTable
        The final ids.
    """
    offsets = np.cumsum([0, *(len(block.first) for block in blocks)], dtype=np.int64)
    first = np.concatenate([np.empty(0, np.int64), *(block.first for block in blocks)])
    voxels = np.concatenate([np.empty(0, np.int64), *(b.contact_voxels for b in blocks)])
    nodes = np.concatenate(
        [
            np.empty(0, np.int64),
            *(b.contact_labels - 1 + start for b, start in zip(blocks, offsets[:-1], strict=True)),
        ]
    )
    _lower_to_first(first, voxels, nodes)
    # Different instances have different first voxels.
    distinct, ids = np.unique(first, return_inverse=True)
    count = len(distinct)
    return JoinTable((ids + 1).astype(id_dtype(count)), offsets, count)


def _lower_to_first(
    first: npt.NDArray[np.int64], voxels: npt.NDArray[np.int64], nodes: npt.NDArray[np.int64]
) -> None:
    # Gives every component, in place, the first voxel of the whole instance that it is part of.
    # Only those with contacts enter the graph: SciPy counts its nodes in 32 bits.
    touching, compact = np.unique(nodes, return_inverse=True)
    if len(touching) > np.iinfo(np.int32).max:
        problem = f"{len(touching)} pieces touch block faces, more than can be joined at once"
        raise InvalidData("Labels", problem, "Take larger blocks, or label a part.")
    order = np.argsort(voxels, kind="stable")
    same = np.flatnonzero(np.diff(voxels[order]) == 0)
    a, b = compact[order[same]], compact[order[same + 1]]
    size = len(touching)
    # Here, for every command asks this module how wide ids are, and few join any.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(a), np.uint8), (a, b)), shape=(size, size))
    groups, group = connected_components(graph, directed=False) if size else (0, compact)
    lowest = np.full(groups, np.iinfo(np.int64).max)
    np.minimum.at(lowest, group, first[touching])
    first[touching] = lowest[group]
