"""Voxel sizes, positions and channels that TIFF files state; nothing is guessed.

ImageJ's description, OME-XML and the header of Zeiss LSM are read. The resolution tags of a plain
TIFF are not: programs fill them with the dots per inch of a screen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

import tifffile

from tilenet.formats.ome_files import ome_image
from tilenet.volumes import nanometres_per

#: Nanometres, (z, y, x).
_Triple = tuple[float, float, float]

#: What is stated along the axes z, y and x: a value, if any, and its unit.
_Stated = Mapping[str, tuple[float | None, object]]

_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")

_X_RESOLUTION, _Y_RESOLUTION = 282, 283

#: What programs write for a unit that they do not know.
_NO_UNIT = ("", "pixel", "pixels", "px", "reference frame", "none", "null")

_INCH = nanometres_per("inch")
_SCREEN = (
    "It states its voxel size in inches, as programs do that know only the dots of a screen; "
    "it is not used."
)


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a file lie, as far as it says so."""

    voxel_size: _Triple | None = None
    translation: _Triple | None = None  # of the first voxel's centre
    notes: tuple[str, ...] = ()
    # Nanometres, (y, x), where there is no size along z: a single section needs none.
    pixel_size: tuple[float, float] | None = None


def tiff_geometry(file: tifffile.TiffFile, index: int) -> Geometry:
    """Read what a file says of the image with that index."""
    if file.is_ome:
        return _from_ome(file, index)
    if file.is_imagej:
        return _from_imagej(file)
    if file.is_lsm:
        metadata = file.lsm_metadata or {}
        sizes = {axis: (_number(metadata.get(f"VoxelSize{axis.upper()}")), "m") for axis in "zyx"}
        return _voxel_size(sizes)
    return Geometry()


def stated_channels(file: tifffile.TiffFile, index: int) -> tuple[str, ...]:
    """Read what OME-XML calls the channels of the image with that index."""
    image = ome_image(file, index)
    channels = [] if image is None else image.iterfind("{*}Pixels/{*}Channel")
    return tuple(channel.get("Name", "") for channel in channels)


def _from_imagej(file: tifffile.TiffFile) -> Geometry:
    metadata = file.imagej_metadata or {}
    # ImageJ writes characters beyond ASCII as \u and four digits.
    units = {
        axis: _ESCAPED.sub(
            lambda found: chr(int(found[1], 16)),
            str(metadata.get(f"{axis}unit", metadata.get("unit", ""))),
        )
        for axis in "zyx"
    }
    tags = file.pages.first.tags
    depth = _number(metadata.get("spacing"))
    values = {
        "z": None if depth is None else abs(depth),  # so does ImageJ
        "y": _per_pixel(tags.valueof(_Y_RESOLUTION)),
        "x": _per_pixel(tags.valueof(_X_RESOLUTION)),
    }
    if any(nanometres_per(unit) == _INCH for unit in units.values()):
        return Geometry(notes=(_SCREEN,))
    found = _voxel_size({axis: (values[axis], units[axis]) for axis in "zyx"})
    size = found.voxel_size
    origins = [_number(metadata.get(f"{axis}origin")) for axis in "zyx"]
    if size is None or not any(origins):
        return found
    if metadata.get("inverty") is True:
        note = "It states a position with y upward, which is not read."
        return replace(found, notes=(*found.notes, note))
    # An origin is the voxel, counted from 0, whose position is 0.
    z, y, x = (0.0 - (n or 0.0) * nm for n, nm in zip(origins, size, strict=True))
    return replace(found, translation=(z, y, x))


def _per_pixel(resolution: object) -> float | None:
    if not isinstance(resolution, tuple) or len(resolution) != 2 or not resolution[0]:
        return None
    return _number(resolution[1] / resolution[0])


def _from_ome(file: tifffile.TiffFile, index: int) -> Geometry:
    image = ome_image(file, index)
    pixels = None if image is None else image.find("{*}Pixels")
    if pixels is None:
        return Geometry()
    size = _voxel_size(_of_ome(pixels, "PhysicalSize", "\u00b5m"))
    of_first = (
        plane
        for plane in pixels.iterfind("{*}Plane")
        if all(plane.get(f"The{axis}", "0") == "0" for axis in "ZCT")
    )
    first = next(of_first, None)
    if first is None:
        return size
    # In OME's default, the reference frame, a position is in no unit of length, and none is stated.
    found, notes = _nanometres("position", _of_ome(first, "Position", "reference frame"))
    return replace(size, translation=_triple(found, 12), notes=(*size.notes, *notes))


def _of_ome(element: Element, name: str, unit: str) -> _Stated:
    return {
        axis.lower(): (
            _of_text(element.get(f"{name}{axis}")),
            element.get(f"{name}{axis}Unit", unit),
        )
        for axis in "ZYX"
    }


def _voxel_size(stated: _Stated) -> Geometry:
    positive = {
        axis: (value if value is not None and value > 0 else None, unit)
        for axis, (value, unit) in stated.items()
    }
    found, notes = _nanometres("voxel size", positive)
    # TIFF stores resolutions as fractions; six digits bring back the number that was meant.
    if found.keys() == {"y", "x"}:
        _, y, x = _triple({"z": 1.0, **found}, 6) or (0, 0, 0)
        return Geometry(pixel_size=(y, x), notes=notes)
    return Geometry(_triple(found, 6), notes=notes)


def _nanometres(what: str, stated: _Stated) -> tuple[dict[str, float], tuple[str, ...]]:
    """Convert what is stated in a unit of length, and say what is in none."""
    found, notes = {}, []
    for axis, (value, unit) in stated.items():
        factor = nanometres_per(unit)
        if value is not None and factor is not None:
            found[axis] = value * factor
        elif value is not None and str(unit or "").strip().lower() not in _NO_UNIT:
            notes.append(f'Its {what} along {axis} is in "{unit}", a unit that is not known.')
    in_plane = what == "voxel size" and found.keys() == {"y", "x"}  # which may be all there is
    if found and len(found) < len(stated) and not in_plane:
        known = ", ".join(f"{axis} {nm:.6g}" for axis, nm in found.items())
        missing = ", ".join(axis for axis in stated if axis not in found)
        notes.append(f"Its {what} is stated in part and is not used: {known} nm, not {missing}.")
    return found, tuple(notes)


def _triple(found: Mapping[str, float], digits: int) -> _Triple | None:
    if len(found) < 3:
        return None
    z, y, x = (float(f"{found[axis]:.{digits}g}") for axis in "zyx")
    return z, y, x


def _of_text(text: str | None) -> float | None:
    try:
        return _number(float(text or ""))
    except ValueError:
        return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
