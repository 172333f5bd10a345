"""Groups that are no image: what lies inside, as paths that can be given."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import zarr
from natsort import natsorted

from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.volumes.attribute_values import mapping
from tilenet.volumes.stores import in_turn, open_node

#: Paths that a message lists, and names that are looked at for them.
LISTED, LOOKED = 12, 200

#: What stands for the others.
MORE = "and more"


def refuse_collection(location: str, attributes: Mapping[str, Any]) -> None:
    """Refuse a group whose metadata say that it holds images, and list them."""
    ome = mapping(attributes.get("ome", attributes))
    labels = ome.get("labels")
    # Any attributes may have that name; those of version 0.4 do not say that they are OME's.
    if isinstance(labels, list) and ("ome" in attributes or _lies_below(location, labels[:1])):
        _refuse_several(location, "is a group of label images", map(str, labels))
    if (wells := _paths(ome, "plate", "wells")) is not None:
        # A field has one more metadata file to be read for each well.
        fields = (_fields(location, well) for well in wells)
        _refuse_several(location, "is a plate of images", itertools.chain.from_iterable(fields))
    if (images := _paths(ome, "well", "images")) is not None:
        _refuse_several(location, "is a well of images", images)


def refuse_group_of_images(location: str, group: zarr.Group) -> None:
    """Refuse a group without an image of its own in favour of those below it, if there are any."""
    found = list(itertools.islice(_images_below(location, group), LISTED + 1))
    if found:
        _refuse_several(
            location, "is a Zarr group without an image of its own, above others", found
        )


def only_series(
    location: str, attributes: Mapping[str, Any], names: Callable[[], list[str]]
) -> str | None:
    """Name the only image of a group of bioformats2raw's, which wraps images into one more group.

    ``names`` lists the groups below it.
    """
    if "bioformats2raw.layout" not in {*attributes, *mapping(attributes.get("ome"))}:
        return None
    series = _stated_series(location)
    if series is None:
        series = [name for name in names() if name.isdigit()]
    if len(series) > 1:
        _refuse_several(location, "holds several image series", series)
    return series[0] if series else None


def _stated_series(location: str) -> Sequence[str] | None:
    try:
        ome = open_node(location, "OME")
    except UnreadableVolume:
        return None
    values = ome.attrs.asdict()
    series = mapping(values.get("ome", values)).get("series")
    return [str(name) for name in series] if isinstance(series, list) and series else None


def _refuse_several(location: str, what: str, paths: Iterable[str]) -> NoReturn:
    """Refuse a group of images, of which a message lists the first."""
    some = list(itertools.islice(paths, LISTED + 1))
    if not some:
        cure = "Give the path of an image"
        raise UnreadableVolume(location, f"{what}, and its metadata list none", cure)
    more = (MORE,) if len(some) > LISTED else ()
    cure = f"Give one of them, for example {location.rstrip('/')}/{some[0]}"
    raise AmbiguousVolume(location, what, (*some[:LISTED], *more), cure, are_volumes=True)


def _paths(ome: Mapping[str, Any], kind: str, name: str) -> list[str] | None:
    if kind not in ome:
        return None
    entries = mapping(ome[kind]).get(name)
    entries = entries if isinstance(entries, list) else []
    return [entry["path"] for entry in map(mapping, entries) if isinstance(entry.get("path"), str)]


def _fields(location: str, well: str) -> list[str]:
    try:
        values = open_node(location, well).attrs.asdict()
    except UnreadableVolume:
        return [well]
    images = _paths(mapping(values.get("ome", values)), "well", "images")
    return [f"{well}/{image}" for image in images or ()] or [well]


def _images_below(location: str, group: zarr.Group) -> Iterable[str]:
    # Level by level; a group of millions, or of groups in groups, is looked at in part.
    waiting, left = deque([("", group)]), LOOKED
    while waiting:
        path, parent = waiting.popleft()
        for name in natsorted(itertools.islice(in_turn(parent.store.list_dir(parent.path)), left)):
            below = f"{path}/{name}".lstrip("/")
            left -= 1
            node = _node(location, below)
            if isinstance(node, zarr.Array) or _is_image(node):
                yield below
            elif node is not None:
                waiting.append((below, node))


def _node(location: str, path: str) -> zarr.Array[Any] | zarr.Group | None:
    if path.rpartition("/")[2].startswith((".", "zarr.json")):
        return None
    try:
        return open_node(location, path)
    except UnreadableVolume:
        return None


def _is_image(node: zarr.Group | None) -> bool:
    # Of arrays without metadata s0 is the finest, so that the group will do.
    if node is None:
        return False
    values = node.attrs.asdict()
    return "multiscales" in mapping(values.get("ome", values)) or _node_is_array(node, "s0")


def _node_is_array(group: zarr.Group, name: str) -> bool:
    return isinstance(group.get(name), zarr.Array)


def _lies_below(location: str, names: Sequence[Any]) -> bool:
    return any(_node(location, str(name)) is not None for name in names)
