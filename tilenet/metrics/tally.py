"""What is added up over sections for the five figures of ISBI 2012."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tilenet.errors import InvalidData
from tilenet.metrics.arrays import Ids, Labels, Mask, Proposal
from tilenet.metrics.curves import (
    ISBI_THRESHOLDS,
    WARPING_THRESHOLDS,
    Counts,
    ErrorCurve,
    ScoreCurve,
    ThresholdCurve,
)
from tilenet.metrics.overlaps import Overlaps, pixel_counts, segments
from tilenet.metrics.thinning import thinned_segments
from tilenet.metrics.warping import WarpCounts, warp_counts

#: Counts of what was not asked for.
NOTHING = Counts()

#: What a tally may hold. "thinned" is V_Rand and V_Info.
FIGURES = frozenset({"pixel", "rand", "thinned", "warping"})


@dataclass(frozen=True, slots=True)
class ThresholdTally:
    """What is added up at one threshold."""

    # pixel, rand, thinned: pixels, pairs of pixels, and pairs of pixels after thinning.
    pixel: Counts = NOTHING
    rand: Counts = NOTHING
    thinned: Counts = NOTHING
    # v_rand, v_info: scores of the sections after thinning, summed.
    v_rand: float = 0.0
    v_info: float = 0.0

    def plus(self, other: ThresholdTally) -> ThresholdTally:
        """Pool two tallies."""
        return ThresholdTally(
            self.pixel.plus(other.pixel),
            self.rand.plus(other.rand),
            self.thinned.plus(other.thinned),
            self.v_rand + other.v_rand,
            self.v_info + other.v_info,
        )


@dataclass(frozen=True, slots=True)
class IsbiTally:
    """What is known of some sections, small and additive: figures follow from the sum.

    Parameters
    ----------
    thresholds, warp_thresholds : tuple of float
        Where the proposal was binarised, for the warping error and for the other figures.
    at : tuple of ThresholdTally
        One per threshold.
    warped : tuple of WarpCounts
        One per threshold of the warping error.
    pixels, judged : int
        Pixels, and sections that have any true interior: Rand and information scores are
        restricted to that, so the other sections say nothing about them.
    """

    thresholds: tuple[float, ...]
    warp_thresholds: tuple[float, ...]
    at: tuple[ThresholdTally, ...]
    warped: tuple[WarpCounts, ...]
    pixels: int
    judged: int

    def plus(self, other: IsbiTally) -> IsbiTally:
        """Pool two tallies."""
        return IsbiTally(
            self.thresholds,
            self.warp_thresholds,
            tuple(a.plus(b) for a, b in zip(self.at, other.at, strict=True)),
            tuple(a.plus(b) for a, b in zip(self.warped, other.warped, strict=True)),
            self.pixels + other.pixels,
            self.judged + other.judged,
        )

    @property
    def pixel_curve(self) -> ThresholdCurve:
        """F-score of interior pixels."""
        return ThresholdCurve.pooled(self.thresholds, [tally.pixel for tally in self.at])

    @property
    def rand_curve(self) -> ThresholdCurve:
        """Foreground-restricted Rand F-score, without thinning."""
        self._check_interior()
        return ThresholdCurve.pooled(self.thresholds, [tally.rand for tally in self.at])

    @property
    def v_rand_curve(self) -> ThresholdCurve:
        """V_Rand after thinning: precision and recall pooled, F-scores averaged over sections."""
        self._check_interior()
        pooled = ThresholdCurve.pooled(self.thresholds, [tally.thinned for tally in self.at])
        mean = tuple(tally.v_rand / self.judged for tally in self.at)
        return ThresholdCurve(pooled.thresholds, pooled.precision, pooled.recall, mean)

    @property
    def v_info_curve(self) -> ScoreCurve:
        """V_Info after thinning, averaged over sections."""
        self._check_interior()
        return ScoreCurve(self.thresholds, tuple(t.v_info / self.judged for t in self.at))

    @property
    def warping_curve(self) -> ErrorCurve:
        """Split and merged pixels over all pixels."""
        errors = tuple((w.split + w.merge) / self.pixels for w in self.warped)
        return ErrorCurve(self.warp_thresholds, errors)

    def _check_interior(self) -> None:
        if self.judged == 0:
            raise InvalidData(
                what="labels",
                problem="there is no interior (value above 0), and Rand scores count only there",
                cure="Give labels with 0 on membranes and a positive value inside cells.",
            )


def tally_section(
    labels: Labels,
    proposal: Proposal,
    *,
    thresholds: Sequence[float] = ISBI_THRESHOLDS,
    warp_thresholds: Sequence[float] = WARPING_THRESHOLDS,
    figures: Iterable[str] = FIGURES,
) -> IsbiTally:
    """Count all that the figures need of one section.

    Parameters
    ----------
    labels : ndarray of int or bool, (y, x)
        The truth; above 0 is interior.
    proposal : ndarray of float, int or bool, (y, x)
        Probability of interior, 0 to 1; not checked.
    thresholds, warp_thresholds : sequence of float, optional
        Where to binarise it; those of ISBI 2012 unless given.
    figures : iterable of str, optional
        Some of :data:`FIGURES`; what is left out stays 0.

    Returns
    -------
    IsbiTally
        Of this section.
    """
    interior = labels > 0
    # Compared in float32, a threshold of 0.9999999999999999 would round up to 1.
    exact = proposal.astype(np.float64)
    section = _Section(interior, segments(interior)[interior], frozenset(figures))
    warp_at = warp_thresholds if "warping" in section.figures else ()
    return IsbiTally(
        tuple(map(float, thresholds)),
        tuple(map(float, warp_at)),
        tuple(section.tally(exact > threshold) for threshold in thresholds),
        tuple(warp_counts(interior, exact, threshold) for threshold in warp_at),
        pixels=interior.size,
        judged=int(interior.any()),
    )


@dataclass(frozen=True, slots=True)
class _Section:
    # The truth of a section: the same at every threshold.
    interior: Mask
    true_ids: Ids
    figures: frozenset[str]

    def tally(self, predicted: Mask) -> ThresholdTally:
        pixel = rand = thinned = NOTHING
        v_rand = v_info = 0.0
        if "pixel" in self.figures:
            pixel = pixel_counts(self.interior, predicted)
        if "rand" in self.figures and self.true_ids.size:
            rand = self._overlaps(segments(predicted)).pair_counts()
        if "thinned" in self.figures and self.true_ids.size:
            overlaps = self._overlaps(thinned_segments(predicted))
            thinned, v_info = overlaps.pair_counts(), overlaps.information_score()
            v_rand = thinned.scores()[2]
        return ThresholdTally(pixel, rand, thinned, v_rand, v_info)

    def _overlaps(self, proposed: Ids) -> Overlaps:
        return Overlaps.of(self.true_ids, proposed[self.interior])
