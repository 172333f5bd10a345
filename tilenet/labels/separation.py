"""Background between touching instances: the borders that a network is to learn.

Where two cells touch without a gap, no background voxel lies between them, and neither the
targets nor the border weights can tell them apart. Ronneberger et al. 2015 (MICCAI, section 3)
insert a separation border by morphological operations; here is the rule that makes it exact
block by block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX


def gap_margins(gap: int, *, per_section: bool) -> tuple[ZYX, ZYX]:
    """Say how far around a voxel :func:`separate` looks.

    Parameters
    ----------
    gap : int, voxels
    per_section : bool
        Look within the section only.

    Returns
    -------
    tuple of tuple of int
        Voxels below and above, each (z, y, x).
    """
    if gap < 0:
        raise InvalidData("Gap", f"is {gap} voxels", "Give 0 for none, or a positive width.")
    below, above = -(-gap // 2), gap // 2
    if per_section:
        return (0, below, below), (0, above, above)
    return (below,) * 3, (above,) * 3


def separate(
    labels_zyx: npt.NDArray[Any], gap: int, *, per_section: bool, ignore: int | None = None
) -> npt.NDArray[Any]:
    """Make the contact of touching instances background, ``gap`` voxels wide.

    A voxel v of an instance becomes background if the box from v - ceil(gap / 2) to
    v + floor(gap / 2), both included, holds a voxel of another instance. A straight contact
    becomes exactly ``gap`` voxels wide; a border of at least half of that which is there already
    stays as it is, and a narrower one is widened by less. The result depends on that box alone,
    so a block that reads :func:`gap_margins` more gets the same result as the whole.

    Parameters
    ----------
    labels_zyx : ndarray of int, shape (z, y, x)
        Instances; 0 is background. Not changed.
    gap : int, voxels; 0 changes nothing
    per_section : bool
        The box lies within the section: sections do not touch one another.
    ignore : int, optional
        A label that is neither background nor an instance: it stays, and separates nothing.

    Returns
    -------
    ndarray, shape and dtype of ``labels_zyx``
        Instances with borders between them.
    """
    margins = gap_margins(gap, per_section=per_section)
    if gap == 0 or labels_zyx.size == 0:
        return labels_zyx.copy()
    instance = labels_zyx != 0
    if ignore is not None:
        instance &= labels_zyx != ignore
    numbers = labels_zyx.astype(np.uint8) if labels_zyx.dtype == bool else labels_zyx
    bounds = np.iinfo(numbers.dtype)
    highest = _over_window(np.where(instance, numbers, bounds.min), np.maximum, margins)
    lowest = _over_window(np.where(instance, numbers, bounds.max), np.minimum, margins)
    # Each instance voxel lies in its own box: the extremes differ only if another one does too.
    return np.where(instance & (lowest != highest), labels_zyx.dtype.type(0), labels_zyx)


def _over_window(
    values: npt.NDArray[Any], extreme: np.ufunc, margins: tuple[ZYX, ZYX]
) -> npt.NDArray[Any]:
    # Along one axis after the other. NumPy compares 64-bit labels exactly; the filters of SciPy
    # compute in float64.
    for axis, (below, above) in enumerate(zip(*margins, strict=True)):
        source, result = np.moveaxis(values, axis, 0), values.copy()
        target = np.moveaxis(result, axis, 0)
        for shift in range(1, below + 1):
            extreme(target[shift:], source[:-shift], out=target[shift:])
        for shift in range(1, above + 1):
            extreme(target[:-shift], source[shift:], out=target[:-shift])
        values = result
    return values
