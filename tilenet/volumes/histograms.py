"""Counts of grey values, which add up exactly: where to clip, and how few voxels rule the variance.

Whole numbers of up to 16 bits are counted value by value. Of all other types the float32 is, which
a network is given: in order of value its bits are a whole number of 32 bits, whose upper half is
counted first (65,536 bins over all float32, each 1/128 wide of its value), then the lower halves in
the two bins that hold the limits. So percentiles are values of voxels, not edges of bins, and a
single voxel of 1e30 makes no bin wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.volumes.grey_values import SLICE, Intensity, Moments, OwnStatistics

#: Lowest whole number that is counted value by value, and bins that there are then.
_LOWEST, _BINS = -(2**15), 2**15 + 2**16

#: Bins of half of a float32's bits.
_HALF = 2**16

Limits = tuple[float, float]

#: The share of the voxels that are called few.
FEW = 0.005


def by_value(dtype: npt.DTypeLike) -> bool:
    """Tell whether values of a type are counted one by one.

    Parameters
    ----------
    dtype : dtype

    Returns
    -------
    bool
        True for whole numbers of up to 16 bits.
    """
    known = np.dtype(dtype)
    return known.kind in "uib" and known.itemsize <= 2


@dataclass(frozen=True, eq=False, slots=True)
class Histogram:
    """Voxels per grey value, or per bin of them.

    Parameters
    ----------
    exact : bool
        Whether the keys are grey values; else they are bits of floats.
    keys, counts : ndarray of int64
        Ascending; voxels, none of them 0.
    """

    exact: bool
    keys: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    def __add__(self, other: Histogram) -> Histogram:
        if self.exact != other.exact:
            return self._coarse() + other._coarse()
        both = (
            np.concatenate(pair) for pair in ((self.keys, other.keys), (self.counts, other.counts))
        )
        return _merged(self.exact, *both)

    def _coarse(self) -> Histogram:
        # As floats are counted first.
        return _merged(False, _bits(self.keys) // _HALF, self.counts) if self.exact else self

    @property
    def total(self) -> int:
        """Voxels counted."""
        return int(self.counts.sum())

    def key(self, rank: int) -> int:
        """Give the key of a voxel by its rank in order of value, from 1.

        Parameters
        ----------
        rank : int

        Returns
        -------
        int
            One of the keys.
        """
        return int(self.keys[np.searchsorted(np.cumsum(self.counts), rank)])

    def below(self, key: int) -> int:
        """Count the voxels of lower keys.

        Parameters
        ----------
        key : int

        Returns
        -------
        int
            Voxels.
        """
        return int(self.counts[: np.searchsorted(self.keys, key)].sum())

    def moments(self, low: float, high: float) -> Moments:
        """Sum the grey values, clipped; of an exact histogram, and exactly.

        Parameters
        ----------
        low, high : float

        Returns
        -------
        Moments
            Rounded once.
        """
        clipped = np.clip(self.keys.astype(np.float64), low, high).tolist()
        pairs = [(Fraction(v), n) for v, n in zip(clipped, self.counts.tolist(), strict=True)]
        total, squares = sum(v * n for v, n in pairs), sum(v * v * n for v, n in pairs)
        return Moments(self.total, float(total), float(squares))


def _merged(exact: bool, keys: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Histogram:
    found, place = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(found), np.int64)
    np.add.at(sums, place, counts)
    return Histogram(exact, found, sums)


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    # Whole numbers in the order of the values: among floats below 0, larger bits are lower values.
    with np.errstate(over="ignore"):
        bits = values.astype(np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(2**31)).astype(np.int64)


def _values(bits: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    plain = np.where(bits >= 2**31, bits - 2**31, 2**32 - 1 - bits)
    return plain.astype(np.uint32).view(np.float32).astype(np.float64)


@dataclass(frozen=True)
class HistogramCount:
    """Counts the voxels of a block.

    Parameters
    ----------
    by_value : bool
        Whether they are whole numbers of up to 16 bits; else by bits.
    void : float or None
        Grey value that is left out.
    within : tuple of int
        Upper halves in which all bits are counted, and nothing else; none counts upper halves.
    """

    by_value: bool
    void: float | None = None
    within: tuple[int, ...] = ()

    def __call__(self, values: npt.NDArray[Any]) -> Histogram:
        firsts = [half * _HALF for half in self.within] or [_LOWEST if self.by_value else 0]
        width = _BINS if self.by_value else _HALF
        bins = np.zeros((len(firsts), width), np.int64)
        flat = values.ravel(order="K")
        for start in range(0, flat.size, SLICE):
            seen = flat[start : start + SLICE]
            keys = self._keys(seen if self.void is None else seen[seen != self.void])
            for row, first in enumerate(firsts):
                inside = keys - first
                if self.within:
                    inside = inside[(inside >= 0) & (inside < width)]
                bins[row] += np.bincount(inside, minlength=width)
        row_of, place = np.nonzero(bins)
        return Histogram(self.by_value, np.array(firsts)[row_of] + place, bins[row_of, place])

    def _keys(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        if self.by_value:
            return values.astype(np.int64)
        return _bits(values) // (1 if self.within else _HALF)


@dataclass(frozen=True)
class MomentsCount:
    """Sums the voxels of a block, clipped.

    Parameters
    ----------
    void, low, high : float or None
        Grey value that is left out, and where the others are clipped.
    """

    void: float | None = None
    low: float | None = None
    high: float | None = None

    def __call__(self, values: npt.NDArray[Any]) -> Moments:
        if self.low is None and self.high is None:
            return Moments.of(values, self.void)
        kept = values if self.void is None else values[values != self.void]
        parts = np.array_split(kept.ravel(order="K"), -(-kept.size // SLICE) or 1)
        found = [Moments.of(np.clip(p.astype(np.float64), self.low, self.high)) for p in parts]
        return sum(found, Moments())


#: Adds up what a count says of every block, in their order.
Fold = Callable[[HistogramCount | MomentsCount], Any]


def clip_limits(
    first: Histogram, fold: Fold, clip: tuple[float, float], void: float | None
) -> Limits:
    """Find the grey values at percentiles, which do not depend on blocks.

    Parameters
    ----------
    first : Histogram
        Of a pass with a count of the same void value.
    fold : callable
        Applies a count to every block, and adds up; called unless the histogram is exact.
    clip : (float, float)
        Percentiles: the lowest value that so many percent of the voxels do not exceed.
    void : float or None
        Grey value that is left out.

    Returns
    -------
    (float, float)
        Values of voxels.
    """
    if first.total == 0:
        raise InvalidData("Volume", "has no voxels beside the void value", "Check --void.")
    ranks = [max(1, math.ceil(Fraction(str(p)) * first.total / 100)) for p in clip]
    keys = [first.key(rank) for rank in ranks]
    if first.exact:
        low, high = (float(key) for key in keys)
    else:
        fine: Histogram = fold(HistogramCount(False, void, tuple(sorted(set(keys)))))
        inner = (
            fine.key(rank - first.below(key) + fine.below(key * _HALF))
            for key, rank in zip(keys, ranks, strict=True)
        )
        low, high = _values(np.array(list(inner))).tolist()
    if low >= high:
        problem = f"leave one grey value only, {low:g}"
        cure = "Take them further apart, or name the value that is no specimen with --void."
        raise InvalidData(f"Percentiles {clip[0]:g},{clip[1]:g} to clip at", problem, cure)
    return low, high


def own_intensity(fold: Fold, rule: OwnStatistics, dtype: npt.DTypeLike) -> Intensity:
    """Give the numbers by which a volume is normalised by its own statistics.

    Parameters
    ----------
    fold : callable
        Applies a count to every block, and adds up in the order of blocks.
    rule : OwnStatistics
    dtype : dtype
        Of the stored values.

    Returns
    -------
    Intensity
        Mean and standard deviation are those of the clipped values.
    """
    if rule.clip is None:
        plain: Moments = fold(MomentsCount(rule.void))
        return plain.intensity
    first: Histogram = fold(HistogramCount(by_value(dtype), rule.void))
    low, high = clip_limits(first, fold, rule.clip, rule.void)
    if first.exact:
        return clipped(first.moments(low, high), low, high)
    return clipped(fold(MomentsCount(rule.void, low, high)), low, high)


def clipped(moments: Moments, low: float, high: float) -> Intensity:
    """Give the rule that clips, and then normalises.

    Parameters
    ----------
    moments : Moments
        Of the clipped values.
    low, high : float

    Returns
    -------
    Intensity
        The rule.
    """
    return replace(moments.intensity, low=low, high=high)


def share_of_few(seen: Histogram, within: Intensity) -> float:
    """Tell how much of the variance a few voxels carry at least, those furthest from the mean.

    Parameters
    ----------
    seen : Histogram
    within : Intensity
        Mean and standard deviation of these voxels, and where they are clipped.

    Returns
    -------
    float
        From 0 to 1; some 0.05 of a normal distribution, for :data:`FEW` of the voxels.
    """
    lowest = highest = seen.keys.astype(np.float64)
    if not seen.exact:
        lowest, highest = _bounds(seen.keys)
    if within.low is not None and within.high is not None:
        lowest, highest = (np.clip(v, within.low, within.high) for v in (lowest, highest))
    # The edge of a bin that is nearest to the mean: what is said is not too much.
    distance = np.maximum(0, np.maximum(lowest - within.mean, within.mean - highest))
    order = np.argsort(-distance, kind="stable")
    counts = seen.counts[order].astype(np.float64)
    few = np.clip(FEW * seen.total - (np.cumsum(counts) - counts), 0, counts)
    return min(1.0, float(((distance[order] / within.std) ** 2 * few).sum() / seen.total))


def _bounds(halves: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], ...]:
    # Lowest and highest float of a bin.
    return _values(halves * _HALF), _values(halves * _HALF + _HALF - 1)
