"""Values of attributes that others wrote: names of axes, numbers per axis, units."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tilenet.errors import one_line

#: Attributes, in lower case, that name the axes in the order in which they are stored: of vigra and
#: ilastik, funlib, NeXus, xarray, and of people.
NAMING = (
    *("axis_names", "axes_names", "axis_labels", "axislabels"),
    *("axes", "axis_order", "axisorder", "axes_order"),
    *("dims", "dim_order", "dimension_order", "dimension_names", "_array_dimensions"),
    "axistags",
)

#: Attributes of N5, in lower case: beside them, what is listed is in the order x, y, z.
OF_N5 = ("n5", "pixelresolution", "downsamplingfactors", "multiscale")

_BASES = ("voxel_size", "resolution", "spacing")

#: Attributes, in lower case, that list sizes; the first one that states something counts. The name
#: may end in a unit.
SIZES = (*_BASES, *(f"{base}_{unit}" for base in _BASES for unit in ("nm", "um")))

#: Units of one attribute, which count for it, and of all.
UNITS = (
    *(f"{name}_{unit}" for name in (*_BASES, "offset") for unit in ("unit", "units")),
    *("units", "unit"),
)

#: All that may state a size.
STATE_SIZE = {*SIZES, "pixelresolution", "element_size_um", "transform"}

#: All that is read.
READ = {*NAMING, *OF_N5, *STATE_SIZE, *UNITS, "offset", "axis_units"}

#: Names that libraries give to axes of which they know nothing: dim_0, phony_dim_0, d1, c0^.
NUMBERED = re.compile(r"[a-z_]*\d+\^?", re.I)

_LETTERS = {
    **{letter: letter for letter in "tcszyx"},
    **dict.fromkeys(("depth", "slice", "slices"), "z"),
    **dict.fromkeys(("height", "row", "rows"), "y"),
    **dict.fromkeys(("width", "column", "columns", "col", "cols"), "x"),
    **dict.fromkeys(("channel", "channels"), "c"),
    **dict.fromkeys(("time", "timepoint", "frame"), "t"),
}

VoxelSize = tuple[float, float, float]


def decoded(value: Any) -> Any:
    """Bring what HDF5 has, NumPy's arrays and numbers and bytes, to text, numbers and lists.

    Parameters
    ----------
    value : Any

    Returns
    -------
    Any
        None for HDF5's empty value.
    """
    if getattr(value, "shape", ()) is None:  # HDF5's word for nothing
        return None
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return [decoded(entry) for entry in value]
    return value


def plain(value: Any) -> Any:
    """Bring what HDF5 has, also JSON in a text, to JSON's values.

    Parameters
    ----------
    value : Any

    Returns
    -------
    Any
        A text that is no list and no table stays one.
    """
    value = decoded(value)
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(only, str) and only.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(only)
        except (ValueError, RecursionError):
            return value
    return value


def names_in(value: Any) -> list[str]:
    """List the names of axes that an attribute has.

    Parameters
    ----------
    value : Any
        JSON's: a list of words or of tables, or ilastik's table, or a text: "zyx", "z, y, x".

    Returns
    -------
    list of str
        None where it is something else.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        parts = re.findall(r"[^\s,:;()\[\]{}'\"]+", value)
        letters = len(parts) == 1 and all(letter in _LETTERS for letter in parts[0].lower())
        return list(parts[0]) if letters else parts
    entries = value.get("axes") if isinstance(value, Mapping) else value
    if not isinstance(entries, list):
        return []
    names = [e.get("key", e.get("name")) if isinstance(e, Mapping) else e for e in entries]
    words = [name for name in names if isinstance(name, str)]
    return words if len(words) == len(names) else []


def axis_letter(word: str) -> str:
    """Give a letter for the name of an axis.

    Parameters
    ----------
    word : str
        Such as ``Z``, ``channel``, funlib's ``c^``, ``x_um``.

    Returns
    -------
    str
        t, c, s, z, y or x, and "?" for another word.
    """
    word = word.strip().lower().rstrip("^").strip()
    with_unit = re.fullmatch(r"([zyx])[\W_].*", word)
    return with_unit[1] if with_unit else _LETTERS.get(word, "?")


def letters_of(names: Iterable[str]) -> tuple[str, ...]:
    """Give the letter of each of several axes, as :func:`axis_letter` does.

    Parameters
    ----------
    names : iterable of str

    Returns
    -------
    tuple of str
        One per name.
    """
    return tuple(map(axis_letter, names))


def are_axes(letters: Sequence[str], ndim: int) -> bool:
    """Tell whether letters name each axis of an array, and which y and x are.

    Parameters
    ----------
    letters : sequence of str
    ndim : int

    Returns
    -------
    bool
        False also where one occurs twice.
    """
    known = len(set(letters)) == len(letters) and set(letters) <= set("tczyx")
    return known and len(letters) == ndim and {"y", "x"} <= set(letters)


def numbers_in(value: Any, *, position: bool = False) -> tuple[float, ...]:
    """List numbers; none at all where one of them cannot be: a size is more than 0."""
    if not isinstance(value, list) or not all(isinstance(v, (int, float)) for v in value):
        return ()
    try:
        numbers = tuple(map(float, value))
    except OverflowError:
        return ()
    possible = all(math.isfinite(n) and (position or n > 0) for n in numbers)
    return numbers if possible else ()


def zyx_of(by_letter: Mapping[str, float], *, missing: float = 1.0) -> VoxelSize | None:
    """Put values in order; a single section has none of its own along z, and any serves."""
    if "y" not in by_letter or "x" not in by_letter:
        return None
    return by_letter.get("z", missing), by_letter["y"], by_letter["x"]


def say(names: Iterable[str]) -> str:
    return ", ".join(names)


def say_value(value: Any) -> str:
    """Write what an attribute has, for people."""
    if isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
        return one_line(say(value), 60)
    said = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return one_line(said, 60)


def unit_problem(units: Iterable[object]) -> str:
    said = sorted({one_line(repr(unit), 60) for unit in units})
    return f"The unit {say(said)} is not understood, so its voxel size counts as not stated."


def mapping(value: object) -> Mapping[str, Any]:
    """Give a table as it is, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}
