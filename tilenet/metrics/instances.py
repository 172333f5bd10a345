"""Figures that compare instances: SEG, adapted Rand error, variation of information."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from tilenet.metrics.arrays import Labels, check_instances, check_shapes
from tilenet.metrics.pair_table import AdaptedRand, InformationVariation, PairTable, SegTally


def seg_score(labels: Labels, segmentation: Labels) -> float:
    """Give the SEG score of the Cell Tracking Challenge, section by section.

    A true instance R and a proposed one S of the same section match where |R and S| > |R| / 2;
    the score is the mean over all true instances of all sections of |R and S| / |R or S|, and 0
    for those without a match. Proposed instances that match nothing do not lower it. The
    challenge's border is not cropped here (java-ctcmetrics; Ulman et al. 2017, Nat. Methods
    14:1141).

    Parameters
    ----------
    labels, segmentation : ndarray of int, (z, y, x) or (y, x)
        True and proposed instances, from 1; 0 is background.

    Returns
    -------
    float
        0 to 1, higher is better; NaN when there is no true instance.
    """
    _check(labels, segmentation)
    stacks = (labels, segmentation) if labels.ndim == 3 else (labels[None], segmentation[None])
    tally = SegTally()
    for section in zip(*stacks, strict=True):
        tally = tally.plus(PairTable.of(*section).seg())
    return tally.score


def adapted_rand_error(labels: Labels, segmentation: Labels) -> AdaptedRand:
    """Give the adapted Rand error of SNEMI3D, over the volume as one.

    With c_ij voxels common to the true instance i and the proposed one j (0 is background), N
    voxels in all and a = sum_i>=1 c_i0: both = sum_ij>=1 c_ij^2 + a / N, precision = both /
    (sum_j>=1 (sum_i>=1 c_ij)^2 + a / N) and recall = both / sum_i>=1 (sum_j c_ij)^2. The
    singleton term is a / N as in the official code
    (RandError.adaptedRandIndexFScore3D of Fiji's Trainable_Segmentation), where a would count
    voxels of true foreground in no proposed instance as instances of their own.

    Parameters
    ----------
    labels, segmentation : ndarray of int, (z, y, x) or (y, x)
        True and proposed instances, from 1; 0 is background.

    Returns
    -------
    AdaptedRand
        Over all voxels.
    """
    _check(labels, segmentation)
    return PairTable.of(labels, segmentation).adapted_rand()


def variation_of_information(labels: Labels, segmentation: Labels) -> InformationVariation:
    """Give the variation of information, over the volume as one, in bits.

    Voxels of true background are left out, and proposed background is one instance more: the
    convention of CREMI (Meila 2003, COLT; Nunez-Iglesias et al. 2013, PLoS ONE 8:e71715).

    Parameters
    ----------
    labels, segmentation : ndarray of int, (z, y, x) or (y, x)
        True and proposed instances, from 1; 0 is background.

    Returns
    -------
    InformationVariation
        Its split and merge parts.
    """
    _check(labels, segmentation)
    return PairTable.of(labels, segmentation).variation_of_information()


def _check(labels: npt.NDArray[Any], segmentation: npt.NDArray[Any]) -> None:
    check_shapes(labels, segmentation, "segmentation")
    check_instances(labels, "labels")
    check_instances(segmentation, "segmentation")
