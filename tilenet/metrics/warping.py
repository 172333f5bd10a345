"""The warping error of a section: what stays wrong after the truth was warped to the proposal."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt

from tilenet.metrics.arrays import Mask
from tilenet.metrics.overlaps import segments

#: Within this many pixels along either axis, a piece is looked at that a pixel may hold together.
RADIUS = 20


@dataclass(frozen=True, slots=True)
class WarpCounts:
    # split, merge: pixels that cut a true segment in two, and pixels that join two.
    split: int = 0
    merge: int = 0
    # All pixels that stay wrong: objects and holes that are there in one image only, too.
    wrong: int = 0

    def plus(self, other: WarpCounts) -> WarpCounts:
        return WarpCounts(
            self.split + other.split, self.merge + other.merge, self.wrong + other.wrong
        )


@functools.cache
def simple_points() -> npt.NDArray[np.bool]:
    """List the neighbourhoods in which flipping a pixel changes no topology.

    Such a pixel touches exactly one 4-connected piece of interior and one 8-connected piece of
    membrane within its eight neighbours (Bertrand 1994; Jain et al. 2010, CVPR). The neighbours
    are bits of the index, row by row, the first the lowest.
    """
    return np.array([_is_simple(pattern) for pattern in range(256)])


def _is_simple(pattern: int) -> bool:
    ring = [pattern >> bit & 1 for bit in range(8)]
    inside = np.array([*ring[:4], 0, *ring[4:]], np.bool).reshape(3, 3)
    outside = ~inside
    outside[1, 1] = False
    touching = set(segments(inside).ravel()[1::2].tolist()) - {0}  # above, left, right, below
    _, pieces = cc3d.connected_components(outside, connectivity=8, return_N=True)
    return len(touching) == 1 and bool(pieces == 1)


def warp_counts(
    interior: Mask, scores: npt.NDArray[np.float64], threshold: float, *, radius: int = RADIUS
) -> WarpCounts:
    """Warp the truth towards the proposal, and count what stays wrong.

    Pixels in which truth and binarised proposal differ are flipped in the truth, those first
    whose proposal is farthest from the threshold, as long as the flip changes no topology; again
    and again, until a pass flips none (WarpingError of Fiji's Trainable_Segmentation, with
    "clusterByError" off; Jain et al. 2010, CVPR).
    """
    from tilenet.metrics import _kernels

    # What lies outside the section is membrane, and is never flipped.
    image = np.pad(interior, 1).astype(np.uint8)
    width = image.shape[1]
    wrong = _by_distance(interior != (scores > threshold), scores, threshold)
    count = _kernels.warp(image.ravel(), wrong, simple_points(), width)
    if count == 0:
        return WarpCounts()
    ids = np.pad(segments(image[1:-1, 1:-1] > 0), 1, constant_values=_kernels.OUTSIDE)
    height, breadth = interior.shape
    # A window that no section could hold means the whole section, in the official code too.
    reach = radius if 1 <= radius <= min(height, breadth) else max(height, breadth)
    split, merge = _kernels.count_splits_and_merges(
        image.ravel(), ids.ravel(), wrong[:count], (height, breadth), reach
    )
    return WarpCounts(int(split), int(merge), int(count))


def _by_distance(
    mismatch: Mask, scores: npt.NDArray[np.float64], threshold: float
) -> npt.NDArray[np.int64]:
    """Give indices into the padded section, farthest from the threshold first.

    The official code compares distances in float32, and keeps the order of its scan, x outside
    and y inside, among equal ones.
    """
    columns, rows = np.nonzero(mismatch.T)
    distance = np.abs(scores[rows, columns] - threshold).astype(np.float32)
    order = np.argsort(-distance, kind="stable")
    flat: npt.NDArray[np.int64] = ((rows + 1) * (mismatch.shape[1] + 2) + columns + 1)[order]
    return flat
