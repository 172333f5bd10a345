"""Telling whether a prediction takes membrane for interior."""

from __future__ import annotations

import numpy as np

from tilenet.metrics.arrays import Labels, Proposal
from tilenet.metrics.isbi import isbi_figures

#: F-scores that differ by less are the same: where nearly all or nearly nothing is above the
#: threshold, a prediction and its opposite score alike.
NOISE = 0.01

#: The opposite is clearly better where its F-score is higher by this.
CLEAR = 0.05


def is_inverted(labels: Labels, proposal: Proposal) -> bool:
    """Tell whether the opposite of a proposal fits the labels clearly better.

    Parameters
    ----------
    labels : ndarray of int or bool, (z, y, x) or (y, x)
        The truth; above 0 is interior.
    proposal : ndarray of float, int or bool, same shape
        Probability of interior, 0 to 1.

    Returns
    -------
    bool
        True when the pixel F-score of 1 - p is at no threshold lower than that of p, and higher by
        :data:`CLEAR` at half of the thresholds or more.
    """
    here, opposite = (
        np.array(isbi_figures(labels, values, figures=["pixel"]).pixel_curve.f_score)
        for values in (proposal, 1.0 - proposal.astype(np.float64))
    )
    gain = opposite - here
    return bool((gain > -NOISE).all() and np.median(gain) > CLEAR)
