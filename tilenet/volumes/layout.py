"""Which array of a Zarr is meant, and what its axes are.

The metadata decide where they say something; the caller decides where they say nothing or
several things; nothing is guessed beyond "the finest level" and "three axes are z, y, x".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import zarr
from natsort import natsorted

from tilenet.errors import AmbiguousVolume, StoreFailed, UnreadableVolume, one_line
from tilenet.volumes.axis_map import AxisMap
from tilenet.volumes.listing import lattice
from tilenet.volumes.ome_metadata import Image, read_image
from tilenet.volumes.stores import is_remote, local_path, open_node, recognise

#: Stored objects of an array that are believed: a thousand petabytes in chunks of a megabyte.
MOST_OBJECTS = 10**12

_DEFAULT_AXES = {2: "yx", 3: "zyx"}


@dataclass(frozen=True, slots=True)
class Layout(AxisMap):
    """What the axes of a stored array mean."""

    # voxel_size, translation: nanometres, (z, y, x).
    voxel_size: tuple[float, float, float] | None = None
    translation: tuple[float, float, float] | None = None
    level: str | None = None  # path of the array below its group
    # Path of every pyramid level to its voxel size, nanometres (z, y, x).
    levels: Mapping[str, tuple[float, float, float] | None] | None = None
    # What was assumed where the metadata are not as they should be, a sentence each, for people.
    notes: tuple[str, ...] = ()
    channel_names: tuple[str, ...] = ()  # of all channels, where the metadata state them


@dataclass(frozen=True, slots=True)
class Found:
    """An array, what its axes mean, and the provenance stored beside it."""

    array: zarr.Array[Any]  # the stored array
    layout: Layout  # what its axes mean
    attributes: Mapping[str, Any]  # the group's attributes under "tilenet"


def find_layout(
    location: str, *, level: str | None, channel: int | None, axes: str | None
) -> Found:
    node = _open(location)
    if isinstance(node, zarr.Array):
        if level is not None:
            cure = "Leave out --level, or give the path of the group"
            raise UnreadableVolume(location, f"is one array and has no level {level!r}", cure)
        image, path, attributes = _parent_image(location)
        found = _found(location, node, path, image=image, axes=axes, channel=channel)
        return replace(found, attributes=attributes)
    return _found_in_group(location, node, level, axes=axes, channel=channel)


def _open(location: str) -> zarr.Array[Any] | zarr.Group:
    try:
        return open_node(location)
    except UnreadableVolume as error:
        if (kind := recognise(location)) is None:
            raise
        problem = f"is not a Zarr array or group, but {kind.name}"
        raise UnreadableVolume(location, problem, kind.cure) from error


def _parent_image(location: str) -> tuple[Image | None, str | None, Mapping[str, Any]]:
    # em.zarr/s1: the group above knows the axes, the voxel size and the provenance of its level s1.
    nothing = None, None, dict[str, Any]()
    if not is_remote(location):
        location = str(local_path(location))  # "0" alone has a parent too
    parent, _, name = location.rstrip("/").rpartition("/")
    if not parent:
        return nothing
    try:
        node = open_node(parent)
    except UnreadableVolume:
        return nothing
    if not isinstance(node, zarr.Group):
        return nothing
    try:
        attributes = attributes_of(parent, node)
        image = read_image(parent, attributes)
    except (UnreadableVolume, AmbiguousVolume):  # whose cure is the path of an array
        return nothing
    if image is None or name not in [entry.path for entry in image.levels]:
        return nothing
    return image, name, _mapping(attributes.get("tilenet"))


def _found_in_group(
    location: str,
    group: zarr.Group,
    level: str | None,
    *,
    axes: str | None,
    channel: int | None,
) -> Found:
    attributes = attributes_of(location, group)
    image = read_image(location, attributes)
    if image is not None:
        path = _choose_level(location, [entry.path for entry in image.levels], level)
    else:
        series = _only_series(location, group, attributes)
        if series is not None:
            below = f"{location.rstrip('/')}/{series}"
            return find_layout(below, level=level, channel=channel, axes=axes)
        path = _choose_array(location, _names(location, group.array_keys), level)
    array = open_node(location, path)
    if not isinstance(array, zarr.Array):
        problem = f"its metadata name a level {path!r} that is not an array"
        raise UnreadableVolume(location, problem, "Mend the group, or give the path of an array")
    found = _found(location, array, path, image=image, axes=axes, channel=channel)
    return replace(found, attributes=_mapping(attributes.get("tilenet")))


def attributes_of(location: str, node: zarr.Array[Any] | zarr.Group) -> dict[str, Any]:
    """Read the attributes of a node.

    Parameters
    ----------
    location : str, path or URL, for the message
    node : zarr.Array or zarr.Group

    Returns
    -------
    dict
        JSON values.
    """
    try:
        return node.attrs.asdict()
    except (ValueError, TypeError) as error:
        problem = "has attributes that are not names and values"
        raise UnreadableVolume(location, problem, "Mend its metadata, which are damaged") from error


def _names(location: str, keys: Callable[[], Iterator[str]]) -> list[str]:
    try:
        return natsorted(keys())
    except StoreFailed:
        raise
    except Exception as error:  # whatever the metadata of one of them make Zarr raise
        problem = f"holds something whose Zarr metadata cannot be read: {one_line(error)}"
        raise UnreadableVolume(
            location, problem, "Mend it, or give the path of an array"
        ) from error


def _only_series(location: str, group: zarr.Group, attributes: Mapping[str, Any]) -> str | None:
    # bioformats2raw wraps its images, called series, into one more group.
    ome = _mapping(attributes.get("ome"))
    if "bioformats2raw.layout" not in attributes and "bioformats2raw.layout" not in ome:
        return None
    series = [name for name in _names(location, group.group_keys) if name.isdigit()]
    if not series:
        return None
    if len(series) == 1:
        return series[0]
    cure = f"Give one of them, for example {location.rstrip('/')}/0"
    raise AmbiguousVolume(location, "holds several image series", tuple(series), cure)


def _choose_level(location: str, paths: Sequence[str], level: str | None) -> str:
    if level is None:
        return paths[0]
    if level in paths:
        return level
    if level.isdigit() and int(level) < len(paths):
        return paths[int(level)]
    cure = "Choose one of them with --level"
    raise AmbiguousVolume(location, f"has no level {level!r}", tuple(paths), cure)


def _choose_array(location: str, names: Sequence[str], level: str | None) -> str:
    if not names:
        cure = "Give the path of an array, or of a group with OME-Zarr metadata"
        raise UnreadableVolume(location, "is a Zarr group without an image", cure)
    if level is not None:
        return _choose_level(location, names, level)
    if len(names) == 1:
        return names[0]
    if "s0" in names:  # the N5 way: s0 is the finest of s0, s1, s2 ...
        return "s0"
    cure = "Choose one of them with --level"
    raise AmbiguousVolume(location, "holds several arrays and no metadata", tuple(names), cure)


def _found(
    location: str,
    array: zarr.Array[Any],
    path: str | None,
    *,
    image: Image | None,
    axes: str | None,
    channel: int | None,
) -> Found:
    names = _axes(location, array, image, axes)
    sizes = dict(zip(names, array.shape, strict=True))
    if sizes.get("t", 1) != 1:
        cure = "Store one time point per volume"
        raise UnreadableVolume(location, f"has {sizes['t']} time points", cure)
    if any(size == 0 for size in array.shape):
        cure = "Give a volume that has voxels"
        raise UnreadableVolume(location, f"is empty: shape {array.shape}", cure)
    if min(*array.chunks, *(array.shards or ())) < 1:
        problem = f"claims chunks of {array.chunks}"
        raise UnreadableVolume(location, problem, "Mend its metadata, which are damaged")
    if math.prod(lattice(array)) > MOST_OBJECTS:
        problem = f"claims the shape {array.shape}, in more objects than any store holds"
        raise UnreadableVolume(location, problem, "Mend its metadata, which are damaged")
    if array.dtype.kind not in "uifb":
        cure = "Store whole numbers or floating-point numbers"
        raise UnreadableVolume(location, f"holds values of type {array.dtype}", cure)
    layout = Layout(names, _channel(location, sizes.get("c"), channel), level=path)
    if image is not None and path is not None:
        layout = _with_sizes(layout, image, path)
    return Found(array, layout, {})


def _axes(
    location: str, array: zarr.Array[Any], image: Image | None, given: str | None
) -> tuple[str, ...]:
    if not 2 <= array.ndim <= 5:
        problem = f"has {array.ndim} axes (shape {array.shape}), but a volume has 2 to 5"
        raise UnreadableVolume(location, problem, "Store it as (y, x), (z, y, x) or (c, z, y, x)")
    if given is not None:
        names = tuple(given.lower())
    elif image is not None:
        names = _letters(image.axes)
    else:
        names = _stored_names(location, array) or tuple(_DEFAULT_AXES.get(array.ndim, ""))
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
    return names


def _stored_names(location: str, array: zarr.Array[Any]) -> tuple[str, ...] | None:
    names = getattr(array.metadata, "dimension_names", None)
    if names is None:  # xarray's convention for Zarr v2
        names = attributes_of(location, array).get("_ARRAY_DIMENSIONS")
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        return None
    letters = _letters(names)
    return letters if set(letters) <= set("tczyx") and len(set(letters)) == len(letters) else None


def _letters(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.lower()[:1] for name in names)


def _channel(location: str, count: int | None, channel: int | None) -> int | None:
    if channel is None:
        return 0 if count == 1 else None
    if not 0 <= channel < (count or 1):
        choices = tuple(str(i) for i in range(count or 1))
        cure = "Choose one of them with --channel"
        raise AmbiguousVolume(location, f"has no channel {channel}", choices, cure)
    return channel if count is not None else None


def _with_sizes(layout: Layout, image: Image, path: str) -> Layout:
    sizes = {entry.path: _zyx_nm(image.nanometres(entry.scale)) for entry in image.levels}
    level = next(entry for entry in image.levels if entry.path == path)
    translation = None
    if level.translation is not None:
        translation = _zyx_nm(image.nanometres(level.translation), missing=0.0)
    return replace(
        layout, voxel_size=sizes[path], translation=translation, levels=sizes,
        channel_names=image.channel_names,
    )  # fmt: skip


def _zyx_nm(
    by_axis: Mapping[str, float], missing: float = 1.0
) -> tuple[float, float, float] | None:
    named = dict(zip(_letters(by_axis), by_axis.values(), strict=True))
    if "y" not in named or "x" not in named:
        return None
    # A single section has no size along z of its own; any serves.
    return named.get("z", missing), named["y"], named["x"]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
