"""Which letter each axis of a stored array has: what is said of it, and what counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.volumes.attribute_values import NUMBERED, are_axes, letters_of, say
from tilenet.volumes.stated import StatedGeometry

#: An array of two axes that are both as long as this may be a section, else it is a table.
SECTION = 16


def is_image_like(shape: Sequence[int], dtype: np.dtype[Any]) -> bool:
    """Tell whether an array may be a volume or a section, by its shape and its values.

    Parameters
    ----------
    shape : sequence of int
    dtype : numpy.dtype

    Returns
    -------
    bool
        False of lines, tables and text, which programs store beside their images.
    """
    longer = [size for size in shape if size > 1]
    section = len(longer) == 2 and min(longer) >= SECTION
    return dtype.kind in "uifb" and (section or len(longer) > 2)


@dataclass(frozen=True, slots=True)
class NamedAxes:
    """A letter per stored axis."""

    letters: tuple[str, ...]
    # Whether z, y and x are where the metadata say that they are, if they say anything.
    as_stated: bool = True
    notes: tuple[str, ...] = ()


def name_axes(
    location: str,
    array: zarr.Array[Any],
    *,
    of_image: tuple[str, ...] | None,
    stated: StatedGeometry,
    given: str | None,
) -> NamedAxes:
    """Name the axes: as the caller says, else as the image, else as the array's metadata do."""
    if not 2 <= array.ndim <= 5:
        problem = f"has {array.ndim} axes (shape {array.shape}), but a volume has 2 to 5"
        raise UnreadableVolume(location, problem, "Store it as (y, x), (z, y, x) or (c, z, y, x)")
    dimensions, notes = dimension_letters(array)
    own = [letters for letters in (dimensions, stated.axes) if letters is not None]
    known = of_image or next(iter(own), None)
    if given is not None:
        letters = tuple(given.lower())
        _check(location, array, letters)
        if known is None or _spatial(known) == _spatial(letters):
            return NamedAxes(letters)
        note = f"--axes {given} is used, and its metadata state {''.join(known)}"
        return NamedAxes(letters, False, (f"{note}: its voxel size counts as not stated.",))
    if of_image is None:
        _refuse_contradiction(location, dimensions, stated)
    for letters in own if of_image else ():
        if letters != of_image:
            said = f"{say(of_image or ())}, and those of its array {say(letters)}"
            notes.append(f"Its axes are those of its OME-Zarr metadata, {said}.")
    letters = known or _by_sizes(array.shape)
    _check(location, array, letters)
    if known is None and notes:
        notes.append(f"For its axes {say(letters)} is assumed; --axes says otherwise.")
    return NamedAxes(letters, True, tuple(notes) if of_image or known is None else ())


def _by_sizes(shape: Sequence[int]) -> tuple[str, ...]:
    # Axes of length 1 say nothing, so that of four or five axes three longer ones can be known.
    if len(shape) <= 3:
        return tuple("zyx"[-len(shape) :])
    if sum(size > 1 for size in shape) != 3:
        return ()
    longer, others = iter("zyx"), iter("ct")
    return tuple(next(longer if size > 1 else others) for size in shape)


def dimension_letters(array: zarr.Array[Any]) -> tuple[tuple[str, ...] | None, list[str]]:
    """Give the letters of an array's dimension names, if they are axes, and what to say of them."""
    names = getattr(array.metadata, "dimension_names", None)
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        return None, []
    letters = letters_of(names)
    if are_axes(letters, array.ndim):
        return letters, []
    if all(NUMBERED.fullmatch(name) for name in names):
        return None, []
    return None, [f"Its dimension names {say(names)} do not name each axis t, c, z, y or x."]


def _spatial(letters: Sequence[str]) -> dict[str, int]:
    return {letter: i for i, letter in enumerate(letters) if letter in "zyx"}


def _refuse_contradiction(
    location: str, dimensions: tuple[str, ...] | None, stated: StatedGeometry
) -> None:
    said = list(stated.contradiction)
    if dimensions and stated.axes and dimensions != stated.axes:
        said = said or [f"{say(stated.axes)} in its attributes"]
        said.insert(0, f"{say(dimensions)} in its dimension names")
    if said:
        cure = "Say which is right, for example --axes zyx"
        raise AmbiguousVolume(location, "states its axes in several ways", tuple(said), cure)


def _check(location: str, array: zarr.Array[Any], names: tuple[str, ...]) -> None:
    legal = (
        len(set(names)) == len(names) and set(names) <= set("tczyx") and {"y", "x"} <= set(names)
    )
    if not names or (legal and len(names) != array.ndim):
        found = f"{array.ndim} axes of sizes {array.shape}"
        cure = f"Say it: --axes {'tczyx'[-array.ndim :]}"
        problem = f"has {found}, and nothing says which is which"
        if names:
            problem = f"has {found}, but {len(names)} axes are named: {''.join(names)!r}"
        raise AmbiguousVolume(location, problem, ("t", "c", "z", "y", "x"), cure)
    if not legal:
        problem = f"has axes named {''.join(names)!r}, which must be among t, c, z, y, x, each once"
        raise UnreadableVolume(location, problem, "Say which is which, for example --axes zyx")
