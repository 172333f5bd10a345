"""Scales and translations of OME-Zarr's levels, put together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilenet.errors import one_line
from tilenet.volumes.attribute_values import letters_of, names_in, numbers_in, say


class NotPlain(Exception):
    """Metadata of which nothing can be assumed; its text ends a sentence."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Size of a step and position of the first voxel's centre, per axis, in its unit."""

    scale: tuple[float, ...] | None
    translation: tuple[float, ...] | None
    notes: tuple[str, ...] = ()


def placement(dataset: Mapping[str, Any], axes: Sequence[str], whole: Any) -> Placement:
    """Read the transformations of a level and, after them, those of the whole image."""
    path = dataset["path"]
    own = dataset.get("coordinateTransformations")
    if not own and isinstance(dataset.get("transform"), Mapping):
        own = _of_openorganelle(dataset["transform"], path, axes)
    if not own and not whole:
        note = f"Its level {path!r} states no scale, so its voxel size counts as not stated."
        return Placement(None, None, (note,))
    notes = list[str]()
    scale: tuple[float, ...] | None = None
    shift: tuple[float, ...] | None = None
    for transform in [*_listed(own or [], path), *_listed(whole, path)]:
        kind = transform["type"]
        if kind != "identity" and not isinstance(transform.get(kind), list):
            # The specification lets numbers be stored in an array of their own.
            note = f"The {kind} of its level {path!r} is not stated in its attributes"
            return Placement(None, None, (f"{note}, so its voxel size counts as not stated.",))
        if kind == "scale":
            factors = _numbers(transform, path, axes, notes, 1.0)
            scale = _times(scale or (1.0,) * len(axes), factors)
            shift = None if shift is None else _times(shift, factors)
        elif kind == "translation":
            moved = _numbers(transform, path, axes, notes, 0.0)
            if scale is None:
                note = f"Its level {path!r} states a translation before a scale"
                notes.append(f"{note}: it is taken in steps of its voxels.")
            shift = moved if shift is None else tuple(map(sum, zip(shift, moved, strict=True)))
    space = [value for axis, value in zip(axes, scale or (), strict=False) if axis in "zyx"]
    if not space or not all(math.isfinite(value) and value > 0 for value in space):
        said = f"has the scale {say(map(str, space))}" if space else "states no scale"
        note = f"Its level {path!r} {said}, so its voxel size counts as not stated."
        return Placement(None, None, (*notes, note))
    return Placement(scale, shift, tuple(notes))


def _times(values: Sequence[float], factors: Sequence[float]) -> tuple[float, ...]:
    return tuple(a * b for a, b in zip(values, factors, strict=True))


def _of_openorganelle(
    transform: Mapping[str, Any], path: str, axes: Sequence[str]
) -> list[dict[str, Any]]:
    # Its lists are in the order of its own axes.
    own = letters_of(names_in(transform.get("axes"))) or tuple(axes)
    if sorted(own) != sorted(axes):
        raise NotPlain(f"the transform of level {path!r} has the axes {say(own)}, not {say(axes)}")
    found = []
    for kind, name in (("scale", "scale"), ("translation", "translate")):
        numbers = numbers_in(transform.get(name), position=True)
        if len(numbers) == len(own):
            by_axis = dict(zip(own, numbers, strict=True))
            found.append({"type": kind, kind: [by_axis[axis] for axis in axes]})
        elif name in transform:
            said = one_line(repr(transform[name]), 60)
            problem = f"the {name} of level {path!r}, {said}, is not a number for each of the axes"
            raise NotPlain(f"{problem} {say(own)}")
    return found


def _listed(transforms: Any, path: str, *, nested: bool = False) -> list[Mapping[str, Any]]:
    if not isinstance(transforms, list):
        raise NotPlain(f"the transformations of level {path!r} are not a list")
    found = list[Mapping[str, Any]]()
    for transform in transforms:
        kind = transform.get("type") if isinstance(transform, Mapping) else None
        if kind == "sequence" and not nested:
            found += _listed(transform.get("transformations"), path, nested=True)
        elif kind in ("scale", "translation", "identity"):
            found.append(transform)
        else:
            said = one_line(repr(kind), 60)
            problem = f"level {path!r} has a transformation of the type {said}"
            raise NotPlain(f"{problem}, and only scales and translations are read")
    return found


def _numbers(
    transform: Mapping[str, Any],
    path: str,
    axes: Sequence[str],
    notes: list[str],
    other: float,
) -> tuple[float, ...]:
    kind = transform["type"]
    numbers = numbers_in(transform[kind], position=True)
    if len(numbers) == len(axes):
        return numbers
    space = [axis for axis in axes if axis in "zyx"]
    stated = f"{kind} of level {path!r}"
    if not numbers or len(numbers) != len(space):
        said = one_line(repr(transform[kind]), 60)
        raise NotPlain(f"the {stated}, {said}, is not a number for each of the axes {say(axes)}")
    note = f"The {stated} has {len(numbers)} numbers for {len(axes)} axes"
    notes.append(f"{note}: they are taken for {say(space)}.")
    by_axis = dict(zip(space, numbers, strict=True))
    return tuple(by_axis.get(axis, other) for axis in axes)
