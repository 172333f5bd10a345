"""The five figures of ISBI 2012, as the challenge's official Fiji code computes them.

An interior of 1 and a membrane of 0 is the challenge's convention, and 4-connected pieces of the
interior within one section are its segments. Warping, Rand and pixel error are those of the 2012
tables and are errors: lower is better. V_Rand and V_Info after thinning rank the challenge since
2015 (Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142) and are scores: higher is better.
The names of classes and methods below are those of Fiji's plugin Trainable_Segmentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np

from tilenet.errors import InvalidData
from tilenet.metrics.arrays import Ids, Labels, Mask, Proposal, as_sections
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
ISBI_FIGURES = frozenset({"pixel", "rand", "thinned", "warping"})

#: Those that are restricted to true interior.
RESTRICTED = frozenset({"rand", "thinned"})


@dataclass(frozen=True, slots=True)
class ThresholdTally:
    # pixel, rand, thinned: pixels, pairs of pixels, and pairs of pixels after thinning.
    pixel: Counts = NOTHING
    rand: Counts = NOTHING
    thinned: Counts = NOTHING
    # v_rand, v_info: scores of the sections after thinning, summed.
    v_rand: float = 0.0
    v_info: float = 0.0

    def plus(self, other: ThresholdTally) -> ThresholdTally:
        return ThresholdTally(
            self.pixel.plus(other.pixel),
            self.rand.plus(other.rand),
            self.thinned.plus(other.thinned),
            self.v_rand + other.v_rand,
            self.v_info + other.v_info,
        )


@dataclass(frozen=True, slots=True)
class IsbiTally:
    """What is known of some sections, small and additive, and the figures that follow.

    Parameters
    ----------
    counted : frozenset of str
        What was asked for, of :data:`ISBI_FIGURES`.
    at : tuple of ThresholdTally, one per threshold of ISBI 2012
    warped : tuple of WarpCounts, one per threshold of the warping error
    pixels, judged : int
        Pixels, and sections that have any true interior: Rand and information scores are restricted
        to that, so the other sections say nothing about them.
    """

    counted: frozenset[str]
    at: tuple[ThresholdTally, ...]
    warped: tuple[WarpCounts, ...]
    pixels: int
    judged: int

    def plus(self, other: IsbiTally) -> IsbiTally:
        """Pool two tallies of the same figures."""
        return IsbiTally(
            self.counted,
            tuple(a.plus(b) for a, b in zip(self.at, other.at, strict=True)),
            tuple(a.plus(b) for a, b in zip(self.warped, other.warped, strict=True)),
            self.pixels + other.pixels,
            self.judged + other.judged,
        )

    @property
    def pixel_curve(self) -> ThresholdCurve:
        """F-score of interior pixels, counts pooled over the sections.

        PixelError.getPixelErrorMaximalFScore: the error is not the fraction of wrong pixels.
        """
        self._check("pixel")
        return ThresholdCurve.pooled([tally.pixel for tally in self.at])

    @property
    def rand_curve(self) -> ThresholdCurve:
        """Foreground-restricted Rand F-score in its form since 2015, without thinning.

        With c_ij pixels common to the true segment i >= 1 and the proposed segment j (0 is
        membrane), tp = sum_ij>=1 c_ij^2 + c_0, tp + fp = sum_j>=1 (sum_i c_ij)^2 + c_0 and
        tp + fn = sum_i (sum_j c_ij)^2 in each section, where c_0 = sum_i c_i0: a true interior
        pixel that the proposal calls membrane is a segment of its own. Pixels of true membrane do
        not count, and counts are pooled over the sections
        (RandError.getForegroundRestrictedRandIndexStatsN2, which has the same numbers divided by
        the squared pixel count).
        """
        self._check("rand")
        return ThresholdCurve.pooled([tally.rand for tally in self.at])

    @property
    def v_rand_curve(self) -> ThresholdCurve:
        """Rand F-score after thinning: precision and recall pooled, F-scores averaged by section.

        RandError.getMaximalVRandAfterThinning, per slice. Sections without true interior, for
        which it is undefined, are left out.
        """
        self._check("thinned")
        pooled = ThresholdCurve.pooled([tally.thinned for tally in self.at])
        mean = tuple(tally.v_rand / self.judged for tally in self.at)
        return ThresholdCurve(pooled.thresholds, pooled.precision, pooled.recall, mean)

    @property
    def v_info_curve(self) -> ScoreCurve:
        """V_Info after thinning, averaged over the sections that have true interior.

        VariationOfInformation.getMaximalVInfoAfterThinning.
        """
        self._check("thinned")
        return ScoreCurve(ISBI_THRESHOLDS, tuple(t.v_info / self.judged for t in self.at))

    @property
    def warping_curve(self) -> ErrorCurve:
        """Split and merged pixels over all pixels.

        WarpingError.getMinimumSplitsAndMergersErrorValue with clusterByError off and a radius of
        20.
        """
        self._check("warping")
        errors = tuple((w.split + w.merge) / self.pixels for w in self.warped)
        return ErrorCurve(WARPING_THRESHOLDS, errors)

    @property
    def warping(self) -> float:
        """Warping error: lower is better."""
        return self.warping_curve.error

    @property
    def rand(self) -> float:
        """Rand error, 1 minus the best F-score: lower is better."""
        return self.rand_curve.error

    @property
    def pixel(self) -> float:
        """Pixel error, 1 minus the best F-score: lower is better."""
        return self.pixel_curve.error

    @property
    def v_rand_thinned(self) -> float:
        """V_Rand after thinning: higher is better."""
        return self.v_rand_curve.score

    @property
    def v_info_thinned(self) -> float:
        """V_Info after thinning: higher is better."""
        return self.v_info_curve.score

    def check_interior(self) -> None:
        """Refuse labels without interior, where a figure that was counted is restricted to it."""
        if self.judged == 0 and self.counted & RESTRICTED:
            raise InvalidData(
                what="labels",
                problem="there is no interior (value above 0), and Rand scores count only there",
                cure="Give labels with 0 on membranes and a positive value inside cells.",
            )

    def _check(self, figure: str) -> None:
        if figure not in self.counted:
            raise ValueError(f"{figure} was not counted, but {', '.join(sorted(self.counted))}")
        if figure in RESTRICTED:
            self.check_interior()


def isbi_figures(
    labels: Labels, proposal: Proposal, *, figures: Iterable[str] = ISBI_FIGURES
) -> IsbiTally:
    """Compute the figures of ISBI 2012 at the official thresholds.

    Parameters
    ----------
    labels : ndarray of int or bool, (z, y, x) or (y, x)
        The truth; above 0 is interior, to which "rand" and "thinned" are restricted.
    proposal : ndarray of float, int or bool, same shape
        Probability of interior, 0 to 1.
    figures : iterable of str, optional
        Some of "warping", "rand", "pixel" and "thinned" (V_Rand and V_Info); all by default.

    Returns
    -------
    IsbiTally
        Each figure with its curve over thresholds.
    """
    wanted = frozenset(figures)
    if unknown := sorted(wanted - set(ISBI_FIGURES)):
        problem, known = f"{', '.join(unknown)} is none of them", ", ".join(sorted(ISBI_FIGURES))
        raise InvalidData("The figures", problem, f"Take some of {known}.")
    stacks = as_sections(labels, proposal)
    tallies = (tally_section(*section, figures=wanted) for section in zip(*stacks, strict=True))
    tally = reduce(IsbiTally.plus, tallies)
    tally.check_interior()
    return tally


def tally_section(
    labels: Labels, proposal: Proposal, *, figures: Iterable[str] = ISBI_FIGURES
) -> IsbiTally:
    """Count all that the figures need of one section.

    Parameters
    ----------
    labels : ndarray of int or bool, (y, x)
        The truth; above 0 is interior.
    proposal : ndarray of float, int or bool, (y, x)
        Probability of interior, 0 to 1; not checked.
    figures : iterable of str, optional
        Some of :data:`ISBI_FIGURES`.

    Returns
    -------
    IsbiTally
        Of this section.
    """
    counted = frozenset(figures)
    interior = labels > 0
    true_ids = segments(interior)[interior]
    # Compared in float32, a threshold of 0.9999999999999999 would round up to 1.
    exact = proposal.astype(np.float64)
    warp_at = WARPING_THRESHOLDS if "warping" in counted else ()
    return IsbiTally(
        counted,
        tuple(_tally(interior, true_ids, exact > value, counted) for value in ISBI_THRESHOLDS),
        tuple(warp_counts(interior, exact, value) for value in warp_at),
        pixels=interior.size,
        judged=int(interior.any()),
    )


def _tally(
    interior: Mask, true_ids: Ids, predicted: Mask, counted: frozenset[str]
) -> ThresholdTally:
    pixel = rand = thinned = NOTHING
    v_rand = v_info = 0.0
    if "pixel" in counted:
        pixel = pixel_counts(interior, predicted)
    if "rand" in counted and true_ids.size:
        rand = Overlaps.of(true_ids, segments(predicted)[interior]).pair_counts()
    if "thinned" in counted and true_ids.size:
        overlaps = Overlaps.of(true_ids, thinned_segments(predicted)[interior])
        thinned, v_info = overlaps.pair_counts(), overlaps.information_score()
        v_rand = thinned.scores()[2]
    return ThresholdTally(pixel, rand, thinned, v_rand, v_info)
