"""Which array of a Zarr is meant, and what its axes are.

The metadata decide where they say something; the caller decides where they say nothing or
several things; nothing is guessed beyond "the finest level" and "three axes are z, y, x".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import zarr
from natsort import natsorted

from tilenet.errors import (
    AmbiguousVolume,
    StoreFailed,
    UnreadableVolume,
    one_line,
)
from tilenet.geometry import Box, zyx
from tilenet.volumes.array_axes import dimension_letters, is_image_like, name_axes
from tilenet.volumes.attribute_values import mapping
from tilenet.volumes.axis_map import AxisMap
from tilenet.volumes.collections import only_series, refuse_collection, refuse_group_of_images
from tilenet.volumes.listing import lattice
from tilenet.volumes.ome_image import Image, read_image
from tilenet.volumes.stated import StatedGeometry, stated_geometry
from tilenet.volumes.stated_axes import group_attributes
from tilenet.volumes.stores import is_remote, local_path, open_node, recognise
from tilenet.volumes.webknossos import Layer, find_layer

#: Stored objects of an array that are believed: a thousand petabytes in chunks of a megabyte.
MOST_OBJECTS = 10**12


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
    crop: Box | None = None  # the part of the stored array that is the volume; None: all of it

    def index(self, box: Box) -> tuple[slice, ...]:
        if self.crop is not None:
            box = box.relative_to(zyx(-n for n in self.crop.start))
        return AxisMap.index(self, box)


@dataclass(frozen=True, slots=True)
class Found:
    """An array, what its axes mean, and the provenance stored beside it."""

    array: zarr.Array[Any]  # the stored array
    layout: Layout  # what its axes mean
    attributes: Mapping[str, Any]  # the group's attributes under "tilenet"


def find_layout(
    location: str, *, level: str | None, channel: int | None, axes: str | None
) -> Found:
    if not is_remote(location) and (layer := find_layer(location)):
        return _found_layer(location, layer, level, axes=axes, channel=channel)
    found = _found_zarr(location, level, axes=axes, channel=channel)
    # Behind a URL it is looked for only where the axes are those of WEBKNOSSOS.
    names = found.layout.axes
    is_theirs = axes is None and names.index("x") < names.index("y")
    if is_theirs and is_remote(location) and (layer := find_layer(location)):
        return _found_layer(location, layer, level, axes=axes, channel=channel)
    return found


def _found_layer(
    location: str, layer: Layer, level: str | None, *, axes: str | None, channel: int | None
) -> Found:
    mags = {mag.name: mag for mag in layer.magnifications}
    if layer.chosen is not None:
        _refuse_level(location, level)
    mag = layer.chosen or mags[_choose_level(location, list(mags), level)]
    array = open_node(mag.location)
    if not isinstance(array, zarr.Array):
        problem = f"its magnification {mag.name} is not an array"
        raise UnreadableVolume(location, problem, "Mend the dataset, or give the path of an array")
    order = mag.axes or dimension_letters(array)[0]
    letters = axes or "".join(order or "cxyz"[-array.ndim :])
    only = mag.channel if channel is None else channel
    found = _found(location, array, mag.name, image=None, beside={}, axes=letters, channel=only)
    named = name_axes(location, array, of_image=order, stated=StatedGeometry(), given=letters)
    if named.as_stated:
        facts = layer.facts(mag, found.layout.along_zyx(array.shape))
    else:  # the box, the sizes and the position are stated by the names of the axes
        whole = "All of its array is read, also what fills it up around the layer."
        sizes = dict.fromkeys(each.name for each in layer.magnifications)
        facts = {"voxel_size": None, "translation": None, "levels": sizes}
        facts["notes"] = (*named.notes, whole)
    return replace(found, layout=replace(found.layout, **facts))


def _refuse_level(location: str, level: str | None) -> None:
    if level is not None:
        cure = "Leave out --level, or give the path of the group"
        raise UnreadableVolume(location, f"is one array and has no level {level!r}", cure)


def _found_zarr(
    location: str, level: str | None, *, axes: str | None, channel: int | None
) -> Found:
    node = _open(location)
    if isinstance(node, zarr.Array):
        _refuse_level(location, level)
        image, path, attributes = _parent_image(location, node)
        return _found(
            location, node, path, image=image, beside=attributes, axes=axes, channel=channel
        )
    return _found_in_group(location, node, level, axes=axes, channel=channel)


def _open(location: str) -> zarr.Array[Any] | zarr.Group:
    try:
        return open_node(location)
    except UnreadableVolume as error:
        if (kind := recognise(location)) is None:
            raise
        problem = f"is not a Zarr array or group, but {kind.name}"
        raise UnreadableVolume(location, problem, kind.cure) from error


def _parent_image(
    location: str, array: zarr.Array[Any]
) -> tuple[Image | None, str | None, Mapping[str, Any]]:
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
        image = read_image(parent, attributes, lambda _: array.ndim)
    except (UnreadableVolume, AmbiguousVolume):  # whose cure is the path of an array
        return nothing
    if image is None:
        return None, None, group_attributes(attributes, name, is_only=lambda: _is_only(node, name))
    if name not in [entry.path for entry in image.levels]:
        return nothing
    return image, name, attributes


def _found_in_group(
    location: str,
    group: zarr.Group,
    level: str | None,
    *,
    axes: str | None,
    channel: int | None,
) -> Found:
    attributes = attributes_of(location, group)
    beside: Mapping[str, Any] = attributes
    notes: tuple[str, ...] = ()
    image = read_image(location, attributes, lambda path: _array(location, path).ndim)
    if image is not None:
        path = _choose_level(location, [entry.path for entry in image.levels], level)
    else:
        series = only_series(location, attributes, lambda: _names(location, group.group_keys))
        if series is not None:
            below = f"{location.rstrip('/')}/{series}"
            return find_layout(below, level=level, channel=channel, axes=axes)
        refuse_collection(location, attributes)
        names = _names(location, group.array_keys)
        if not names:
            refuse_group_of_images(location, group)
        path, notes = _choose_array(location, names, level)
        beside = group_attributes(attributes, path, is_only=lambda: len(names) == 1)
    array = _array(location, path)
    found = _found(location, array, path, image=image, beside=beside, axes=axes, channel=channel)
    layout = replace(found.layout, notes=(*notes, *found.layout.notes))
    return replace(found, layout=layout, attributes=mapping(attributes.get("tilenet")))


def _array(location: str, path: str) -> zarr.Array[Any]:
    array = open_node(location, path)
    if not isinstance(array, zarr.Array):
        problem = f"its metadata name a level {path!r} that is not an array"
        raise UnreadableVolume(location, problem, "Mend the group, or give the path of an array")
    return array


def _is_only(group: zarr.Group, name: str) -> bool:
    try:
        return list(group.array_keys()) == [name]
    except Exception:  # behind plain HTTP nothing is listed, and neighbours may be damaged
        return False


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


def _choose_level(location: str, paths: Sequence[str], level: str | None) -> str:
    if level is None:
        return paths[0]
    if level in paths:
        return level
    if level.isdigit() and int(level) < len(paths):
        return paths[int(level)]
    cure = "Choose one of them with --level"
    raise AmbiguousVolume(location, f"has no level {level!r}", tuple(paths), cure)


def _choose_array(
    location: str, names: Sequence[str], level: str | None
) -> tuple[str, tuple[str, ...]]:
    if not names:
        cure = "Give the path of an array, or of a group with OME-Zarr metadata"
        raise UnreadableVolume(location, "is a Zarr group without an image", cure)
    if level is not None or len(names) == 1:
        return _choose_level(location, names, level), ()
    if "s0" in names:  # the N5 way: s0 is the finest of s0, s1, s2 ...
        return "s0", ()
    arrays = {name: _array(location, name) for name in names}
    images = [n for n, array in arrays.items() if is_image_like(array.shape, array.dtype)]
    if len(images) == 1:  # beside the coordinates of xarray, or tables
        note = f"{images[0]} is read, the only image among {len(names)} arrays."
        return images[0], (note,)
    cure = "Choose one of them with --level"
    problem = "holds several arrays and no metadata"
    raise AmbiguousVolume(location, problem, tuple(images or names), cure, are_volumes=True)


def _found(
    location: str,
    array: zarr.Array[Any],
    path: str | None,
    *,
    image: Image | None,
    beside: Mapping[str, Any],
    axes: str | None,
    channel: int | None,
) -> Found:
    own = attributes_of(location, array)
    of_image = image.axes if image is not None else None
    # Of an image it is the image that speaks.
    group = beside if image is None else None
    stated = stated_geometry(own, array.ndim, dimension_letters(array)[0], group=group)
    named = name_axes(location, array, of_image=of_image, stated=stated, given=axes)
    names = named.letters
    # Again, for values are listed in the order of the axes.
    stated = stated_geometry(own, array.ndim, names, group=group)
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
    layout = _with_sizes(layout, image, stated)
    if not named.as_stated:
        layout = replace(layout, voxel_size=None, translation=None)
    layout = replace(layout, notes=(*named.notes, *layout.notes))
    provenance = mapping(beside.get("tilenet")) if image is not None else {}
    return Found(array, layout, provenance)


def _channel(location: str, count: int | None, channel: int | None) -> int | None:
    if channel is None:
        return 0 if count == 1 else None
    if not 0 <= channel < (count or 1):
        choices = tuple(str(i) for i in range(count or 1))
        cure = "Choose one of them with --channel"
        raise AmbiguousVolume(location, f"has no channel {channel}", choices, cure)
    return channel if count is not None else None


def _with_sizes(layout: Layout, image: Image | None, stated: StatedGeometry) -> Layout:
    if image is None or layout.level is None:
        place = stated.translation
        return replace(layout, voxel_size=stated.voxel_size, translation=place, notes=stated.notes)
    level = next(entry for entry in image.levels if entry.path == layout.level)
    sizes = {entry.path: entry.voxel_size for entry in image.levels}
    size, place, notes = level.voxel_size, level.translation, (*image.notes, *level.notes)
    if size is None and stated.voxel_size is not None:
        size, place = stated.voxel_size, stated.translation
        sizes[layout.level] = size
        notes = (*image.notes, *stated.notes, "Its voxel size is read from its array's attributes.")
    return replace(
        layout, voxel_size=size, translation=place, levels=sizes, notes=notes,
        channel_names=image.channel_names,
    )  # fmt: skip
