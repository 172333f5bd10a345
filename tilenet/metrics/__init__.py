"""Figures that say how good a prediction is.

The five of ISBI 2012 for probabilities of interior, section by section; for instances the SEG
score of the Cell Tracking Challenge, the adapted Rand error of SNEMI3D and the variation of
information. Everything is summed from small tallies of sections or blocks, so that volumes of any
size can be judged piece by piece.
"""

from __future__ import annotations

from tilenet.metrics.curves import (
    ISBI_THRESHOLDS,
    WARPING_THRESHOLDS,
    ErrorCurve,
    ScoreCurve,
    ThresholdCurve,
    isbi_thresholds,
)
from tilenet.metrics.instances import adapted_rand_error, seg_score, variation_of_information
from tilenet.metrics.isbi import (
    IsbiFigures,
    isbi_figures,
    pixel_error,
    rand_error,
    v_info_thinned,
    v_rand_thinned,
    warping_error,
)
from tilenet.metrics.pair_table import AdaptedRand, InformationVariation, PairTable, SegTally

__all__ = [
    "ISBI_THRESHOLDS",
    "WARPING_THRESHOLDS",
    "AdaptedRand",
    "ErrorCurve",
    "InformationVariation",
    "IsbiFigures",
    "PairTable",
    "ScoreCurve",
    "SegTally",
    "ThresholdCurve",
    "adapted_rand_error",
    "isbi_figures",
    "isbi_thresholds",
    "pixel_error",
    "rand_error",
    "seg_score",
    "v_info_thinned",
    "v_rand_thinned",
    "variation_of_information",
    "warping_error",
]
