"""Label images of an OME-Zarr image: where they lie, and the list of them that is kept there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zarr

from tilenet.errors import InvalidData, StoreFailed, UnreadableVolume
from tilenet.volumes.layout import attributes_of
from tilenet.volumes.stores import (
    RemoteStore,
    default_buffer_prototype,
    is_remote,
    local_path,
    make_store,
    open_node,
    sync,
    write_durably,
)
from tilenet.volumes.writability import MAKE_WRITABLE

#: The group of an image's label images, and the key of its list.
LABELS, KEY = "labels", "zarr.json"

#: Version of OME-Zarr that label images are written in; a hierarchy is of one.
VERSION = "0.5"

#: Times that a list is extended which others extend too.
ATTEMPTS = 20

#: Hundredths of a second that a list on a disk is waited for.
LOCK_TRIES = 1000

_AGAIN = "Run the same command again"


def image_of(output: str) -> str | None:
    """Name the OME-Zarr image that an output would be a label image of.

    Parameters
    ----------
    output : str, path or URL

    Returns
    -------
    str or None
        Of IMAGE/labels/NAME the first part, where an image is there.
    """
    place = output if is_remote(output) else str(local_path(output))
    image, *rest = place.rstrip("/").rsplit("/", 2)
    if len(rest) < 2 or rest[0] != LABELS or (is_remote(output) and "://" not in image):
        return None
    group = _group(image or "/")
    return None if group is None or "multiscales" not in _ome(image, group) else image


def check_label_image(output: str) -> str | None:
    """Refuse an output within an image's labels that could be no legal label image.

    Parameters
    ----------
    output : str, path or URL

    Returns
    -------
    str or None
        The image, as :func:`image_of` names it.
    """
    image = image_of(output)
    if image is None:
        return None
    what, name = f"Output {output}", _name(output)
    group = open_node(image)
    version = _ome(image, group).get("version") if isinstance(group, zarr.Group) else None
    if group.metadata.zarr_format != 3 or not str(version).startswith(VERSION):
        problem = f"would be OME-Zarr {VERSION} (Zarr v3) within an image of another version"
        cure = "Choose an output beside the image, or convert the image with 'tilenet ingest'."
        raise InvalidData(what, problem, cure)
    if name == KEY or name.startswith((".", "__")):
        raise InvalidData(what, f"{name} names no node of Zarr", "Choose another name.")
    labels = _group(image, LABELS)
    if labels is not None and labels.metadata.zarr_format != 3:
        problem = f"{image}/{LABELS} is of Zarr v2, and the image of Zarr v3"
        raise InvalidData(
            what, problem, "Convert the labels, or choose an output beside the image."
        )
    place = f"{image}/{LABELS}"
    _extended(place, sync(_content(place)), name)
    return image


def list_label_image(output: str) -> None:
    """Add an output to its image's list of label images; nothing where it is none.

    What others wrote there stays, also where they write at the same time.

    Parameters
    ----------
    output : str, path or URL
    """
    image = image_of(output)
    if image is None:
        return
    place, name = f"{image}/{LABELS}", _name(output)
    if not is_remote(place):
        try:
            _extend_file(local_path(place) / KEY, place, name)
        except OSError as error:
            problem = f"cannot be written: {error.strerror or error}"
            raise UnreadableVolume(f"{place}/{KEY}", problem, MAKE_WRITABLE) from error
        return
    for _ in range(ATTEMPTS):
        if sync(_extend(place, name)):
            return
    raise StoreFailed(place, "is changed by others again and again", _AGAIN)


def label_images(location: str) -> tuple[str, ...]:
    """List the label images of an image, or of a group of labels.

    Parameters
    ----------
    location : str, path or URL

    Returns
    -------
    tuple of str
        Names; none where there are none, or there is no image.
    """
    for path in ("", LABELS):
        group = _group(location, path)
        names = None if group is None else _ome(location, group).get(LABELS)
        if isinstance(names, list):
            below = (f"{path}/{name}".lstrip("/") for name in names)
            there = [_group(location, each) is not None for each in below]
            return tuple(str(name) for name, found in zip(names, there, strict=True) if found)
    return ()


def _name(output: str) -> str:
    place = output if is_remote(output) else str(local_path(output))
    return place.rstrip("/").rpartition("/")[2]


def _group(location: str, path: str = "") -> zarr.Group | None:
    try:
        node = open_node(location, path)
    except UnreadableVolume:
        return None
    return node if isinstance(node, zarr.Group) else None


def _ome(location: str, group: zarr.Group) -> Mapping[str, Any]:
    attributes = attributes_of(location, group)
    found = attributes.get("ome", attributes)
    return found if isinstance(found, Mapping) else {}


def _extended(place: str, raw: bytes | None, name: str) -> bytes | None:
    # The metadata of the group with one name more; None where it is there.
    try:
        metadata: Any = {"zarr_format": 3, "node_type": "group"} if raw is None else json.loads(raw)
        attributes = metadata.setdefault("attributes", {})
        names = attributes.setdefault("ome", {"version": VERSION}).setdefault(LABELS, [])
        if metadata["node_type"] != "group" or LABELS in attributes or not isinstance(names, list):
            raise ValueError
    except (AttributeError, KeyError, ValueError) as error:
        problem = "has metadata that are not of a group of label images"
        raise UnreadableVolume(place, problem, f"Mend its {KEY}") from error
    if name in names:
        return None
    names.append(name)
    # What it says of the members is no longer true; without it they are looked for.
    metadata.pop("consolidated_metadata", None)
    return json.dumps(metadata, indent=2).encode()


def _extend_file(path: Path, place: str, name: str) -> None:
    with _alone(path.parent):
        new = _extended(place, path.read_bytes() if path.exists() else None, name)
        if new is not None:
            write_durably(path, new)


async def _content(place: str) -> bytes | None:
    try:
        found = await make_store(place).get(KEY, default_buffer_prototype())
    except FileNotFoundError:  # nor is the folder there
        return None
    return None if found is None else found.to_bytes()


async def _extend(place: str, name: str) -> bool:
    # False where another writer came in between.
    store = make_store(place, writable=True)
    if isinstance(store, RemoteStore):
        raw, tag = await store.tagged(KEY)
        new = _extended(place, raw, name)
        if new is None:
            return True
        return await (store.create(KEY, new) if raw is None else store.replace(KEY, new, tag))
    new = _extended(place, await _content(place), name)
    if new is not None:
        await store.set(KEY, default_buffer_prototype().buffer.from_bytes(new))
    return True


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    # One of us at a time, where the file system can say so; it takes milliseconds.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)
