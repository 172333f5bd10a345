"""Creating volumes: OME-Zarr 0.5, whole under their name or not there at all."""

from __future__ import annotations

import glob
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import MemoryStore

from tilenet.errors import OutputExists, UnreadableVolume
from tilenet.geometry import ZYX
from tilenet.volumes import codecs
from tilenet.volumes.ome_metadata import image_attributes
from tilenet.volumes.provenance import CREATION
from tilenet.volumes.stores import (
    PARTIAL,
    RemoteStore,
    default_buffer_prototype,
    holds_other_than,
    is_remote,
    local_path,
    make_store,
    open_node,
    sync,
    sync_folder,
)

#: Seconds after which a folder that was to become a volume is taken for left behind.
ORPHAN_SECONDS = 3600

#: Keys of a Zarr's root, and the ending of the other metadata, of both formats.
ROOT = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")

#: What a creation leaves in an object store when it is killed: no volume yet.
LEFT_BEHIND = ("0/zarr.json",)

#: Key that makes it one.
GROUP = "zarr.json"

_BEGUN = "being created by another run, or was by one that was killed"


@dataclass(frozen=True, kw_only=True)
class NewVolume:
    """What a volume to be created is like.

    Parameters
    ----------
    shape : tuple of int, voxels, (z, y, x)
    dtype : str
    chunk, shard : tuple of int, voxels, (z, y, x)
        A shard is whole chunks.
    voxel_size : tuple of float or None, nanometres, (z, y, x)
    translation : tuple of float, optional
        Position of the first voxel, nanometres, (z, y, x).
    channels : tuple of str, optional
        Channel names; given, the array is (c, z, y, x), each channel in shards of its own.
    codec : str
        See :data:`tilenet.volumes.CODECS`.
    label_image : bool
        Whether it lies among the labels of an OME-Zarr image, and says so.
    attributes : mapping
        What is stored under "tilenet".
    """

    shape: ZYX
    dtype: str
    chunk: ZYX
    shard: ZYX
    voxel_size: tuple[float, float, float] | None = None
    translation: tuple[float, float, float] | None = None
    channels: tuple[str, ...] | None = None
    codec: str = "zstd"
    label_image: bool = False
    attributes: Mapping[str, Any]


def create_volume(location: str, new: NewVolume, *, overwrite: bool = False) -> str:
    """Create an empty OME-Zarr 0.5 volume with one level, "0".

    Parameters
    ----------
    location : str, path or URL
    new : NewVolume
    overwrite : bool
        Replace a Zarr that is there.

    Returns
    -------
    str
        Its creation id, random, stored with the attributes: no other volume at this path has it.

    Raises
    ------
    OutputExists
        When something is there and ``overwrite`` is false, or it is not Zarr at all.
    """
    creation = uuid.uuid4().hex
    new = replace(new, attributes={**new.attributes, CREATION: creation})
    found = describe_existing(location)
    replaceable = found is None or found.startswith("a Zarr")
    if found and not (overwrite and replaceable):
        raise OutputExists(location, found, replaceable)
    if is_remote(location):
        _create_remote(location, new, overwrite=overwrite)
        return creation
    # A local volume appears whole, under its name, by one rename; the old one goes the same way.
    target = local_path(location)
    for other in target.parent.glob(f"{glob.escape(target.name)}.*{PARTIAL}"):
        if _is_orphan(other):
            shutil.rmtree(other, ignore_errors=True)
    fresh = target.with_name(f"{target.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        _write_metadata(make_store(str(fresh), writable=True), target.name, new)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, OSError):
            raise _not_created(location, error) from error
        raise
    if found:
        old = target.with_name(f"{target.name}.{uuid.uuid4().hex}{PARTIAL}")
        target.rename(old)
        fresh.rename(target)
        sync_folder(target.parent)
        shutil.rmtree(old)
    else:
        _appear(fresh, target)
    return creation


def _not_created(location: str, error: OSError) -> UnreadableVolume:
    problem = f"cannot be created: {error.strerror or error}"
    return UnreadableVolume(location, problem, "Choose a place that can be written to")


def _is_orphan(folder: Path) -> bool:
    # Of a creation that was killed; another that goes on at the same time takes no second.
    try:
        return time.time() - folder.stat().st_mtime > ORPHAN_SECONDS
    except OSError:  # it is gone
        return False


def _appear(fresh: Path, target: Path) -> None:
    # Renaming onto a folder that holds something fails: of several creations one succeeds.
    try:
        fresh.rename(target)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        found = describe_existing(str(target))
        if found is None:
            raise _not_created(str(target), error) from error
        raise OutputExists(str(target), found) from error
    sync_folder(target.parent)


def _create_remote(location: str, new: NewVolume, *, overwrite: bool) -> None:
    # An object store knows no renaming. The group's metadata come last: without them there is no
    # volume, whatever else a killed creation has left.
    made, store = MemoryStore(), make_store(location, writable=True)
    _write_metadata(made, location.rstrip("/").rpartition("/")[2], new)

    async def publish() -> bool:
        if overwrite:
            await _remove_all(store)
        if isinstance(store, RemoteStore):
            return await _claim(store, *[_bytes_of(made, key) for key in (*LEFT_BEHIND, GROUP)])
        for key in (*LEFT_BEHIND, GROUP):
            await store.set(key, default_buffer_prototype().buffer.from_bytes(_bytes_of(made, key)))
        return True

    if not sync(publish()):
        raise OutputExists(location, describe_existing(location) or _BEGUN)


def _bytes_of(store: MemoryStore, key: str) -> bytes:
    value = store.get_sync(key)
    assert value is not None
    return value.to_bytes()


async def _claim(store: RemoteStore, array: bytes, group: bytes) -> bool:
    # Several creations may be here at the same time. The array's metadata are never replaced, for
    # the group's may follow them at any moment: what a killed creation has left serves one like
    # it, and makes way for --overwrite.
    (beside,) = LEFT_BEHIND
    if not await store.create(beside, array) and await store.content(beside) != array:
        return False
    if not await store.create(GROUP, group):
        return False
    if await store.content(beside) == array:
        return True
    # Another one that overwrites came in between. What is mixed is no volume.
    if await store.content(GROUP) == group:
        await store.delete(GROUP)
    return False


async def _remove_all(store: Store) -> None:
    # In this order, so that until the end it is the Zarr that was to be replaced.
    keys = sorted([key async for key in store.list_prefix("")])
    inner = [key for key in keys if key not in ROOT]
    metadata = [key for key in inner if key.rpartition("/")[2] in ROOT]
    await _remove(store, set(inner) - set(metadata))
    await _remove(store, metadata)
    await _remove(store, set(keys) - set(inner))


async def _remove(store: Store, keys: Iterable[str]) -> None:
    if isinstance(store, RemoteStore):
        await store.remove(sorted(keys))
        return
    for key in keys:
        await store.delete(key)


def _write_metadata(store: Store, called: str, new: NewVolume) -> None:
    leading = () if new.channels is None else (1,)
    channels = () if new.channels is None else (len(new.channels),)
    compressors = codecs.compressors(new.codec)  # an unknown codec is refused before any file
    group = zarr.create_group(store)
    group.create_array(
        "0",
        shape=(*channels, *new.shape),
        dtype=new.dtype,
        chunks=(*leading, *new.chunk),
        shards=(*leading, *new.shard),
        compressors=compressors,
        fill_value=0,
        dimension_names=[*("c" * len(channels)), "z", "y", "x"],
    )
    brightest = 255.0 if np.dtype(new.dtype).kind in "ui" else 1.0
    ome = image_attributes(
        called.split(".")[0],
        new.voxel_size,
        translation=new.translation,
        channels=new.channels,
        brightest=brightest,
    )
    if new.label_image:
        ome["ome"]["image-label"] = {"version": "0.5", "source": {"image": "../../"}}
    group.attrs.put({**ome, "tilenet": dict(new.attributes)})


def describe_existing(location: str) -> str | None:
    """Say what lies at a location where an output is to go.

    Parameters
    ----------
    location : str, path or URL

    Returns
    -------
    str or None
        A phrase such as "a Zarr volume"; None when there is nothing.
    """
    if not is_remote(location):
        path = local_path(location)
        try:
            if not path.exists():
                return None
            if not path.is_dir():
                return "a file"
            if not any(path.iterdir()):
                return "an empty folder"
        except OSError as error:
            raise UnreadableVolume.unreachable(location, error) from error
    try:
        node = open_node(location)
    except UnreadableVolume:
        if is_remote(location) and not holds_other_than(location, LEFT_BEHIND):
            return None
        return "a folder that is not Zarr"
    return "a Zarr array" if isinstance(node, zarr.Array) else "a Zarr group"


def replace_attributes(location: str, attributes: Mapping[str, Any]) -> None:
    """Replace what a volume of ours stores under "tilenet", at once.

    Parameters
    ----------
    location : str, path or URL of the group
    attributes : mapping
        JSON values; the creation id stays as it is.
    """
    group = zarr.open_group(make_store(location, writable=True), mode="r+")
    creation = _creation(group)
    kept = {} if creation is None else {CREATION: creation}
    group.attrs.put({**group.attrs.asdict(), "tilenet": {**attributes, **kept}})


def stored_creation(location: str) -> str | None:
    """Read the creation id of the volume that lies at a location now, if one with an id does."""
    try:
        group = zarr.open_group(make_store(location), mode="r", zarr_format=3)
    except FileNotFoundError:
        return None
    return _creation(group)


def _creation(group: zarr.Group) -> str | None:
    ours = group.attrs.asdict().get("tilenet")
    found = ours.get(CREATION) if isinstance(ours, Mapping) else None
    return None if found is None else str(found)
