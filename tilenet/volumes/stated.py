"""What attributes beside OME-Zarr's say of an array: axes, voxel size, position.

CREMI (``resolution``, ``offset``), funlib (``voxel_size``, ``offset``, ``axis_names``, ``units``),
COSEM (``transform``), N5 (``pixelResolution``, ``downsamplingFactors``) and Fiji
(``element_size_um``) have their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilenet.errors import one_line
from tilenet.volumes.attribute_values import (
    NUMBERED,
    VoxelSize,
    are_axes,
    letters_of,
    names_in,
    numbers_in,
    plain,
    say,
    unit_problem,
    zyx_of,
)
from tilenet.volumes.units import nanometres_per

_NAMES = ("axis_names", "axes", "dimension_order", "_ARRAY_DIMENSIONS")
_SIZES = ("voxel_size", "resolution")

#: Attributes that N5 knows: beside them, what is listed is in the order x, y, z.
_OF_N5 = ("n5", "pixelResolution", "downsamplingFactors", "multiScale")

_READ = (*_NAMES, *_SIZES, *_OF_N5, "transform", "offset", "units", "unit", "element_size_um")


@dataclass(frozen=True, slots=True)
class StatedGeometry:
    """What attributes state.

    Parameters
    ----------
    axes : tuple of str or None
        A letter per stored axis, of t, c, z, y and x.
    voxel_size, translation : tuple of float or None
        Nanometres, (z, y, x); the size of a voxel, and where the first one lies.
    notes : tuple of str
        What was assumed or passed over, a sentence each, for people.
    contradiction : tuple of str
        All that is said of the axes, where several attributes say different things.
    """

    axes: tuple[str, ...] | None = None
    voxel_size: VoxelSize | None = None
    translation: VoxelSize | None = None
    notes: tuple[str, ...] = ()
    contradiction: tuple[str, ...] = ()


def stated_geometry(
    attributes: Mapping[str, Any], ndim: int, axes: Sequence[str] | None = None
) -> StatedGeometry:
    """Read what the attributes of an array state of its axes, its voxel size and its position.

    Parameters
    ----------
    attributes : mapping
        JSON values, or HDF5's: arrays and bytes.
    ndim : int
        Number of the array's axes.
    axes : sequence of str, optional
        A letter per axis, known in another way: values are listed in this order where the
        attributes name no axes. Without either the order is z, y, x.

    Returns
    -------
    StatedGeometry
        Values whose unit is not stated are in nanometres.
    """
    return _Table(attributes, ndim, axes).geometry()


class _Table:
    def __init__(
        self, attributes: Mapping[str, Any], ndim: int, axes: Sequence[str] | None
    ) -> None:
        self.values = {name: plain(attributes[name]) for name in _READ if name in attributes}
        self.notes: list[str] = []
        self.contradiction: tuple[str, ...] = ()
        self.listed: tuple[str, ...] | None = None  # the axes that are named, in their own order
        self.of_n5 = any(name in self.values for name in _OF_N5)
        transform = self.values.get("transform")
        self.transform: dict[str, Any] = transform if isinstance(transform, dict) else {}
        self.names = self._names(ndim)
        self.order = self._order(ndim, axes)

    def geometry(self) -> StatedGeometry:
        found = [(name, size) for name in _SIZES if (size := self._listed(name)) is not None]
        found += [("pixelResolution", size)] if (size := self._pixel_resolution()) else []
        found += [("element_size_um", size)] if (size := self._element_size()) else []
        scale, translation = self._transform()
        found = [("transform", scale), *found] if scale else found
        if not found:
            if "offset" in self.values:
                self._pass_over("offset", "no voxel size is stated beside it")
            return StatedGeometry(self.names, None, None, tuple(self.notes), self.contradiction)
        name, chosen = found[0]
        for other, size in found[1:]:
            if not all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(chosen, size, strict=True)):
                stated = f"{_nm(chosen)} in {name!r} and {_nm(size)} in {other!r}"
                self.notes.append(f"Its voxel size is stated as {stated}: the first is used.")
        if translation is None and "offset" in self.values:
            # Of the first voxel's corner or centre, as the writer has it: a whole number of voxels
            # away from a neighbour that has none.
            translation = self._listed("offset", position=True)
        return StatedGeometry(
            self.names, chosen, translation, tuple(self.notes), self.contradiction
        )

    # -- axes ---------------------------------------------------------------------------------

    def _names(self, ndim: int) -> tuple[str, ...] | None:
        stated = {name: self.values[name] for name in _NAMES if name in self.values}
        if "axes" in self.transform:
            stated = {"transform": self.transform["axes"], **stated}
        read: dict[str, tuple[str, ...]] = {}
        for attribute, value in stated.items():
            names = names_in(value)
            letters = letters_of(names)
            if are_axes(letters, ndim):
                if attribute != "transform":  # which has lists of its own
                    self.listed = self.listed or letters
                read[attribute] = self._in_array_order(attribute, letters)
            elif not names or not all(NUMBERED.fullmatch(name) for name in names):
                self._pass_over(attribute, "it does not name each axis t, c, z, y or x")
        if len(set(read.values())) > 1:
            said = (f"{say(letters)} in {name!r}" for name, letters in read.items())
            self.contradiction = tuple(said)
        return next(iter(read.values()), None)

    def _in_array_order(self, attribute: str, letters: tuple[str, ...]) -> tuple[str, ...]:
        if attribute == "transform":
            ordering = self.transform.get("ordering")
            return letters[::-1] if ordering == "F" else letters
        space = [letter for letter in letters if letter in "zyx"]
        if self.of_n5 and space[0] == "x":
            turned = letters[::-1]
            note = f"Its attribute {attribute!r}, {say(letters)}, stands beside attributes of N5"
            self.notes.append(f"{note}, which lists axes backwards: {say(turned)} is assumed.")
            return turned
        return letters

    def _order(self, ndim: int, axes: Sequence[str] | None) -> tuple[str, ...]:
        # In which order values are listed, one per axis.
        if self.listed is not None:
            return self.listed
        known = self.names or (None if axes is None else tuple(axes))
        known = known or tuple("zyx"[-ndim:])
        return known[::-1] if self.of_n5 else known

    # -- sizes and positions --------------------------------------------------------------------

    def _listed(self, name: str, position: bool = False) -> VoxelSize | None:
        if name not in self.values:
            return None
        values = numbers_in(self.values[name], position=position)
        letters = self._letters_for(len(values))
        if letters is None or not values:
            self._pass_over(name, "it does not list a number for each of z, y and x")
            return None
        if self.of_n5 and self.listed is None:
            said = say(letter for letter in letters if letter in "zyx")
            self.notes.append(f"Its attribute {name!r} is taken in the order {said}, as N5 has it.")
        units = self._units(self.values.get("units", self.values.get("unit")), letters)
        found = self._nanometres(dict(zip(letters, values, strict=True)), units, position)
        return found if position else self._sampled(name, found)

    def _letters_for(self, count: int) -> tuple[str, ...] | None:
        space = tuple(letter for letter in self.order if letter in "zyx")
        whole = tuple("xyz" if self.of_n5 else "zyx")
        choices = (self.order, space, whole)
        return next((letters for letters in choices if len(letters) == count), None)

    def _units(self, stated: Any, letters: Sequence[str]) -> dict[str, Any]:
        if isinstance(stated, str):
            return dict.fromkeys("zyx", stated)
        if not isinstance(stated, list):
            return {}
        space = tuple(letter for letter in letters if letter in "zyx")
        order = next((o for o in (letters, space, self.order) if len(o) == len(stated)), ())
        return dict(zip(order, stated, strict=False))

    def _nanometres(
        self, values: Mapping[str, float], units: Mapping[str, Any], position: bool
    ) -> VoxelSize | None:
        # Without a unit, and with an empty one, the value is taken for nanometres.
        space = {axis: value for axis, value in values.items() if axis in "zyx"}
        factors = {axis: nanometres_per(units.get(axis) or "nm") for axis in space}
        unknown = [units[axis] for axis in space if factors[axis] is None]
        if unknown:
            note = unit_problem(unknown)
            self.notes += [note] if note not in self.notes else []
            return None
        # Single precision and millionths leave traces in the last digits.
        digits = 12 if position else 6
        scaled = {axis: value * (factors[axis] or 1.0) for axis, value in space.items()}
        rounded = {axis: float(f"{value:.{digits}g}") for axis, value in scaled.items()}
        return zyx_of(rounded, missing=0.0 if position else 1.0)

    def _sampled(self, name: str, size: VoxelSize | None) -> VoxelSize | None:
        # N5's size is the finest level's; a level says how many voxels of that one its own has.
        factors = numbers_in(self.values.get("downsamplingFactors"))
        if size is None or len(factors) != 3 or factors == (1.0,) * 3:
            return size
        text = f"Its voxel size is {name!r} times 'downsamplingFactors', as N5 has it."
        self.notes.append(text)
        return size[0] * factors[2], size[1] * factors[1], size[2] * factors[0]

    def _pixel_resolution(self) -> VoxelSize | None:
        name = "pixelResolution"
        if name not in self.values:
            return None
        stated = self.values[name]
        table = stated if isinstance(stated, dict) else {"dimensions": stated}
        values = numbers_in(table.get("dimensions"))
        if not 2 <= len(values) <= 4:
            self._pass_over(name, "it does not list a number for each of x, y and z")
            return None
        units = self._units(table.get("unit"), ())
        size = self._nanometres(dict(zip("xyzc", values, strict=False)), units, False)
        return self._sampled(name, size)

    def _element_size(self) -> VoxelSize | None:
        name = "element_size_um"
        if name not in self.values:
            return None
        values = numbers_in(self.values[name])
        if len(values) != 3:
            self._pass_over(name, "it does not list a number for each of z, y and x")
            return None
        return self._nanometres(
            dict(zip("zyx", values, strict=True)), dict.fromkeys("zyx", "um"), False
        )

    def _transform(self) -> tuple[VoxelSize | None, VoxelSize | None]:
        if "scale" not in self.transform:
            return None, None
        letters = letters_of(names_in(self.transform.get("axes"))) or self.order
        scale = numbers_in(self.transform["scale"])
        if len(scale) != len(letters):
            self._pass_over("transform", "it does not list a scale for each of its axes")
            return None, None
        units = self._units(self.transform.get("units", self.values.get("units")), letters)
        size = self._nanometres(dict(zip(letters, scale, strict=True)), units, False)
        moved = numbers_in(self.transform.get("translate"), position=True)
        if size is None or len(moved) != len(letters):
            return size, None
        return size, self._nanometres(dict(zip(letters, moved, strict=True)), units, True)

    def _pass_over(self, attribute: str, why: str) -> None:
        text = one_line(repr(self.values[attribute]), 60)
        self.notes.append(f"Its attribute {attribute!r}, {text}, is passed over: {why}.")


def _nm(size: VoxelSize) -> str:
    return " x ".join(f"{value:g}" for value in size) + " nm"
