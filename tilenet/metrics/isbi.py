"""The five figures of ISBI 2012, as the challenge's official Fiji code computes them.

An interior of 1 and a membrane of 0 is the challenge's convention, and 4-connected pieces of the
interior within one section are its segments. Warping, Rand and pixel error are those of the 2012
tables and are errors: lower is better. V_Rand and V_Info after thinning rank the challenge since
2015 (Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142) and are scores: higher is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from tilenet.metrics.arrays import Labels, Proposal, as_sections
from tilenet.metrics.curves import (
    ISBI_THRESHOLDS,
    WARPING_THRESHOLDS,
    ErrorCurve,
    ScoreCurve,
    ThresholdCurve,
    check_thresholds,
)
from tilenet.metrics.tally import IsbiTally, tally_section


@dataclass(frozen=True, slots=True)
class IsbiFigures:
    """The five figures of ISBI 2012, and the curves over thresholds that they are the best of.

    Parameters
    ----------
    warping_curve : ErrorCurve
        Error, lower is better.
    rand_curve, pixel_curve : ThresholdCurve
        Their error is 1 minus the best F-score; lower is better.
    v_rand_curve : ThresholdCurve
        Score after thinning, higher is better.
    v_info_curve : ScoreCurve
        Score after thinning, higher is better.
    """

    warping_curve: ErrorCurve
    rand_curve: ThresholdCurve
    pixel_curve: ThresholdCurve
    v_rand_curve: ThresholdCurve
    v_info_curve: ScoreCurve

    @classmethod
    def of(cls, tally: IsbiTally) -> IsbiFigures:
        """Take the best of every curve."""
        return cls(
            tally.warping_curve,
            tally.rand_curve,
            tally.pixel_curve,
            tally.v_rand_curve,
            tally.v_info_curve,
        )

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

    @property
    def best_thresholds(self) -> dict[str, float]:
        """Lowest threshold at which each figure is reached, by the figure's name."""
        return {
            "warping": self.warping_curve.best_threshold,
            "rand": self.rand_curve.best_threshold,
            "pixel": self.pixel_curve.best_threshold,
            "v_rand_thinned": self.v_rand_curve.best_threshold,
            "v_info_thinned": self.v_info_curve.best_threshold,
        }


def pixel_error(
    labels: Labels, proposal: Proposal, thresholds: Sequence[float] = ISBI_THRESHOLDS
) -> ThresholdCurve:
    """Compare interior and membrane voxel by voxel.

    The error is 1 minus the best F-score of the interior, not the fraction of wrong voxels
    (PixelError.getPixelErrorMaximalFScore of Fiji's Trainable_Segmentation).

    Parameters
    ----------
    labels : ndarray of int or bool, (z, y, x) or (y, x)
        The truth; above 0 is interior.
    proposal : ndarray of float, int or bool, same shape
        Probability of interior, 0 to 1.
    thresholds : sequence of float, optional
        Where to binarise the proposal; those of ISBI 2012 unless given.

    Returns
    -------
    ThresholdCurve
        One precision, recall and F-score per threshold, counts pooled over the sections.

    Raises
    ------
    InvalidData
        If shapes or dtypes do not fit, or the proposal is not finite and within 0 to 1.
    """
    return _tally(labels, proposal, thresholds, figure="pixel").pixel_curve


def rand_error(
    labels: Labels, proposal: Proposal, thresholds: Sequence[float] = ISBI_THRESHOLDS
) -> ThresholdCurve:
    """Compare segments by the foreground-restricted Rand F-score, in its form since 2015.

    With c_ij voxels common to the true segment i >= 1 and the proposed segment j (0 is
    membrane), tp = sum_ij>=1 c_ij^2 + c_0, tp + fp = sum_j>=1 (sum_i c_ij)^2 + c_0 and
    tp + fn = sum_i (sum_j c_ij)^2 in each section, where c_0 = sum_i c_i0: a true interior voxel
    that the proposal calls membrane is a segment of its own. Voxels of true membrane do not
    count. See Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142, and
    RandError.getForegroundRestrictedRandIndexStatsN2 of Fiji's Trainable_Segmentation, which
    has the same numbers divided by the squared voxel count.

    Parameters
    ----------
    labels : ndarray of int or bool, (z, y, x) or (y, x)
        The truth; above 0 is interior.
    proposal : ndarray of float, int or bool, same shape
        Probability of interior, 0 to 1.
    thresholds : sequence of float, optional
        Where to binarise the proposal; those of ISBI 2012 unless given.

    Returns
    -------
    ThresholdCurve
        One precision, recall and F-score per threshold, counts pooled over the sections.

    Raises
    ------
    InvalidData
        If shapes or dtypes do not fit, the proposal is not finite and within 0 to 1, or the
        labels have no interior, to which the figure is restricted.
    """
    return _tally(labels, proposal, thresholds, figure="rand").rand_curve


def warping_error(
    labels: Labels, proposal: Proposal, thresholds: Sequence[float] = WARPING_THRESHOLDS
) -> ErrorCurve:
    """Count the pixels that split or merge segments after the truth was warped to the proposal.

    See :func:`tilenet.metrics.warping.warp_counts`; it is
    WarpingError.getMinimumSplitsAndMergersErrorValue of Fiji's Trainable_Segmentation with
    clusterByError off and a radius of 20, and its smallest value is the figure of 2012.

    Parameters
    ----------
    labels : ndarray of int or bool, (z, y, x) or (y, x)
        The truth; above 0 is interior.
    proposal : ndarray of float, int or bool, same shape
        Probability of interior, 0 to 1.
    thresholds : sequence of float, optional
        Where to binarise the proposal; those of ISBI 2012 unless given.

    Returns
    -------
    ErrorCurve
        Split and merged pixels over all pixels, at each threshold.

    Raises
    ------
    InvalidData
        If shapes or dtypes do not fit, or the proposal is not finite and within 0 to 1.
    """
    return _tally(labels, proposal, thresholds, figure="warping").warping_curve


def v_rand_thinned(
    labels: Labels, proposal: Proposal, thresholds: Sequence[float] = ISBI_THRESHOLDS
) -> ThresholdCurve:
    """Compare segments by the Rand F-score after thinning the proposal's membranes.

    The Rand score of :func:`rand_error` with the segments of
    :func:`tilenet.metrics.thinning.thinned_segments`, one F-score per section, averaged over the
    sections (RandError.getMaximalVRandAfterThinning of Fiji's Trainable_Segmentation, per
    slice). Sections without true interior, for which it is undefined, are left out.

    Parameters
    ----------
    labels : ndarray of int or bool, (z, y, x) or (y, x)
        The truth; above 0 is interior.
    proposal : ndarray of float, int or bool, same shape
        Probability of interior, 0 to 1.
    thresholds : sequence of float, optional
        Where to binarise the proposal; those of ISBI 2012 unless given.

    Returns
    -------
    ThresholdCurve
        Its F-score is the mean over sections; precision and recall are pooled.

    Raises
    ------
    InvalidData
        If shapes or dtypes do not fit, the proposal is not finite and within 0 to 1, or the
        labels have no interior, to which the figure is restricted.
    """
    return _tally(labels, proposal, thresholds, figure="thinned").v_rand_curve


def v_info_thinned(
    labels: Labels, proposal: Proposal, thresholds: Sequence[float] = ISBI_THRESHOLDS
) -> ScoreCurve:
    """Compare segments by their mutual information after thinning the proposal's membranes.

    See :meth:`tilenet.metrics.overlaps.Overlaps.information_score`; averaged over the sections
    (VariationOfInformation.getMaximalVInfoAfterThinning of Fiji's Trainable_Segmentation).
    Sections without true interior, for which it is undefined, are left out.

    Parameters
    ----------
    labels : ndarray of int or bool, (z, y, x) or (y, x)
        The truth; above 0 is interior.
    proposal : ndarray of float, int or bool, same shape
        Probability of interior, 0 to 1.
    thresholds : sequence of float, optional
        Where to binarise the proposal; those of ISBI 2012 unless given.

    Returns
    -------
    ScoreCurve
        The mean over sections.

    Raises
    ------
    InvalidData
        If shapes or dtypes do not fit, the proposal is not finite and within 0 to 1, or the
        labels have no interior, to which the figure is restricted.
    """
    return _tally(labels, proposal, thresholds, figure="thinned").v_info_curve


def isbi_figures(labels: Labels, proposal: Proposal) -> IsbiFigures:
    """Compute all five figures of ISBI 2012 at the official thresholds.

    Parameters
    ----------
    labels : ndarray of int or bool, (z, y, x) or (y, x)
        The truth; above 0 is interior.
    proposal : ndarray of float, int or bool, same shape
        Probability of interior, 0 to 1.

    Returns
    -------
    IsbiFigures
        Warping, Rand and pixel error; V_Rand and V_Info after thinning; where they are reached.

    Raises
    ------
    InvalidData
        If shapes or dtypes do not fit, the proposal is not finite and within 0 to 1, or the
        labels have no interior, to which the figure is restricted.
    """
    stacks = as_sections(labels, proposal)
    tallies = (tally_section(*section) for section in zip(*stacks, strict=True))
    return IsbiFigures.of(reduce(IsbiTally.plus, tallies))


def _tally(
    labels: Labels, proposal: Proposal, thresholds: Sequence[float], *, figure: str
) -> IsbiTally:
    stacks = as_sections(labels, proposal)
    check_thresholds(thresholds)
    tallies = (
        tally_section(*section, thresholds=thresholds, warp_thresholds=thresholds, figures={figure})
        for section in zip(*stacks, strict=True)
    )
    return reduce(IsbiTally.plus, tallies)
