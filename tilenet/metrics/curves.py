"""Thresholds, and what a figure is at each of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

#: Where ISBI 2012 binarises a proposal: eleven values from 0 to just below 1. They are what adding
#: 0.1 repeatedly gives in double precision, as the official Java loop does, and so the last is
#: 0.9999999999999999: a proposal of exactly 1 is still interior there.
ISBI_THRESHOLDS = tuple(itertools.accumulate([0.1] * 10, initial=0.0))

#: The warping error is taken from 0.0 to 0.9 only.
WARPING_THRESHOLDS = ISBI_THRESHOLDS[:-1]


@dataclass(frozen=True, slots=True)
class Counts:
    """True positives, false positives and false negatives."""

    # tp, fp, fn: python integers, because squared counts summed over many large sections pass
    # 2^63.
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    def scores(self) -> tuple[float, float, float]:
        precision = 1.0 if self.fp == 0 else self.tp / (self.tp + self.fp)
        recall = 1.0 if self.fn == 0 else self.tp / (self.tp + self.fn)
        total = precision + recall
        return precision, recall, 2.0 * precision * recall / total if total > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """Precision, recall and F-score of a proposal at each threshold.

    Parameters
    ----------
    thresholds, precision, recall, f_score : tuple of float
        A proposal above the threshold is interior. Precision is tp / (tp + fp), and 1 where fp is
        0; recall tp / (tp + fn), and 1 where fn is 0; the F-score their harmonic mean, and 0 where
        both are 0; of V_Rand the mean of the sections' F-scores.
    """

    thresholds: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f_score: tuple[float, ...]

    @classmethod
    def pooled(cls, counts: Sequence[Counts]) -> Self:
        """Score the counts of all sections together, one per threshold of ISBI 2012."""
        precision, recall, f_score = zip(*(at.scores() for at in counts), strict=True)
        return cls(ISBI_THRESHOLDS, precision, recall, f_score)

    @property
    def score(self) -> float:
        """Highest F-score, 0 to 1."""
        return max(self.f_score)

    @property
    def best_threshold(self) -> float:
        """Lowest threshold that reaches the highest F-score."""
        return self.thresholds[self.f_score.index(self.score)]

    @property
    def error(self) -> float:
        """Figure of the ISBI 2012 tables: 1 minus the highest F-score, 0 to 1."""
        return 1.0 - self.score


@dataclass(frozen=True, slots=True)
class ScoreCurve:
    """A score of a proposal at each threshold; higher is better.

    Parameters
    ----------
    thresholds, scores : tuple of float
        A proposal above the threshold is interior; scores are 0 to 1.
    """

    thresholds: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """Highest score, 0 to 1."""
        return max(self.scores)

    @property
    def best_threshold(self) -> float:
        """Lowest threshold that reaches the highest score."""
        return self.thresholds[self.scores.index(self.score)]


@dataclass(frozen=True, slots=True)
class ErrorCurve:
    """An error of a proposal at each threshold; lower is better.

    Parameters
    ----------
    thresholds, errors : tuple of float
        A proposal above the threshold is interior; errors are 0 to 1.
    """

    thresholds: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """Lowest error, 0 to 1."""
        return min(self.errors)

    @property
    def best_threshold(self) -> float:
        """Lowest threshold that reaches the lowest error."""
        return self.thresholds[self.errors.index(self.error)]
