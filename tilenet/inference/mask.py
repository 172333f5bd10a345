"""A low-resolution mask over a volume: each of its voxels covers a box of the volume's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, Box, zyx
from tilenet.volumes import POSITION_TOLERANCE, Volume


@dataclass(frozen=True)
class MaskGrid:
    """Which voxels of a volume each of a mask covers.

    Parameters
    ----------
    factor : tuple of int
        Voxels of the volume that one of the mask covers, (z, y, x).
    offset : tuple of int
        First voxel of the volume that the mask covers, which may lie before the volume.
    notes : tuple of str
        What was assumed, a sentence each, for people.
    """

    factor: ZYX
    offset: ZYX = (0, 0, 0)
    notes: tuple[str, ...] = ()


def place_mask(volume: Volume, mask: Volume) -> MaskGrid:
    """Find where a mask lies in a volume: by the positions that both state, else at its begin.

    Parameters
    ----------
    volume, mask : Volume

    Returns
    -------
    MaskGrid
        The mask covers all of the volume.

    Raises
    ------
    InvalidData
        When it does not cover it, or lies between its voxels.
    """
    sizes, positions = (volume.voxel_size, mask.voxel_size), (volume.translation, mask.translation)
    if sizes[0] is None or sizes[1] is None:
        return MaskGrid(mask_factor(volume.shape, mask.shape), notes=_unplaced(*positions))
    ratio = tuple(m / v for m, v in zip(sizes[1], sizes[0], strict=True))
    # Levels of a pyramid often state one position, though that of their centres differs.
    if positions[0] is None or positions[1] is None or positions[0] == positions[1]:
        return MaskGrid(mask_factor(volume.shape, mask.shape, ratio), notes=_unplaced(*positions))
    factor = zyx(max(1, round(r)) for r in ratio)
    offset = _offset(volume, mask, factor)
    if offset is None:
        problem = (
            f"{mask.location} does not lie on whole voxels of {volume.location}: voxels of "
            f"{sizes[1]} and {sizes[0]} nm, the first ones centred at {positions[1]} and "
            f"{positions[0]} nm (z, y, x)"
        )
        raise InvalidData("Mask", problem, "Correct what is stated wrong, or remove its position.")
    if offset == (0, 0, 0):
        return MaskGrid(mask_factor(volume.shape, mask.shape, ratio))
    covered = Box(
        offset, zyx(o + n * f for o, n, f in zip(offset, mask.shape, factor, strict=True))
    )
    if not covered.contains(whole := Box.of_shape(volume.shape)):
        problem = f"{mask.location} lies at {covered} in voxels of {volume.location}, and so does "
        problem += f"not cover all of its {whole}"
        raise InvalidData("Mask", problem, "Give a mask of the whole volume.")
    return MaskGrid(factor, offset)


def _offset(volume: Volume, mask: Volume, factor: ZYX) -> ZYX | None:
    # Of the faces, from the centres of the first voxels; None where it is not whole voxels by the
    # voxel size of either.
    assert volume.voxel_size is not None
    assert mask.voxel_size is not None
    assert volume.translation is not None
    assert mask.translation is not None
    found = []
    for axis, wide in enumerate(factor):
        distance = mask.translation[axis] - volume.translation[axis]
        sizes = volume.voxel_size[axis], mask.voxel_size[axis] / wide
        steps = [distance / size - (wide - 1) / 2 for size in sizes]
        found.append(round(steps[0]))
        if any(abs(step - found[axis]) > POSITION_TOLERANCE for step in steps):
            return None
    return zyx(found)


def _unplaced(volume: Sequence[float] | None, mask: Sequence[float] | None) -> tuple[str, ...]:
    if volume == mask or not any((*(volume or ()), *(mask or ()))):
        return ()
    return ("It is taken to begin where the volume does: one of them states no position.",)


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
