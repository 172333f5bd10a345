"""The rule by which the grey values of training volumes are normalised, and how it fits each."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import Box
from tilenet.training.pass_blocks import pass_blocks
from tilenet.training.recipe import GreyValues
from tilenet.volumes import (
    Fold,
    Histogram,
    HistogramCount,
    Intensity,
    Moments,
    MomentsCount,
    Volume,
    by_value,
    check_finite,
    clip_limits,
    clipped,
    read_finite,
    share_of_few,
)


@dataclass(frozen=True)
class SeenGrey:
    """Grey values of a part of a volume, after one pass over it."""

    location: str
    parts: Sequence[Moments]  # of its blocks
    histogram: Histogram
    fold: Fold  # makes another pass

    def moments(self, low: float | None, high: float | None, void: float | None) -> Moments:
        if low is None or high is None:
            return _sum(self.parts)
        if self.histogram.exact:
            return self.histogram.moments(low, high)
        found: Moments = self.fold(MomentsCount(void, low, high))
        return found


@dataclass
class GreyTally:
    """What a pass over a part of a volume finds of its grey values."""

    raw: Volume
    part: Box
    void: float | None
    _moments: list[Moments] = field(default_factory=list)
    _histogram: Histogram | None = None

    def add(self, values: npt.NDArray[Any], box: Box) -> None:
        """Count the values of a block; NaN and infinity are refused."""
        check_finite(values, self.raw.location, box)
        self._moments.append(Moments.of(values, self.void))
        counted = HistogramCount(by_value(self.raw.dtype), self.void)(values)
        self._histogram = counted if self._histogram is None else self._histogram + counted

    @property
    def seen(self) -> SeenGrey:
        """What was found, once all blocks are counted."""
        assert self._histogram is not None
        return SeenGrey(self.raw.location, self._moments, self._histogram, self._again)

    def _again(self, count: Callable[[npt.NDArray[Any]], Any]) -> Any:
        read = (count(self.raw.read(block)) for block in pass_blocks(self.raw, self.part))
        return functools.reduce(operator.add, read)


def see(
    raw: Volume, part: Box, void: float | None, stopped: Callable[[], bool] = lambda: False
) -> SeenGrey:
    """Pass over a part of a volume."""
    tally = GreyTally(raw, part, void)
    for block in pass_blocks(raw, part, stopped):
        tally.add(read_finite(raw, block), block)
    return tally.seen


@dataclass(frozen=True)
class Normalised:
    """How one volume is normalised.

    Parameters
    ----------
    intensity : Intensity
    mean, std : float
        Of the normalised grey values of its training region.
    few : float
        Share of their variance that a few voxels carry; of the whole volume's where it is by that
        that it is normalised.
    """

    intensity: Intensity
    mean: float
    std: float
    few: float


def normalise(
    seen: Sequence[SeenGrey], rule: GreyValues, whole: Sequence[SeenGrey] | None = None
) -> list[Normalised]:
    """Give the rule for every volume: of all training regions, or of the ``whole`` volume."""
    if whole is None:
        return _together(seen, rule)
    found = []
    for one, everything in zip(seen, whole, strict=True):
        try:
            (own,) = _together([everything], rule)
            found.append(replace(_fit(one, own.intensity, rule.void), few=own.few))
        except InvalidData as error:
            where = f"{error.what} ({one.location})"
            raise InvalidData(where, error.problem, error.cure) from error
    return found


def _together(seen: Sequence[SeenGrey], rule: GreyValues) -> list[Normalised]:
    if rule.numbers is not None:
        intensity = rule.numbers
    elif rule.clip is None:
        intensity = _sum(part for one in seen for part in one.parts).intensity
    else:
        histogram = functools.reduce(operator.add, (one.histogram for one in seen))
        low, high = clip_limits(histogram, functools.partial(_fold, seen), rule.clip, rule.void)
        both = _sum(one.moments(low, high, rule.void) for one in seen)
        intensity = clipped(both, low, high)
    return [_fit(one, intensity, rule.void) for one in seen]


def _fit(one: SeenGrey, intensity: Intensity, void: float | None) -> Normalised:
    moments = one.moments(intensity.low, intensity.high, void)
    if moments.count == 0:
        cure = "Leave it out, or check the void value."
        raise InvalidData(one.location, "holds void voxels only in the training region", cure)
    mean, std = moments.mean, moments.deviation
    few = 0.0
    if std > 0:
        few = share_of_few(one.histogram, Intensity(mean, std, intensity.low, intensity.high))
    return Normalised(intensity, (mean - intensity.mean) / intensity.std, std / intensity.std, few)


def _sum(parts: Iterable[Moments]) -> Moments:
    return functools.reduce(operator.add, parts, Moments())


def _fold(seen: Sequence[SeenGrey], count: HistogramCount | MomentsCount) -> Any:
    return functools.reduce(operator.add, (one.fold(count) for one in seen))
