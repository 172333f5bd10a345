"""How many voxels true and proposed instances share, and the figures that follow.

Tables of blocks add up to that of a volume; a table has a row per pair of instances that meet,
never one per voxel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.metrics.arrays import Counted, Labels, Mask

#: Rows of tables that are held before they are added up: more of them, the longer the sum is.
POOLED_ROWS = 2**20

_Numbers = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class PairTable:
    """Voxels that pairs of instances share; 0 is background, and a pair of zeros counts too.

    Parameters
    ----------
    true, proposed : ndarray of uint64, (n,)
        Numbers of instances, in ascending pairs, each pair once.
    voxels : ndarray of int64, (n,), voxels that they share, at least 1
    """

    true: _Numbers
    proposed: _Numbers
    voxels: Counted

    @classmethod
    def of(cls, labels: Labels, segmentation: Labels, left_out: Mask | None = None) -> PairTable:
        true, proposed = labels.ravel(), segmentation.ravel()
        if left_out is not None:
            true, proposed = labels[~left_out], segmentation[~left_out]
        if true.size == 0:
            return cls(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))
        # Neighbours along x mostly belong to one pair: runs are sorted, not voxels.
        changes = (true[1:] != true[:-1]) | (proposed[1:] != proposed[:-1])
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
        lengths = np.diff(starts, append=true.size)
        return _collected(
            true[starts].astype(np.uint64), proposed[starts].astype(np.uint64), lengths
        )

    @classmethod
    def pooled(cls, tables: Iterable[PairTable]) -> PairTable:
        """Add up tables of disjoint blocks, in whatever order."""
        parts, rows, most = list[PairTable](), 0, POOLED_ROWS
        for table in tables:
            parts.append(table)
            rows += table.true.size
            if rows > most:
                parts = [_pooled(parts)]
                rows = parts[0].true.size
                most = max(POOLED_ROWS, 2 * rows)
        return _pooled(parts)

    def true_sizes(self) -> tuple[_Numbers, Counted]:
        """Give the true instances, ascending, without background, and the voxels of each."""
        inside = self.true > 0
        return _summed(self.true[inside], self.voxels[inside])

    def proposed_sizes(self) -> tuple[_Numbers, Counted]:
        """Give the proposed instances, ascending, without background, and the voxels of each."""
        inside = self.proposed > 0
        return _summed(self.proposed[inside], self.voxels[inside])

    def seg(self, beside: _Numbers | None = None) -> SegTally:
        """Match instances as the SEG score does, without the true ones that ``beside`` numbers."""
        inside = (self.true > 0) & (self.proposed > 0)
        names, sizes = self.true_sizes()
        true_size = sizes[np.searchsorted(names, self.true[inside])]
        others, other_sizes = _summed(self.proposed, self.voxels)
        proposed_size = other_sizes[np.searchsorted(others, self.proposed[inside])]
        shared = self.voxels[inside]
        # More than half of a true instance: at most one proposed instance can have that.
        matched = 2 * shared > true_size
        union = true_size + proposed_size - shared
        if beside is not None:
            matched &= ~np.isin(self.true[inside], beside)
            names = names[~np.isin(names, beside)]
        return SegTally(math.fsum(shared[matched] / union[matched]), int(matched.sum()), len(names))

    def adapted_rand(self) -> AdaptedRand:
        """Compare pairs of voxels as SNEMI3D does."""
        inside = self.true > 0
        paired = inside & (self.proposed > 0)
        missed = self.voxels[inside & (self.proposed == 0)]
        # Divided by all voxels, as the official code has it: next to nothing.
        single = int(missed.sum()) / max(1, int(self.voxels.sum()))
        true = _square_sum(self.true_sizes()[1])
        proposed = _square_sum(_summed(self.proposed[paired], self.voxels[paired])[1]) + single
        both = _square_sum(self.voxels[paired]) + single
        return AdaptedRand(both / proposed if proposed else 1.0, both / true if true else 1.0)

    def variation_of_information(self) -> InformationVariation:
        """Give the information by which the instances differ, in true foreground."""
        inside = self.true > 0
        voxels = self.voxels[inside]
        both = _entropy(voxels)
        true = _entropy(self.true_sizes()[1])
        proposed = _entropy(_summed(self.proposed[inside], voxels)[1])
        # Rounding may leave a little less than nothing.
        return InformationVariation(max(0.0, both - true), max(0.0, both - proposed))


@dataclass(frozen=True, slots=True)
class SegTally:
    """What the SEG score of some images is made of.

    Parameters
    ----------
    overlap : float
        Intersection over union of the matched instances, summed.
    matched, instances : int
        True instances that have a match, and all of them.
    """

    overlap: float = 0.0
    matched: int = 0
    instances: int = 0

    @property
    def score(self) -> float:
        """Mean over all true instances, 0 to 1; NaN when there is none."""
        return self.overlap / self.instances if self.instances else math.nan

    def plus(self, other: SegTally) -> SegTally:
        return SegTally(
            self.overlap + other.overlap,
            self.matched + other.matched,
            self.instances + other.instances,
        )


@dataclass(frozen=True, slots=True)
class AdaptedRand:
    """Adapted Rand scores of SNEMI3D.

    Parameters
    ----------
    precision, recall : float
        0 to 1: low precision tells of mergers, low recall of splits.
    """

    precision: float
    recall: float

    @property
    def error(self) -> float:
        """1 minus the F-score: lower is better."""
        total = self.precision + self.recall
        return 1.0 - (2.0 * self.precision * self.recall / total if total > 0.0 else 0.0)


@dataclass(frozen=True, slots=True)
class InformationVariation:
    """Variation of information, in bits (logarithms of base 2); lower is better.

    Parameters
    ----------
    split, merge : float
        H(proposed | true), of true instances that are in pieces, and H(true | proposed), of
        proposed instances that join several.
    """

    split: float
    merge: float

    @property
    def total(self) -> float:
        """Sum of both parts, in bits: lower is better."""
        return self.split + self.merge


def _pooled(parts: Sequence[PairTable]) -> PairTable:
    return _collected(
        np.concatenate([table.true for table in parts]),
        np.concatenate([table.proposed for table in parts]),
        np.concatenate([table.voxels for table in parts]),
    )


def _collected(true: _Numbers, proposed: _Numbers, voxels: npt.NDArray[Any]) -> PairTable:
    """Sort pairs, and add up those that are equal."""
    if true.size == 0:
        return PairTable(true, proposed, voxels)
    order = np.lexsort((proposed, true))
    true, proposed = true[order], proposed[order]
    is_new = (true[1:] != true[:-1]) | (proposed[1:] != proposed[:-1])
    starts = np.concatenate([[0], np.flatnonzero(is_new) + 1])
    return PairTable(true[starts], proposed[starts], np.add.reduceat(voxels[order], starts))


def _summed(numbers: _Numbers, voxels: Counted) -> tuple[_Numbers, Counted]:
    found, inverse = np.unique(numbers, return_inverse=True)
    sums = np.zeros(found.size, np.int64)
    np.add.at(sums, inverse, voxels)
    return found, sums


def _square_sum(sizes: Counted) -> int:
    # Python integers: an instance of 3 x 10^9 voxels has a square beyond 2^63.
    return sum(size * size for size in sizes.tolist())


def _entropy(voxels: Counted) -> float:
    """Entropy in bits of shares that are proportional to numbers of voxels."""
    if voxels.size == 0:
        return 0.0
    share = voxels / voxels.sum()
    return -float(np.dot(share, np.log2(share)))
