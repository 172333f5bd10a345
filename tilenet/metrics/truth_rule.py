"""Which voxels of a truth are judged, and what counts as interior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from tilenet.metrics.arrays import Mask


@dataclass(frozen=True, kw_only=True)
class TruthRule:
    """What the user says of a truth.

    Parameters
    ----------
    ignore : int or None
        Voxels of this value say nothing, and are left out of every figure.
    boundary : int or None
        So are those that lie so many pixels, or fewer, from a pixel that has another label beside
        it in its section (4 neighbours), that pixel itself included: CREMI's border mask.
    interior : int or None
        This value is interior, and all others are not; None: what is above 0.
    """

    ignore: int | None = None
    boundary: int | None = None
    interior: int | None = None

    @property
    def reach(self) -> int:
        """Pixels along y and x that are to be seen around a part of a section."""
        return 0 if self.boundary is None else self.boundary + 1

    def judged(self, labels: npt.NDArray[Any]) -> JudgedTruth:
        """Apply the rule to sections (z, y, x), with what lies in reach around them."""
        ignored = None if self.ignore is None else labels == self.ignore
        left_out = ignored
        if self.boundary is not None:
            near = near_boundary(labels, self.boundary)
            left_out = near if ignored is None else near | ignored
        if self.interior is not None:
            labels = labels == self.interior
        if left_out is not None:
            labels = np.where(left_out, labels.dtype.type(0), labels)
        return JudgedTruth(labels, left_out, ignored)


@dataclass(frozen=True, eq=False)
class JudgedTruth:
    """Labels, of which those that are left out are 0, as membrane and background are."""

    labels: npt.NDArray[Any]
    left_out: Mask | None  # None where all are judged
    says_nothing: Mask | None  # those of the value to ignore

    @property
    def ignored(self) -> int:
        """Voxels of the value that says nothing."""
        return 0 if self.says_nothing is None else int(np.count_nonzero(self.says_nothing))

    def cropped(self, part: tuple[slice | int, ...]) -> JudgedTruth:
        left_out = None if self.left_out is None else self.left_out[part]
        nothing = None if self.says_nothing is None else self.says_nothing[part]
        return JudgedTruth(self.labels[part], left_out, nothing)

    def background_where_left_out(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Give predicted values such that what is left out says nothing either."""
        if self.left_out is None:
            return values
        return np.where(self.left_out, values.dtype.type(0), values)


def near_boundary(labels: npt.NDArray[Any], distance: int) -> Mask:
    """Find the pixels that lie near another label, section by section.

    Parameters
    ----------
    labels : ndarray, (z, y, x)
    distance : int
        Pixels; 0 finds those that touch another label.

    Returns
    -------
    ndarray of bool, (z, y, x)
    """
    near = np.zeros(labels.shape, bool)
    for section, found in zip(labels, near, strict=True):
        same = np.ones(section.shape, bool)
        for low, high in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
            differs = section[low] != section[high]
            same[low] &= ~differs
            same[high] &= ~differs
        if not same.all():  # of a section without a boundary there are no distances
            found[:] = distance_transform_edt(same) <= distance
    return near
