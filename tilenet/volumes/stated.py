"""What attributes beside OME-Zarr's say of an array: axes, voxel size, position.

CREMI (``resolution``, ``offset``), funlib (``voxel_size``, ``offset``, ``axis_names``, ``units``),
COSEM (``transform``), N5 (``pixelResolution``, ``downsamplingFactors``) and Fiji
(``element_size_um``) have their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tilenet.volumes.attribute_values import (
    NAMING,
    READ,
    SIZES,
    STATE_SIZE,
    UNITS,
    VoxelSize,
    letters_of,
    names_in,
    numbers_in,
    plain,
    say,
    say_value,
    unit_problem,
    zyx_of,
)
from tilenet.volumes.axistags import size_in_axistags
from tilenet.volumes.stated_axes import fitting, is_of_n5, read_names
from tilenet.volumes.units import nanometres_per

#: A smaller voxel, in nanometres, has a unit that is not stated, or another one.
_SMALLEST = 0.1


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
    attributes: Mapping[str, Any],
    ndim: int,
    axes: Sequence[str] | None = None,
    *,
    group: Mapping[str, Any] | None = None,
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
    group : mapping, optional
        Attributes of its group that count where those of the array say nothing.

    Returns
    -------
    StatedGeometry
        Values whose unit is not stated are in nanometres.
    """
    return _Table(attributes, ndim, axes, group or {}).geometry()


class _Table:
    def __init__(
        self,
        attributes: Mapping[str, Any],
        ndim: int,
        axes: Sequence[str] | None,
        group: Mapping[str, Any],
    ) -> None:
        own, above = _readable(attributes), _readable(group)
        self.spelled = {name.lower(): name for name in (*sorted(group), *sorted(attributes))}
        self.values = own
        self.notes: list[str] = []
        self.contradiction: tuple[str, ...] = ()
        self.of_n5 = is_of_n5(own)
        named = read_names(own, ndim, self.of_n5, self.spelled)
        above_named = read_names(
            fitting(above, ndim), ndim, self.of_n5 or is_of_n5(above), self.spelled
        )
        # In the order of the group's list its own values are.
        self.above = above_named.listed
        known = None if axes is None else tuple(axes)
        if named.silent and known in (None, above_named.names):
            named = replace(above_named, names=above_named.names if known is None else None)
        self.names, self.listed = named.names, named.listed
        self.notes += named.notes
        self.contradiction = named.contradiction
        self.inherited = self._inherit(own, above)
        self.transform = _mapping(self.values.get("transform"))
        known = self.names or (None if axes is None else tuple(axes)) or tuple("zyx"[-ndim:])
        self.order = known[::-1] if self.of_n5 else known

    def geometry(self) -> StatedGeometry:
        found = [(name, size) for name in SIZES if (size := self._listed(name)) is not None]
        found += [("pixelResolution", size)] if (size := self._pixel_resolution()) else []
        found += [("element_size_um", size)] if (size := self._element_size()) else []
        scale, translation = self._transform()
        found = [("transform", scale), *found] if scale else found
        size, notes = size_in_axistags(self.values)
        self.notes += notes
        if size and found and not _alike(size, found[0][1], 1e-4):
            note = "Its voxel size in axistags is another than in its other attributes"
            self.notes.append(f"{note}, which are used.")
        found += [("axistags", size)] if size and not found else []
        if not found:
            if "offset" in self.values:
                self._pass_over("offset", "no voxel size is stated beside it")
            return StatedGeometry(self.names, None, None, tuple(self.notes), self.contradiction)
        name, chosen = found[0]
        for other, size in found[1:]:
            if not _alike(chosen, size, 1e-5):
                stated = f"{_nm(chosen)} in {name!r} and {_nm(size)} in {other!r}"
                self.notes.append(f"Its voxel size is stated as {stated}: the first is used.")
        if min(chosen) < _SMALLEST:
            note = f"Its voxel size is {_nm(chosen)}, less than {_SMALLEST:g} nm along an axis"
            self.notes.append(f"{note}: it may be stated in another unit.")
        if translation is None and "offset" in self.values:
            # Of the first voxel's corner or centre, as the writer has it: a whole number of voxels
            # away from a neighbour that has none.
            translation = self._listed("offset", beside=name)
        return StatedGeometry(
            self.names, chosen, translation, tuple(self.notes), self.contradiction
        )

    # -- of the group ---------------------------------------------------------------------------

    def _inherit(self, own: Mapping[str, Any], above: Mapping[str, Any]) -> set[str]:
        """Take from the group what the array does not state: all of a size, or nothing of it."""
        if _has_size(own):
            # Units that no size of the group has are for those of its arrays.
            bare = own.keys().isdisjoint(UNITS) and not _has_size(above)
            self.values = {**own, **{n: above[n] for n in UNITS if n in above and bare}}
            return set()
        inherited = set(above) - set(own) - set(NAMING)
        self.values = {**own, **{name: above[name] for name in inherited}}
        self.of_n5 = is_of_n5(self.values)
        return inherited

    # -- sizes and positions --------------------------------------------------------------------

    def _listed(self, name: str, beside: str | None = None) -> VoxelSize | None:
        # A position is in the unit of the size that it stands beside, where it has none.
        if name not in self.values:
            return None
        position = beside is not None
        values = numbers_in(self.values[name], position=position)
        listed = self.above if name in self.inherited else self.listed
        letters = self._letters_for(len(values), listed)
        if letters is None or not values:
            self._pass_over(name, "it does not list a number for each of z, y and x")
            return None
        if self.of_n5 and listed is None:
            said = say(letter for letter in letters if letter in "zyx")
            called = self._called(name)
            self.notes.append(f"Its attribute {called} is taken in the order {said}, as N5 has it.")
        stated = self._unit_of(name)
        if stated is None and beside is not None and (stated := self._unit_of(beside)):
            said = f"Its attribute {self._called(name)} is taken in the unit of its voxel size"
            self.notes.append(f"{said}, {say_value(stated)}.")
        if stated is None and name == "spacing":
            self._pass_over(name, "no unit is stated beside it")
            return None
        units = self._units(stated, letters)
        found = self._nanometres(dict(zip(letters, values, strict=True)), units, position)
        return found if position else self._sampled(name, found)

    def _unit_of(self, name: str) -> Any:
        suffix = name.rpartition("_")[2]
        if name in SIZES and suffix in ("nm", "um"):
            return suffix
        names = (f"{name}_unit", f"{name}_units", "units", "unit")
        return next((self.values[key] for key in names if key in self.values), None)

    def _letters_for(self, count: int, listed: tuple[str, ...] | None) -> tuple[str, ...] | None:
        order = listed or self.order
        space = tuple(letter for letter in order if letter in "zyx")
        whole = tuple("xyz" if self.of_n5 else "zyx")
        return next((letters for letters in (order, space, whole) if len(letters) == count), None)

    def _units(self, stated: Any, letters: Sequence[str]) -> dict[str, Any]:
        if isinstance(stated, str):
            return dict.fromkeys("zyx", stated)
        if not isinstance(stated, list):
            return {}
        space = tuple(letter for letter in letters if letter in "zyx")
        orders = (letters, space, self.listed or self.order)
        order = next((order for order in orders if len(order) == len(stated)), ())
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
        factors = numbers_in(self.values.get("downsamplingfactors"))
        if size is None or len(factors) != 3 or factors == (1.0,) * 3:
            return size
        text = f"Its voxel size is {self._called(name)} times 'downsamplingFactors', as N5 has it."
        self.notes.append(text)
        return size[0] * factors[2], size[1] * factors[1], size[2] * factors[0]

    def _pixel_resolution(self) -> VoxelSize | None:
        name = "pixelresolution"
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
        letters = letters_of(names_in(self.transform.get("axes"))) or self.listed or self.order
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

    def _called(self, name: str) -> str:
        return repr(self.spelled.get(name, name))

    def _pass_over(self, attribute: str, why: str) -> None:
        said = say_value(self.values[attribute])
        self.notes.append(
            f"Its attribute {self._called(attribute)}, {said}, is passed over: {why}."
        )


def _readable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    # By names in lower case, which sort after those with capitals, and count before them.
    known = {name.lower(): plain(attributes[name]) for name in sorted(attributes)
             if name.lower() in READ}  # fmt: skip
    return {name: value for name, value in known.items() if value is not None}


def _has_size(values: Mapping[str, Any]) -> bool:
    listed = any(name in values for name in STATE_SIZE if name != "transform")
    return (
        listed or "scale" in _mapping(values.get("transform")) or bool(size_in_axistags(values)[0])
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _alike(one: VoxelSize, other: VoxelSize, tolerance: float) -> bool:
    pairs = zip(one, other, strict=True)
    return all(math.isclose(a, b, rel_tol=tolerance) for a, b in pairs)


def _nm(size: VoxelSize) -> str:
    return " x ".join(f"{value:g}" for value in size) + " nm"
