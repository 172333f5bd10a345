"""Stores and arrays: where Zarr touches the disk.

How a shard is written is part of correctness, because a block counts as done when its shards
exist. zarr-python writes a local file under a temporary name and renames it, but does not sync
it: after a power cut the file may exist and be empty. :class:`DurableStore` syncs the file before
the rename and the folder after it. Object stores show a key only once it is whole.

Reading goes through ``zarrs``, which decodes outside the GIL. It must never write: it grows the
file under its final name, and skips shards that are all fill value.
"""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import zarr
import zarr.errors
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ShardingCodec
from zarr.core.buffer import Buffer
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from tilenet.errors import UnreadableVolume

#: Ending of the temporary files of interrupted local writes; zarr-python's own.
PARTIAL = ".partial"

_ZARRS = "zarrs.ZarrsCodecPipeline"
_ZARR_PYTHON = "zarr.core.codec_pipeline.BatchedCodecPipeline"

# zarr-python keeps its settings in one process-wide place; two threads must not open at once.
_settings_lock = threading.Lock()


class DurableStore(LocalStore):
    """A local store whose keys appear whole and stay, also after a power cut."""

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        if not self._is_open:
            await self._open()
        self._check_writable()
        await asyncio.to_thread(write_durably, self.root / key, value.as_buffer_like(), exclusive)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a key.

        Parameters
        ----------
        key : str
            Path below the root.
        value : Buffer
            Its bytes.
        """
        self._ensure_open_sync()
        self._check_writable()
        write_durably(self.root / key, value.as_buffer_like())


def write_durably(path: Path, data: Any, exclusive: bool = False) -> None:
    """Write a file so that it is whole or absent whatever happens.

    Parameters
    ----------
    path : pathlib.Path
        The file; missing folders above it are made.
    data : bytes-like
        Its content.
    exclusive : bool
        Leave a file that is already there alone and raise FileExistsError.
    """
    created = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            os.link(temporary, path)
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    for folder in {path.parent, *(folder.parent for folder in created)}:
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_remote(location: str) -> bool:
    """Tell whether a location is an fsspec URL and not a local path.

    Parameters
    ----------
    location : str
        A path or URL.

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
    """
    if location.startswith("file://"):
        location = unquote(urlsplit(location).path)
    return Path(location).expanduser().resolve()


def make_store(location: str, *, writable: bool = False) -> Store:
    """Make the Zarr store of a location.

    Parameters
    ----------
    location : str
        Local path, or fsspec URL such as ``s3://bucket/em.zarr``.
    writable : bool
        Whether it will be written to.

    Returns
    -------
    zarr.abc.store.Store
        A durable local store or an fsspec store.

    Raises
    ------
    UnreadableVolume
        When the URL's protocol is unknown or its client library is not installed.
    """
    if not is_remote(location):
        path = local_path(location)
        return DurableStore(path) if writable else LocalStore(path, read_only=True)
    try:
        return FsspecStore.from_url(location, read_only=not writable)
    except (ValueError, ImportError) as error:
        cure = "Install the client library, for example: pip install 'tilenet[remote]'"
        raise UnreadableVolume(location, str(error).rstrip("."), cure) from error


def open_node(location: str, path: str = "") -> zarr.Array[Any] | zarr.Group:
    """Open an array or group for reading, decoded by ``zarrs`` where it can.

    Parameters
    ----------
    location : str
        Local path or fsspec URL.
    path : str
        Path below the location.

    Returns
    -------
    zarr.Array or zarr.Group
        The node.

    Raises
    ------
    UnreadableVolume
        When there is nothing, or nothing readable as Zarr.
    """
    store = make_store(location)
    cure = "Give a Zarr array or group, or convert other formats with 'tilenet ingest'"
    where = f"{location.rstrip('/')}/{path}" if path else location
    try:
        if isinstance(store, LocalStore) and not store.root.exists():
            raise UnreadableVolume(where, "does not exist", cure)
    except OSError as error:
        raise UnreadableVolume.unreachable(where, error) from error
    # Over a network zarrs asks for one chunk after another, and holds the GIL while it waits for
    # the shards' indices (measured: 6.3 s for four small shards, zarr-python 0.55 s).
    local = isinstance(store, LocalStore)
    for pipeline in (_ZARRS, _ZARR_PYTHON) if local else (_ZARR_PYTHON,):
        try:
            return _open_with(pipeline, store, path)
        except (FileNotFoundError, NotADirectoryError, zarr.errors.NodeNotFoundError) as error:
            raise UnreadableVolume(where, "is not a Zarr array or group", cure) from error
        except PermissionError as error:
            raise UnreadableVolume.unreachable(where, error) from error
        except Exception as error:
            # zarrs refuses codecs and data types that it lacks; zarr-python itself comes second.
            if pipeline == _ZARR_PYTHON:
                problem = f"has Zarr metadata that cannot be read: {error}"
                raise UnreadableVolume(where, problem, cure) from error
    raise AssertionError("unreachable: the last pipeline returns or raises")


def _open_with(pipeline: str, store: Store, path: str) -> zarr.Array[Any] | zarr.Group:
    with (
        _settings_lock,
        zarr.config.set({"codec_pipeline.path": pipeline, "codec_pipeline.strict": True}),
    ):
        node = zarr.open(store, path=path, mode="r")
    if pipeline == _ZARRS and isinstance(node, zarr.Array):
        _refuse_what_zarrs_misreads(node)
    return node


def _refuse_what_zarrs_misreads(array: zarr.Array[Any]) -> None:
    # zarrs 0.2.3 opens all of these.
    if not (array.dtype.isnative and array.order == "C"):
        raise NotImplementedError("zarrs fails when it reads other byte or memory orders")
    codecs = [*getattr(array.metadata, "codecs", ())]
    for codec in [codec for codec in codecs if isinstance(codec, ShardingCodec)]:
        codecs.extend(codec.codecs)
    if any(isinstance(codec, Crc32cCodec) for codec in codecs):
        raise NotImplementedError("zarrs skips this checksum when it reads a part of a shard")


def open_for_writing(location: str, path: str) -> zarr.Array[Any]:
    """Open an array of ours for writing through the durable store.

    Parameters
    ----------
    location : str
        Local path or fsspec URL of the group.
    path : str
        Path of the array below it.

    Returns
    -------
    zarr.Array
        It stores chunks that are all fill value too: existence means done.
    """
    # with_config makes the pipeline anew, so it too needs the setting and the lock.
    with _settings_lock, zarr.config.set({"codec_pipeline.path": _ZARR_PYTHON}):
        array = zarr.open_array(make_store(location, writable=True), path=path, mode="r+")
        return array.with_config({"write_empty_chunks": True})


def list_keys(array: zarr.Array[Any]) -> set[str]:
    """List what an array has stored, relative to the array.

    Parameters
    ----------
    array : zarr.Array
        The array.

    Returns
    -------
    set of str
        Chunk and shard keys, and whatever else lies there.
    """
    prefix = f"{array.path}/" if array.path else ""

    async def collect() -> set[str]:
        names: AsyncIterator[str] = array.store.list_prefix(prefix)
        return {name.removeprefix(prefix) async for name in names}

    return sync(collect())


def holds_anything(location: str) -> bool:
    """Tell whether anything lies below a location, Zarr or not.

    Parameters
    ----------
    location : str
        fsspec URL.

    Returns
    -------
    bool
        False when nothing is there.
    """
    store = make_store(location)

    async def first() -> bool:
        async for _ in store.list_dir(""):
            return True
        return False

    return sync(first())


def stored_sizes(array: zarr.Array[Any], keys: list[str]) -> list[int | None]:
    """Give the stored size of some keys of an array.

    Parameters
    ----------
    array : zarr.Array
        The array.
    keys : list of str
        Keys relative to the array.

    Returns
    -------
    list of int or None
        Bytes; None where nothing is stored.
    """
    prefix = f"{array.path}/" if array.path else ""

    async def size(key: str) -> int | None:
        try:
            return await array.store.getsize(prefix + key)
        except FileNotFoundError:
            return None

    async def collect() -> list[int | None]:
        return list(await asyncio.gather(*(size(key) for key in keys)))

    return sync(collect())


def remove_partial_files(location: str) -> int:
    """Remove what interrupted writes left behind.

    Parameters
    ----------
    location : str
        Local path or fsspec URL; only local stores write temporary files.

    Returns
    -------
    int
        Number of files removed.
    """
    if is_remote(location):
        return 0
    orphans = list(local_path(location).rglob(f"*{PARTIAL}"))
    for orphan in orphans:
        orphan.unlink(missing_ok=True)
    return len(orphans)
