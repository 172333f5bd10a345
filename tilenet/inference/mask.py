"""A low-resolution mask over a volume: each of its voxels covers a box of the volume's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, Box, zyx


def mask_factor(volume_shape: ZYX, mask_shape: ZYX, ratio: tuple[float, ...] | None = None) -> ZYX:
    """Give how many voxels of the volume one voxel of the mask covers.

    ``ratio`` is the mask's voxel size by the volume's. Without it the factors are those by which
    the shapes divide; 30 sections behind 2 of a mask are 15 each.
    """
    if ratio is None:
        factor = zyx(-(-v // m) for v, m in zip(volume_shape, mask_shape, strict=True))
    else:
        factor = zyx(max(1, round(r)) for r in ratio)
    covered = zyx(-(-v // f) for v, f in zip(volume_shape, factor, strict=True))
    if covered != mask_shape:
        by = "whole factors" if ratio is None else "the ratio of the voxel sizes"
        problem = f"of shape {mask_shape} does not divide the volume {volume_shape} by {by}"
        cure = f"With factors {factor} it would have the shape {covered}."
        raise InvalidData("Mask", problem, cure)
    return factor


def mask_box(box: Box, factor: ZYX) -> Box:
    """Give the voxels of the mask that cover a box of the volume."""
    snapped = box.snap_outward(factor)
    return Box(
        zyx(a // f for a, f in zip(snapped.start, factor, strict=True)),
        zyx(b // f for b, f in zip(snapped.stop, factor, strict=True)),
    )


def enlarge(values: npt.NDArray[Any], box: Box, factor: ZYX) -> npt.NDArray[np.bool_]:
    """Repeat mask voxels so that they cover a box of the volume; nonzero is inside."""
    inside: npt.NDArray[np.bool_] = values != 0
    origin = mask_box(box, factor).start
    for axis in range(3):
        rows = np.arange(box.start[axis], box.stop[axis]) // factor[axis] - origin[axis]
        inside = np.take(inside, rows, axis=axis)
    return inside
