"""What the attributes of an HDF5 dataset state of its axes, its voxel size and its position."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tilenet.volumes import StatedGeometry, nanometres_per, stated_geometry

#: Attributes, in lower case, that name the axes in the order in which they are stored: of vigra and
#: ilastik, funlib, NeXus, xarray, and of people.
NAMING = (
    "axistags",
    *("axis_names", "axes_names", "axis_labels", "axislabels"),
    *("axes", "axis_order", "axisorder", "axes_order"),
    *("dims", "dim_order", "dimension_order", "dimension_names", "_array_dimensions"),
)

#: Attributes of N5, which lists axes backwards; its library writes HDF5 too.
_OF_N5 = {"n5", "pixelresolution", "downsamplingfactors", "multiscale"}

#: Names that libraries give to axes of which they know nothing: dim_0, d1, c0^.
_NUMBERED = re.compile(r"[a-z_]*\d+\^?", re.I)

_WORDS = {
    **{letter: letter for letter in "tcszyx"},
    **dict.fromkeys(("channel", "channels"), "c"),
    **dict.fromkeys(("time", "timepoint", "frame"), "t"),
}

#: The order of axes of HDF5's own true colour images.
_INTERLACED = {"INTERLACE_PIXEL": "yxs", "INTERLACE_LINE": "ysx", "INTERLACE_PLANE": "syx"}


@dataclass(frozen=True, slots=True)
class StatedAxes:
    """What a dataset says of its axes: a letter each, "?" for a word that is no axis of ours."""

    names: str | None = None
    contradiction: tuple[str, ...] = ()  # all that it says, where it says different things
    notes: tuple[str, ...] = ()


def stated_axes(dataset: Any) -> StatedAxes:
    statements: dict[str, str] = {}
    notes: list[str] = []
    backwards = not _OF_N5.isdisjoint(map(str.lower, dataset.attrs))
    for source, found in _statements(dataset):
        if all(_NUMBERED.fullmatch(word) for word in found):
            continue
        if backwards and source.lower() in NAMING and found[0].lower() == "x":
            found = found[::-1]
            notes.append(f"{source} is read backwards, as N5 writes it: {' '.join(found)}.")
        if len(found) != dataset.ndim or not all(found):
            notes.append(
                f"{source} names the axes {' '.join(found)!r}, which are not the "
                f"{dataset.ndim} that are stored; it is left out."
            )
        else:
            statements[source] = "".join(map(axis_letter, found))
            notes += _unknown(source, found, dataset.shape)
    if not statements and not notes:
        statements = dict(_of_groups(dataset))
    several = {_significant(names, dataset.shape) for names in statements.values()}
    if len(several) > 1:
        said = tuple(f"{source}: {names}" for source, names in statements.items())
        return StatedAxes(None, said, tuple(notes))
    return StatedAxes(next(iter(statements.values()), None), (), tuple(notes))


def axis_letter(word: str) -> str:
    """Give t, c, s, z, y or x for the name of an axis, and "?" for another word."""
    return _WORDS.get(word.lower().rstrip("^").strip(), "?")  # funlib marks channels as "c^"


def _significant(names: str, shape: Sequence[int]) -> str:
    return "".join(name if size > 1 else "-" for name, size in zip(names, shape, strict=True))


def _unknown(source: str, found: Sequence[str], shape: Sequence[int]) -> Iterator[str]:
    letters = list(map(axis_letter, found))
    unknown = [
        word
        for word, letter, size in zip(found, letters, shape, strict=True)
        if letter == "?" and size > 1
    ]
    if len(unknown) == 1 and "z" not in letters:  # which choose_axes takes for the sections
        yield f"{source} calls an axis {unknown[0]!r}; it is taken as z."


def _statements(dataset: Any) -> Iterator[tuple[str, list[str]]]:
    for name, value in _readable(dataset.attrs):
        if name.lower() in NAMING and (found := words(value)):
            yield name, found
    labels = [dimension.label for dimension in dataset.dims]
    if any(labels):
        yield "DIMENSION_LABELS", labels
    else:
        scales = [next(iter(d.keys()), "") for d in dataset.dims]
        if any(axis_letter(name) != "?" for name in scales):
            yield "dimension scales", scales
    if text(dataset.attrs.get("IMAGE_SUBCLASS")) == "IMAGE_TRUECOLOR":
        order = _INTERLACED.get(text(dataset.attrs.get("INTERLACE_MODE")) or "")
        if order:
            yield "INTERLACE_MODE", list(order)


def stated_size(dataset: Any, axes: str | None) -> StatedGeometry:
    """Read what a dataset states; ``axes`` are its axes, a letter each, where they are known."""
    attributes = attributes_of(dataset)
    tables = {name: value for name, value in attributes.items() if name.lower() not in NAMING}
    found = stated_geometry(tables, dataset.ndim, axes)
    size, notes = _of_axistags(attributes)
    other = found.voxel_size
    if size is not None and other is not None and not np.allclose(size, other, rtol=1e-4):
        notes += ("Its voxel size in axistags is another than in its other attributes, which are "
                  "used.",)  # fmt: skip
    return replace(found, voxel_size=other or size, notes=(*found.notes, *notes))


def _of_axistags(
    attributes: Mapping[str, Any],
) -> tuple[tuple[float, float, float] | None, tuple[str, ...]]:
    # Of ilastik since 1.4.1: a resolution per axis, 0 if it is not known, and the units beside.
    tags = _table(attributes.get("axistags")).get("axes")
    units = _table(attributes.get("axis_units"))
    sizes: dict[str, float] = {}
    for tag in tags if isinstance(tags, list) else ():
        axis, value = (tag.get("key"), tag.get("resolution")) if isinstance(tag, dict) else ("", 0)
        if axis not in ("z", "y", "x") or not isinstance(value, int | float) or not value > 0:
            continue
        unit = units.get(axis)
        factor = nanometres_per(unit)
        if factor is None:
            how = f"in {unit!r}, which is not understood" if unit else "without a unit"
            return None, (f"axistags states a resolution {how}; it is left out.",)
        sizes[axis] = float(f"{value * factor:.6g}")
    if len(sizes) < 3 or not all(map(math.isfinite, sizes.values())):
        return None, ()
    return (sizes["z"], sizes["y"], sizes["x"]), ()


def _table(value: object) -> Mapping[str, Any]:
    try:
        parsed = json.loads(text(value) or "{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _of_groups(dataset: Any) -> Iterator[tuple[str, str]]:
    # What is said of a whole group holds for those of its datasets that it fits.
    for group in (dataset.parent, dataset.file):
        for name, value in _readable(group.attrs):
            found = words(value) if name.lower() in NAMING else None
            letters = "".join(map(axis_letter, found or ()))
            if len(letters) == dataset.ndim and {"y", "x"} <= set(letters):
                yield f"{name} of {group.name}", letters


def _readable(attributes: Any) -> Iterator[tuple[str, Any]]:
    for name in attributes:
        try:
            yield name, attributes[name]
        except (OSError, TypeError, ValueError):  # of a type that h5py does not know
            continue


def attributes_of(node: Any) -> Mapping[str, Any]:
    """Read the attributes of a group or dataset that can be read."""
    return dict(_readable(node.attrs))


def text(value: object) -> str | None:
    """Give a string that is stored as one, or as bytes, or as an array of letters as in Imaris."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "S" and value.dtype.itemsize == 1:
            value = b"".join(value.ravel().tolist())
        elif value.size == 1:
            value = value.ravel()[0]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value) if isinstance(value, str) else None


def words(value: object) -> list[str] | None:
    """Give the words of a list, in whatever form it is stored; None where there are none."""
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size > 1:
        return _of_items(value.tolist())
    written = text(value)
    if written is None:
        return None
    try:
        parsed = json.loads(written)
    except ValueError:
        parts = re.findall(r"[^\s,:;()\[\]{}'\"]+", written)
        letters = len(parts) == 1 and all(letter in _WORDS for letter in parts[0].lower())
        return list(parts[0]) if letters else parts
    if isinstance(parsed, dict):
        parsed = parsed.get("axes")
    return _of_items(parsed) if isinstance(parsed, list) else None


def _of_items(items: Iterable[object]) -> list[str] | None:
    found = []
    for item in items:
        if isinstance(item, dict):
            item = item.get("key", item.get("name"))
        word = text(item)
        if word is None:
            return None
        found.append(word)
    return found
