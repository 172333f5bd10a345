"""What attributes of an array, and of its group, name its axes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tilenet.volumes.attribute_values import (
    NAMING,
    NUMBERED,
    OF_N5,
    READ,
    are_axes,
    letters_of,
    names_in,
    plain,
    say,
    say_value,
)


@dataclass(frozen=True, slots=True)
class Named:
    """What is said of the axes."""

    names: tuple[str, ...] | None  # a letter per stored axis
    listed: tuple[str, ...] | None  # in the order of the attribute that lists them
    contradiction: tuple[str, ...]  # all that is said, where it differs
    notes: tuple[str, ...]

    @property
    def silent(self) -> bool:
        return self.names is None and not self.notes


def read_names(
    values: Mapping[str, Any], ndim: int, of_n5: bool, spelled: Mapping[str, str]
) -> Named:
    """Read JSON's values by attribute, in lower case; ``spelled`` is how messages call those."""
    transform = values.get("transform")
    transform = transform if isinstance(transform, Mapping) else {}
    stated = {name: values[name] for name in NAMING if name in values}
    if "axes" in transform:
        stated = {"transform": transform["axes"], **stated}
    listed: tuple[str, ...] | None = None
    read: dict[str, tuple[str, ...]] = {}
    notes: list[str] = []
    for attribute, value in stated.items():
        names, called = names_in(value), repr(spelled.get(attribute, attribute))
        letters = letters_of(names)
        if not are_axes(letters, ndim):
            if not names or not all(NUMBERED.fullmatch(name) for name in names):
                said = f"Its attribute {called}, {say_value(value)}, is passed over"
                notes.append(f"{said}: it does not name each axis t, c, z, y or x.")
            continue
        backwards = of_n5 and next(letter for letter in letters if letter in "zyx") == "x"
        if attribute == "transform":  # which has lists of its own
            backwards = transform.get("ordering") == "F"
        elif backwards:
            said = f"Its attribute {called}, {say(letters)}, stands beside attributes of N5, which"
            notes.append(f"{said} lists axes backwards: {say(letters[::-1])} is assumed.")
        if attribute != "transform":
            listed = listed or letters
        read[called] = letters[::-1] if backwards else letters
    differ = len(set(read.values())) > 1
    all_said = tuple(f"{say(letters)} in {called}" for called, letters in read.items())
    first = next(iter(read.values()), None)
    return Named(first, listed, all_said if differ else (), tuple(notes))


def is_of_n5(values: Mapping[str, Any]) -> bool:
    """Tell whether attributes, in lower case, are N5's."""
    return not values.keys().isdisjoint(OF_N5)


def fitting(values: Mapping[str, Any], ndim: int) -> Mapping[str, Any]:
    """Leave out what a group names of other axes than those of one of its arrays."""
    return {
        name: value
        for name, value in values.items()
        if name not in NAMING or are_axes(letters_of(names_in(value)), ndim)
    }


def group_attributes(
    attributes: Mapping[str, Any], name: str, *, is_only: Callable[[], bool]
) -> Mapping[str, Any]:
    """Give what the attributes of a group say of one of its arrays.

    Parameters
    ----------
    attributes : mapping
    name : str
        Of the array, in the group.
    is_only : callable
        Tells whether the group has no other, which takes time in a large one.

    Returns
    -------
    mapping
        All of them for an only array and for the finest level, s0, which N5's groups speak of;
        for another level with the factor that the group lists, if it does; else, and for one
        of several arrays, what names axes.
    """
    if not any(key.lower() in READ for key in attributes):
        return {}
    factors = plain(attributes.get("scales", attributes.get("downsamplingFactors")))
    level = re.fullmatch(r"s(\d{1,3})", name)
    listed = factors if level and isinstance(factors, list) else []
    own = listed[int(level[1])] if level and int(level[1]) < len(listed) else None
    if isinstance(own, list):
        return {**attributes, "downsamplingFactors": own}
    if name == "s0" or (not level and is_only()):
        return attributes
    naming = {key: attributes[key] for key in attributes if key.lower() in NAMING}
    marked = any(key.lower() in OF_N5 for key in attributes)
    return {**naming, "n5": True} if naming and marked else naming
