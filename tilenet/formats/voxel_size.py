"""Voxel sizes that TIFF files state, in nanometres; nothing is guessed.

ImageJ's description and OME-XML are read. The resolution tags of a plain TIFF are not: programs
fill them with the dots per inch of a screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import tifffile

from tilenet.volumes import nanometres_per

VoxelSize = tuple[float, float, float]

_X_RESOLUTION, _Y_RESOLUTION = 282, 283


def tiff_voxel_size(file: tifffile.TiffFile) -> VoxelSize | None:
    """Read it where ImageJ or OME metadata state all three sizes and the unit."""
    if file.is_ome:
        return _from_ome(file.ome_metadata or "")
    if file.is_imagej:
        return _from_imagej(file)
    return None


def _from_imagej(file: tifffile.TiffFile) -> VoxelSize | None:
    metadata = file.imagej_metadata or {}
    factor = nanometres_per(metadata.get("unit"))
    tags = file.pages.first.tags
    per_unit = [tags.valueof(code) for code in (_Y_RESOLUTION, _X_RESOLUTION)]
    try:
        sizes = [float(metadata["spacing"]), *(d / n for n, d in per_unit)]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return None if factor is None else _checked(factor * size for size in sizes)


def _from_ome(xml: str) -> VoxelSize | None:
    try:
        pixels = tifffile.xml2dict(xml)["OME"]["Image"]["Pixels"]
        return _checked(
            float(pixels[f"PhysicalSize{axis}"])
            * (nanometres_per(pixels.get(f"PhysicalSize{axis}Unit", "µm")) or math.nan)
            for axis in "ZYX"
        )
    except (KeyError, TypeError, ValueError):
        return None


def _checked(sizes: Iterable[float]) -> VoxelSize | None:
    # TIFF stores resolutions as fractions; six digits bring back the number that was meant.
    rounded = tuple(float(f"{size:.6g}") for size in sizes)
    if len(rounded) != 3 or not all(math.isfinite(size) and size > 0 for size in rounded):
        return None
    z, y, x = rounded
    return z, y, x
