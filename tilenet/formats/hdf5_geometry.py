"""Voxel sizes and positions that the attributes of an HDF5 dataset state, in nanometres."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilenet.formats.hdf5_attributes import attributes_of, text, words
from tilenet.volumes import nanometres_per

_ZYX = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class StatedGeometry:
    voxel_size: _ZYX | None = None
    translation: _ZYX | None = None
    notes: tuple[str, ...] = ()


def stated_geometry_of(dataset: Any, names: str | None) -> StatedGeometry:
    """Read what a dataset states; ``names`` are its axes, a letter each, where they are known."""
    attributes = attributes_of(dataset)
    axes = names or "zyx"[-dataset.ndim :]
    notes: list[str] = []
    sizes = {
        "element_size_um": _element_size(attributes, axes, notes),
        "axistags": _of_axistags(attributes, notes),
    }
    for name in ("resolution", "voxel_size"):
        sizes[name] = _in_units(attributes, name, axes, notes)
    stated = {name: size for name, size in sizes.items() if size is not None}
    offset = _in_units(attributes, "offset", axes, notes)
    place = offset if offset is None or all(map(math.isfinite, offset)) else None
    size = _agreed(stated, notes)
    return StatedGeometry(size, place, tuple(dict.fromkeys(notes)))


def _agreed(stated: Mapping[str, _ZYX], notes: list[str]) -> _ZYX | None:
    usable = {name: size for name, size in stated.items() if _are_sizes(size)}
    wrong = [name for name in stated if name not in usable]
    notes += [f"{name} states no size that can be; it is left out." for name in wrong]
    first = next(iter(usable.values()), None)
    if first is None or all(np.allclose(size, first, rtol=1e-4) for size in usable.values()):
        return first
    said = ", ".join(f"{name} {_shown(size)}" for name, size in usable.items())
    notes.append(f"Its voxel sizes contradict each other and are left out (z, y, x, nm): {said}.")
    return None


def _are_sizes(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) and value > 0 for value in values)


def _shown(values: Iterable[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _element_size(attributes: Mapping[str, Any], axes: str, notes: list[str]) -> _ZYX | None:
    # Of ImageJ's HDF5 plugin: z, y, x. Others write a number for each axis, in the stored order.
    values = _values(attributes.get("element_size_um"))
    if values is None:
        return None
    if len(values) == len(axes) and set("yx") <= set(axes):
        spatial = "".join(axis for axis in axes if axis in "zyx")
        if spatial != "zyx"[-len(spatial) :]:
            notes.append(f"element_size_um is taken in the order of the stored axes, {axes}.")
        return _by_axis(dict(zip(axes, values, strict=True)), 1e3)
    return _by_axis(dict(zip("zyx", values, strict=True)), 1e3) if len(values) == 3 else None


def _of_axistags(attributes: Mapping[str, Any], notes: list[str]) -> _ZYX | None:
    tags = _json(attributes.get("axistags")).get("axes")
    if not isinstance(tags, list) or not all(isinstance(tag, dict) for tag in tags):
        return None
    units = _json(attributes.get("axis_units"))
    sizes: dict[str, float] = {}
    for tag in tags:
        axis, value = str(tag.get("key")).lower(), tag.get("resolution")
        if axis not in set("zyx") or not isinstance(value, int | float) or value == 0:
            continue  # 0 says that it is not known
        factor = nanometres_per(units.get(axis))
        if factor is None:
            said = units.get(axis)
            how = f"in {said!r}, which is not understood" if said else "without a unit"
            notes.append(f"axistags states a resolution {how}; it is left out.")
            return None
        sizes[axis] = value * factor
    return _by_axis(sizes, 1.0)


def _in_units(attributes: Mapping[str, Any], name: str, axes: str, notes: list[str]) -> _ZYX | None:
    # Of CREMI and funlib: nm and z, y, x, where the units and axes say nothing else.
    values = _values(attributes.get(name))
    if values is None:
        return None
    spatial = "".join(axis for axis in axes if axis in "zyx")
    order = axes if len(values) == len(axes) else spatial
    if len(values) != len(order):
        notes.append(f"{name} has {len(values)} numbers, which are not the axes; it is left out.")
        return None
    units = words(attributes.get("units")) or ["nm"]
    if len(units) == 1:
        units = units * len(order)
    factors = [nanometres_per(unit) for unit in units[-len(order) :]]
    scaled: dict[str, float] = {}
    for axis, value, factor in zip(order, values, factors, strict=False):
        if axis in "zyx" and factor is None:
            notes.append(f"{name} is stated in {units[-1]!r}, which is not understood.")
            return None
        scaled[axis] = value * (factor or 1.0)
    return _by_axis(scaled, 1.0)


def _by_axis(values: Mapping[str, float], factor: float) -> _ZYX | None:
    if not set("zyx") <= values.keys():
        return None
    z, y, x = (float(f"{values[axis] * factor:.6g}") for axis in "zyx")
    return z, y, x


def _values(value: object) -> list[float] | None:
    try:
        array = np.ravel(np.asarray(value, dtype=float)) if value is not None else None
    except (TypeError, ValueError):
        return None
    return None if array is None else array.tolist()


def _json(value: object) -> Mapping[str, Any]:
    try:
        parsed = json.loads(text(value) or "{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
