"""What the attributes of an HDF5 dataset state of its axes, its voxel size and its position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilenet.volumes import (
    NAMING,
    NUMBERED,
    OF_N5,
    StatedGeometry,
    are_axes,
    axis_letter,
    decoded,
    group_attributes,
    letters_of,
    names_in,
    plain,
    stated_geometry,
)

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
    backwards = _is_of_n5(dataset)
    for source, found in _statements(dataset):
        if all(NUMBERED.fullmatch(word) for word in found):
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


def _is_of_n5(node: Any) -> bool:
    return any(name.lower() in OF_N5 for name in node.attrs)


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
        if name.lower() in NAMING and (found := names_in(plain(value))):
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
    own = attributes_of(dataset)
    # Others are for stated_axes to judge.
    tables = {name: value for name, value in own.items() if not _misnames(name, value, dataset)}
    return stated_geometry(tables, dataset.ndim, axes, group=_of_parent(dataset))


def _misnames(name: str, value: object, dataset: Any) -> bool:
    if name.lower() not in NAMING or name.lower() == "axistags":
        return False
    letters = letters_of(names_in(plain(value)))
    turned = _is_of_n5(dataset) and letters[:1] == ("x",)
    return turned or not are_axes(letters, dataset.ndim)


def _of_parent(dataset: Any) -> Mapping[str, Any]:
    name = dataset.name.rpartition("/")[2]
    found = attributes_of(dataset.parent)
    return group_attributes(found, name, is_only=lambda: _is_only(dataset))


def _is_only(dataset: Any) -> bool:
    # Tables beside an image do not count.
    import h5py

    like = 0
    for name in dataset.parent:
        try:
            node = dataset.parent[name]
        except (KeyError, OSError, RuntimeError):  # a link to nothing
            continue
        like += isinstance(node, h5py.Dataset) and len(node.shape or ()) >= dataset.ndim
    return like == 1


def _of_groups(dataset: Any) -> Iterator[tuple[str, str]]:
    # What is said of a whole group holds for those of its datasets that it fits.
    for group in (dataset.parent, dataset.file):
        for name, value in _readable(group.attrs):
            found = names_in(plain(value)) if name.lower() in NAMING else []
            letters = "".join(letters_of(found))
            if len(letters) == dataset.ndim and {"y", "x"} <= set(letters):
                if letters[0] == "x" and (_is_of_n5(dataset) or _is_of_n5(group)):
                    letters = letters[::-1]
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
    if isinstance(value, np.ndarray) and value.dtype.kind == "S" and value.dtype.itemsize == 1:
        value = b"".join(value.ravel().tolist())
    elif isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    found = decoded(value)
    return found if isinstance(found, str) else None
