"""Joining the components of all blocks, and numbering the result.

The tables grow with the number of components and contacts, never with that of voxels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.labels.components import BlockComponents
from tilenet.volumes import ValueRange


@dataclass(frozen=True, kw_only=True)
class SizeRule:
    """Which instances stay, by their voxels in the whole volume; the others become background.

    Parameters
    ----------
    min_size, max_size : int or None
        Voxels that they have at least, and at most.
    largest : int or None
        How many stay, of those that the other two leave: the largest; of equal ones those whose
        first voxel comes first.
    """

    min_size: int | None = None
    max_size: int | None = None
    largest: int | None = None

    def __post_init__(self) -> None:
        low, high = self.min_size or 1, self.max_size
        if high is not None and high < low:
            problem = f"is {high}, and --min-size {low}"
            raise InvalidData("--max-size", problem, "Exchange the two, or leave one out.")

    @property
    def chooses(self) -> bool:
        """Whether it may leave any out."""
        return any(n is not None for n in (self.min_size, self.max_size, self.largest))

    def kept(self, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool]:
        """Say of each instance, in the order of first voxels, whether it stays."""
        most = np.iinfo(np.int64).max if self.max_size is None else self.max_size
        kept = (sizes >= (self.min_size or 1)) & (sizes <= most)
        if self.largest is not None:
            chosen = np.flatnonzero(kept)
            order = np.argsort(-sizes[chosen], kind="stable")
            kept[chosen[order[self.largest :]]] = False
        return kept


@dataclass(frozen=True)
class JoinTable:
    """The final id of every component of every block.

    Parameters
    ----------
    ids : ndarray, shape (components,), uint32 or uint64
        From 1; 0 of those that are left out.
    offsets : ndarray, shape (blocks + 1,), int64
        ``ids[offsets[i]:offsets[i + 1]]`` are those of block i, by its labels from 1.
    count : int
        Instances in the volume, without those that are left out.
    left_out : int
    values : ValueRange
        Of the masks.
    """

    ids: npt.NDArray[np.uint32 | np.uint64]
    offsets: npt.NDArray[np.int64]
    count: int
    left_out: int
    values: ValueRange


def id_dtype(count: int) -> np.dtype[np.uint32 | np.uint64]:
    """Choose the data type of instance ids.

    Parameters
    ----------
    count : int, of instances

    Returns
    -------
    dtype
        uint32, or uint64 where that is too small.
    """
    return np.dtype(np.uint32 if count <= np.iinfo(np.uint32).max else np.uint64)


def join(blocks: Iterable[BlockComponents], rule: SizeRule | None = None) -> JoinTable:
    """Join the components of blocks that share a component of a region.

    Ids are consecutive from 1 in the order of the instances' first voxels in the volume, so they
    depend on the volume alone.

    Parameters
    ----------
    blocks : iterable of BlockComponents
        Every block of the volume, in the grid's order; gone through twice, one at a time.
    rule : SizeRule, optional
        Leaves instances out, before they get their ids.

    Returns
    -------
    JoinTable
        The final ids.
    """
    # Memory holds these arrays, and never a table per block beside them.
    sizes = np.array([(len(b.first), len(b.contact_voxels)) for b in blocks], np.int64)
    offsets, contacts = np.pad(sizes.reshape(-1, 2).cumsum(axis=0), ((1, 0), (0, 0))).T
    first, values = np.empty(offsets[-1], np.int64), ValueRange()
    parts = np.zeros(offsets[-1] if rule and rule.chooses else 0, np.int64)
    voxels, nodes = np.empty(contacts[-1], np.int64), np.empty(contacts[-1], np.int64)
    for block, start, place in zip(blocks, offsets[:-1], contacts[:-1], strict=True):
        first[start : start + len(block.first)] = block.first
        if parts.size:
            parts[start : start + len(block.first)] = block.sizes
        values = values.plus(block.values)
        touching = slice(place, place + len(block.contact_voxels))
        voxels[touching] = block.contact_voxels
        nodes[touching] = block.contact_labels - 1 + start
    _lower_to_first(first, voxels, nodes)
    # Different instances have different first voxels.
    distinct, ids = np.unique(first, return_inverse=True)
    count = len(distinct)
    if rule is None or not rule.chooses:
        return JoinTable((ids + 1).astype(id_dtype(count)), offsets, count, 0, values)
    sizes = np.zeros(count, np.int64)
    np.add.at(sizes, ids, parts)
    kept = rule.kept(sizes)
    numbers = np.where(kept, np.cumsum(kept), 0)
    stay = int(np.count_nonzero(kept))
    return JoinTable(numbers[ids].astype(id_dtype(stay)), offsets, stay, count - stay, values)


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
