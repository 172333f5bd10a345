"""Stores and arrays: where Zarr touches a disk or an object store.

How a shard is written is part of correctness, because a block counts as done when its shards
exist: see :mod:`tilenet.volumes.stores.local_store` for disks and
:mod:`tilenet.volumes.stores.remote_store` for object stores.

Reading goes through ``zarrs``, which decodes outside the GIL. It must never write: it grows the
file under its final name, and skips shards that are all fill value.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numcodecs
import zarr
import zarr.errors
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec, ShardingCodec
from zarr.storage import FsspecStore, LocalStore

from tilenet.errors import StoreFailed, UnreadableVolume
from tilenet.volumes.stores.local_store import DurableStore
from tilenet.volumes.stores.remote_client import SCHEMES, scheme_of
from tilenet.volumes.stores.remote_store import RemoteStore, open_store
from tilenet.volumes.stores.urls import refuse_secrets
from tilenet.volumes.stores.zarr_names import default_buffer_prototype, python_pipeline, sync

#: Chunks in a shard at most: its index, 16 bytes for each, is read as a whole.
CHUNKS_PER_SHARD = 2**22

BLOSC = (numcodecs.Blosc, BloscCodec)

#: Sizes that are asked for at the same time.
REQUESTS = 64

_ZARRS = "zarrs.ZarrsCodecPipeline"
_ZARR_PYTHON = python_pipeline()

# zarr-python keeps its settings in one process-wide place; two threads must not open at once.
_settings_lock = threading.Lock()


def is_remote(location: str) -> bool:
    """Tell whether a location is a URL and not a local path.

    Parameters
    ----------
    location : str, path or URL

    Returns
    -------
    bool
        False for ``file://`` URLs too.
    """
    return "://" in location and not location.startswith("file://")


def local_path(location: str) -> Path:
    """Give the path of a local location.

    Parameters
    ----------
    location : str
        A path or a ``file://`` URL.

    Returns
    -------
    pathlib.Path
        Absolute, with symbolic links followed.

    Raises
    ------
    UnreadableVolume
        When links lead round in a circle.
    """
    if location.startswith("file://"):
        location = unquote(urlsplit(location).path)
    try:
        return Path(location).expanduser().resolve()
    except RuntimeError as error:  # a loop of links, or the home of nobody
        raise UnreadableVolume(location, f"leads nowhere: {error}", "Check the path") from error


def seen_from_anywhere(location: str) -> str:
    """Say a location so that a process in another folder means the same.

    Parameters
    ----------
    location : str, path or URL

    Returns
    -------
    str
        A local path is absolute; symbolic links stay, for another machine may have its own.
    """
    if "://" in location or not location:
        return location
    return str(Path(location).expanduser().absolute())


def make_store(location: str, *, writable: bool = False) -> Store:
    """Make the Zarr store of a location.

    Parameters
    ----------
    location : str, path or URL
    writable : bool

    Returns
    -------
    zarr.abc.store.Store
        A durable local store, an object store, or what fsspec makes of other URLs.
    """
    if not is_remote(location):
        path = local_path(location)
        return DurableStore(path) if writable else LocalStore(path, read_only=True)
    refuse_secrets(location)
    if scheme_of(location) in SCHEMES:
        return open_store(location, read_only=not writable)
    try:
        return FsspecStore.from_url(location, read_only=not writable)
    except (ValueError, ImportError) as error:
        cure = "Use s3, gs, az or http (tilenet[remote]), or install the library that it needs"
        raise UnreadableVolume(location, str(error).rstrip("."), cure) from error


def open_node(location: str, path: str = "") -> zarr.Array[Any] | zarr.Group:
    """Open an array or group for reading, decoded by ``zarrs`` where it can.

    Parameters
    ----------
    location : str, path or URL
    path : str, below the location

    Returns
    -------
    zarr.Array or zarr.Group
        Nothing of it is read yet.

    Raises
    ------
    UnreadableVolume
        When there is nothing, or nothing readable as Zarr.
    """
    store = make_store(location)
    files = "TIFF, PNG, HDF5 and NumPy files"
    cure = f"Give a Zarr array or group; 'tilenet ingest' makes one of {files}"
    where = f"{location.rstrip('/')}/{path}" if path else location
    try:
        if isinstance(store, LocalStore) and not store.root.exists():
            raise UnreadableVolume(where, "does not exist", "Check the path")
    except OSError as error:
        raise UnreadableVolume.unreachable(where, error) from error
    # Over a network zarrs asks for one chunk after another, and holds the GIL while it waits for
    # the shards' indices (measured: 6.3 s for four small shards, zarr-python 0.55 s).
    local = isinstance(store, LocalStore)
    for pipeline in (_ZARRS, _ZARR_PYTHON) if local else (_ZARR_PYTHON,):
        try:
            return _open_with(pipeline, store, path)
        except StoreFailed:
            raise
        except (FileNotFoundError, NotADirectoryError, zarr.errors.NodeNotFoundError) as error:
            if isinstance(store, RemoteStore) and store.can_list:
                holds_other_than(location, ())  # a bucket that does not exist says so only now
            raise UnreadableVolume(where, "is not a Zarr array or group", cure) from error
        except PermissionError as error:
            raise UnreadableVolume.unreachable(where, error) from error
        except Exception as error:
            # zarrs refuses codecs and data types that it lacks; zarr-python itself comes second.
            if pipeline == _ZARR_PYTHON:
                cure = "Mend them, or give another array or group"
                problem = f"has Zarr metadata that cannot be read: {error}"
                raise UnreadableVolume(where, problem, cure) from error
    raise AssertionError("unreachable: the last pipeline returns or raises")


def _open_with(pipeline: str, store: Store, path: str) -> zarr.Array[Any] | zarr.Group:
    with (
        _settings_lock,
        zarr.config.set({"codec_pipeline.path": pipeline, "codec_pipeline.strict": True}),
    ):
        node = zarr.open(store, path=path, mode="r")
    if isinstance(node, zarr.Array):
        _refuse_endless_index(node)
        if pipeline == _ZARRS:
            _refuse_what_zarrs_misreads(node)
    return node


def _refuse_endless_index(array: zarr.Array[Any]) -> None:
    sizes = zip(array.shards or array.chunks, array.chunks, strict=True)
    count = math.prod(-(-shard // max(1, chunk)) for shard, chunk in sizes)
    if count > CHUNKS_PER_SHARD:
        raise ValueError(f"{count:,} chunks in a shard, whose index no memory would hold")


def _refuse_what_zarrs_misreads(array: zarr.Array[Any]) -> None:
    # zarrs 0.2.3 opens all of these.
    if not (array.dtype.isnative and array.order == "C"):
        raise NotImplementedError("zarrs fails when it reads other byte or memory orders")
    codecs = [*getattr(array.metadata, "codecs", ())]
    for codec in [codec for codec in codecs if isinstance(codec, ShardingCodec)]:
        if not any(isinstance(inner, Crc32cCodec) for inner in codec.index_codecs):
            # The process would die: it allocates whatever a damaged index says.
            raise NotImplementedError("zarrs trusts an index without a checksum")
        codecs.extend(codec.codecs)
    if any(isinstance(codec, Crc32cCodec) for codec in codecs):
        raise NotImplementedError("zarrs skips this checksum when it reads a part of a shard")
    if any(isinstance(codec, BLOSC) for codec in array.compressors):
        # The process would die where a damaged chunk says that it is larger than memory allows;
        # and zarr-python reads these twice as fast.
        raise NotImplementedError("zarrs trusts what a chunk of blosc says of itself")


def open_for_writing(location: str, path: str) -> zarr.Array[Any]:
    """Open an array of ours for writing through the durable store.

    Parameters
    ----------
    location : str, path or URL of the group
    path : str, below it

    Returns
    -------
    zarr.Array
        It stores chunks that are all fill value too: existence means done.
    """
    # with_config makes the pipeline anew, so it too needs the setting and the lock.
    with _settings_lock, zarr.config.set({"codec_pipeline.path": _ZARR_PYTHON}):
        array = zarr.open_array(make_store(location, writable=True), path=path, mode="r+")
        return array.with_config({"write_empty_chunks": True})


def decoded_by_zarr(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Give an array as zarr-python itself reads it: slower, and its errors say what happened.

    Parameters
    ----------
    array : zarr.Array

    Returns
    -------
    zarr.Array
        Of the same stored bytes.
    """
    with _settings_lock, zarr.config.set({"codec_pipeline.path": _ZARR_PYTHON}):
        return array.with_config({})


def can_list(store: Store) -> bool:
    """Tell whether a store can say what it holds.

    Parameters
    ----------
    store : zarr.abc.store.Store

    Returns
    -------
    bool
        False for web servers.
    """
    return not isinstance(store, RemoteStore) or store.can_list


def read_object(location: str, name: str) -> bytes | None:
    """Read one stored object.

    Parameters
    ----------
    location : str, path or URL
    name : str, below it

    Returns
    -------
    bytes or None
        None where it is not there.
    """
    if not is_remote(location):
        try:
            return (local_path(location) / name).read_bytes()
        except OSError:  # whoever needs it says why it is not there
            return None
    found = sync(make_store(location).get(name, default_buffer_prototype()))
    return None if found is None else found.to_bytes()


def holds_other_than(location: str, known: Iterable[str]) -> bool:
    """Tell whether anything lies below a location, Zarr or not, beside some keys.

    Parameters
    ----------
    location : str, URL
    known : iterable of str

    Returns
    -------
    bool
        False when nothing else is there.
    """
    store, few = make_store(location), set(known)

    async def first() -> bool:
        if isinstance(store, RemoteStore):
            return await store.holds_other_than(few)
        async for name in store.list_prefix(""):
            if name.strip("/") not in few:
                return True
        return False

    return sync(first())


def stored_sizes(array: zarr.Array[Any], keys: list[str]) -> list[int | None]:
    """Give the stored size of some keys of an array.

    Parameters
    ----------
    array : zarr.Array
    keys : list of str, relative to the array

    Returns
    -------
    list of int or None
        Bytes; None where nothing is stored.
    """
    prefix = f"{array.path}/" if array.path else ""

    turn = asyncio.Semaphore(REQUESTS)

    async def size(key: str) -> int | None:
        try:
            async with turn:
                return await array.store.getsize(prefix + key)
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def collect() -> list[int | None]:
        return list(await asyncio.gather(*(size(key) for key in keys)))

    return sync(collect())
