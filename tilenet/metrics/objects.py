"""Precision and recall of whole objects, at several overlaps; objects at a border count not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.metrics.arrays import Counted
from tilenet.metrics.curves import Counts, ThresholdCurve
from tilenet.metrics.pair_table import PairTable

#: Hundredths that intersection over union has to exceed.
OVERLAPS = tuple(range(50, 100, 5))

_Numbers = npt.NDArray[np.uint64]

_NONE: _Numbers = np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True)
class ObjectTally:
    """How many objects are found.

    Parameters
    ----------
    counts : tuple of Counts
        Found, wrongly found and missed ones, per overlap of :data:`OVERLAPS`.
    """

    counts: tuple[Counts, ...]

    @classmethod
    def of(
        cls, table: PairTable, true_beside: _Numbers = _NONE, proposed_beside: _Numbers = _NONE
    ) -> ObjectTally:
        """Match objects whose intersection over union is above each overlap.

        Above a half at most one proposed object matches a true one. ``true_beside`` and
        ``proposed_beside`` number the objects at the border: a true one and its match count
        neither way, and neither does a proposed one that matches none (Caicedo et al. 2019, Nat.
        Methods 16:1247, for the overlaps).
        """
        inside = (table.true > 0) & (table.proposed > 0)
        true, proposed, shared = table.true[inside], table.proposed[inside], table.voxels[inside]
        names, sizes = table.true_sizes()
        others, other_sizes = table.proposed_sizes()
        union = sizes[np.searchsorted(names, true)] - shared
        union += other_sizes[np.searchsorted(others, proposed)]
        judged = int((~np.isin(names, true_beside)).sum())
        beside = np.isin(true, true_beside)
        counts = []
        for overlap in OVERLAPS:
            hit = 100 * shared > overlap * union
            found = int((hit & ~beside).sum())
            lone = ~np.isin(others, proposed[hit]) & ~np.isin(others, proposed_beside)
            counts.append(Counts(found, int(lone.sum()), judged - found))
        return cls(tuple(counts))

    def plus(self, other: ObjectTally) -> ObjectTally:
        return ObjectTally(tuple(a.plus(b) for a, b in zip(self.counts, other.counts, strict=True)))

    @property
    def curve(self) -> ThresholdCurve:
        """Precision, recall and F-score at each overlap."""
        precision, recall, f_score = zip(*(c.scores() for c in self.counts), strict=True)
        return ThresholdCurve(tuple(n / 100 for n in OVERLAPS), precision, recall, f_score)


@dataclass(frozen=True, slots=True, eq=False)
class Centres:
    """Where objects lie in y and x: whole numbers that add up over blocks.

    Parameters
    ----------
    numbers : ndarray of uint64, (n,), ascending
    voxels : ndarray of int64, (n,)
    sums : ndarray of int64, (n, 2)
        Coordinates along y and x of all voxels, summed.
    """

    numbers: _Numbers
    voxels: Counted
    sums: npt.NDArray[np.int64]

    @classmethod
    def of(cls, ids: npt.NDArray[Any], origin: tuple[int, int] = (0, 0)) -> Centres:
        """Look at an array (z, y, x) whose first pixel has the coordinates ``origin``."""
        places = np.nonzero(ids)
        numbers, owner = np.unique(ids[places], return_inverse=True)
        sums = np.zeros((len(numbers), 2), np.int64)
        for axis, start in enumerate(origin):
            np.add.at(sums[:, axis], owner, places[axis - 2] + start)
        return cls(numbers.astype(np.uint64), np.bincount(owner, minlength=len(numbers)), sums)

    @classmethod
    def pooled(cls, parts: Iterable[Centres]) -> Centres:
        """Add up those of disjoint blocks."""
        parts = list(parts)
        numbers, owner = np.unique(np.concatenate([p.numbers for p in parts]), return_inverse=True)
        voxels, sums = np.zeros(len(numbers), np.int64), np.zeros((len(numbers), 2), np.int64)
        np.add.at(voxels, owner, np.concatenate([p.voxels for p in parts]))
        np.add.at(sums, owner, np.concatenate([p.sums for p in parts]))
        return cls(numbers, voxels, sums)

    def beside(self, shape: Sequence[int], border: int) -> _Numbers:
        """Give the numbers of objects whose centre lies fewer than ``border`` pixels from an edge.

        ``shape`` is that of the sections, (y, x). The middle of the first pixel is 0.5 from it.
        """
        twice = 2 * self.sums + self.voxels[:, None]  # 2 x voxels x the centre's coordinate
        low = twice < 2 * self.voxels[:, None] * border
        high = twice > 2 * self.voxels[:, None] * (np.asarray(shape, np.int64) - border)
        return self.numbers[(low | high).any(axis=1)]
