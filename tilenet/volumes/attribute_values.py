"""Values of attributes that others wrote: names of axes, numbers per axis, units."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tilenet.errors import one_line

#: Names that libraries give to axes of which they know nothing: dim_0, d1, c0^.
NUMBERED = re.compile(r"[a-z]*_?\d+\^?", re.I)

VoxelSize = tuple[float, float, float]


def plain(value: Any) -> Any:
    """Bring what HDF5 has, NumPy's arrays and numbers and bytes, to JSON's values."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def names_in(value: Any) -> list[str]:
    """List names of axes, from a list of them or of tables, or "zyx", or "z, y, x"."""
    if isinstance(value, str):
        value = re.split(r"[\s,:]+", value) if re.search(r"[\s,:]", value) else list(value)
    if not isinstance(value, list):
        return []
    names = [entry.get("name") if isinstance(entry, Mapping) else entry for entry in value]
    words = [name for name in names if isinstance(name, str)]
    return words if len(words) == len(names) else []


def letters_of(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.strip().lower()[:1] for name in names)


def are_axes(letters: Sequence[str], ndim: int) -> bool:
    """Tell whether letters name each axis of an array, and which y and x are."""
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


def unit_problem(units: Iterable[object]) -> str:
    said = sorted({one_line(repr(unit), 60) for unit in units})
    return f"The unit {say(said)} is not understood, so its voxel size counts as not stated."
