"""How the segments of a section overlap, and the Rand and information scores that follow."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import sparse

from tilenet.metrics.arrays import Counted, Ids, Mask
from tilenet.metrics.curves import Counts


def segments(mask: Mask) -> Ids:
    """Give every 4-connected piece of a section a number.

    Parameters
    ----------
    mask : ndarray of bool, (y, x)

    Returns
    -------
    ndarray of int32, (y, x)
        Pieces of what is true from 1, and 0 elsewhere.
    """
    found = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=4)
    return np.asarray(found).astype(np.int32, copy=False)


def pixel_counts(interior: Mask, predicted: Mask) -> Counts:
    tp = int(np.count_nonzero(interior & predicted))
    fp = int(np.count_nonzero(predicted)) - tp
    return Counts(tp, fp, int(np.count_nonzero(interior)) - tp)


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Sizes of segments and of their overlaps, counted in true interior only."""

    both: Counted  # c_ij of true and proposed segments that overlap
    # true, proposed: sizes of the true segments, and of the proposed ones within true
    # interior.
    true: Counted
    proposed: Counted
    membrane: int  # c_0, pixels of true interior that are in no proposed segment

    @classmethod
    def of(cls, true_ids: Ids, proposed_ids: Ids) -> Overlaps:
        proposed = np.bincount(proposed_ids, minlength=1)
        return cls(
            both=_overlaps(true_ids, proposed_ids),
            true=_positive(np.bincount(true_ids)),
            proposed=_positive(proposed[1:]),
            membrane=int(proposed[0]),
        )

    def pair_counts(self) -> Counts:
        """Count ordered pairs of interior pixels that share a segment, in truth and proposal.

        A pixel makes a pair with itself too, and in no proposed segment with nothing else.
        """
        both = _squares(self.both) + self.membrane
        proposed = _squares(self.proposed) + self.membrane
        return Counts(both, proposed - both, _squares(self.true) - both)

    def information_score(self) -> float:
        """Give V_Info: how much of the entropies the two segmentations share.

        With mutual information I and entropies H(A) of the truth and H(B) of the proposal, in
        which a pixel of no proposed segment is a segment of its own, the harmonic mean of
        I / H(A) and I / H(B) is 2 I / (H(A) + H(B)).
        """
        total = int(self.true.sum())
        single = self.membrane / total * np.log(total)
        h_true = _entropy(self.true, total)
        h_proposed = _entropy(self.proposed, total) + single
        h_both = _entropy(self.both, total) + single
        if h_true <= 0.0 or h_proposed <= 0.0:  # a single segment: 0 in the official code too
            return 0.0
        shared = max(0.0, h_true + h_proposed - h_both)
        return float(2.0 * shared / (h_true + h_proposed))


def _positive(sizes: npt.NDArray[np.intp]) -> Counted:
    return sizes[sizes > 0].astype(np.int64, copy=False)


def _squares(sizes: Counted) -> int:
    return int(np.dot(sizes, sizes))


def _entropy(sizes: Counted, total: int) -> float:
    # Sizes are whole numbers, so a single segment has exactly 1 of all, and exactly no entropy.
    share = sizes / total
    return -float(np.dot(share, np.log(share)))


def _overlaps(true_ids: Ids, proposed_ids: Ids) -> Counted:
    """Count the pixels of each pair of segments, proposed membrane left out.

    A dense table of all pairs would take gigabytes for a noisy proposal of many specks.
    """
    inside = proposed_ids > 0
    pairs = (true_ids[inside], proposed_ids[inside])
    shape = (int(true_ids.max(initial=0)) + 1, int(proposed_ids.max(initial=0)) + 1)
    ones = np.ones(pairs[0].size, np.int64)
    # Conversion to rows adds up the entries of equal coordinates, in linear time.
    counted: Counted = sparse.coo_array((ones, pairs), shape=shape).tocsr().data
    return counted
