"""The rule by which the grey values of training volumes are normalised, and how it fits each."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tilenet.errors import InvalidData
from tilenet.training.recipe import GreyValues
from tilenet.volumes import (
    Fold,
    Histogram,
    HistogramCount,
    Intensity,
    Moments,
    MomentsCount,
    clip_limits,
    clipped,
    share_of_few,
)


@dataclass(frozen=True)
class SeenGrey:
    """Grey values of one training region, after one pass over it."""

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


@dataclass(frozen=True)
class Normalised:
    """How one volume is normalised.

    Parameters
    ----------
    intensity : Intensity
    mean, std : float
        Of its normalised grey values; 0 and 1 where the rule is its own.
    few : float
        Share of their variance that a few voxels carry.
    """

    intensity: Intensity
    mean: float
    std: float
    few: float


def normalise(seen: Sequence[SeenGrey], rule: GreyValues) -> list[Normalised]:
    """Give the rule for every volume."""
    if rule.own is None:
        return _together(seen, rule)
    found = []
    for one in seen:
        try:
            found += _together([one], rule)
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
