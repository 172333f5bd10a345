"""A local store that survives a power cut.

zarr-python writes a local file under a temporary name and renames it, but does not sync it: after
a power cut the file may exist and be empty. Here the file is synced before the rename and the
folder after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from tilenet.volumes.stores.zarr_names import Buffer, check_writable

#: Ending of the temporary files of interrupted local writes; zarr-python's own.
PARTIAL = ".partial"

#: Times that a file is written whose temporary one is taken away: a command that goes on with the
#: same output takes those of others for orphans, and cannot tell them apart.
ATTEMPTS = 5


class DurableStore(LocalStore):
    """A local store whose keys appear whole and stay, also after a power cut."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write a key."""
        await asyncio.to_thread(self.set_sync, key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a key that is not there."""
        check_writable(self)
        with contextlib.suppress(FileExistsError):
            await asyncio.to_thread(write_durably, self.root / key, value.as_buffer_like(), True)

    def set_sync(self, key: str, value: Buffer) -> None:
        check_writable(self)
        write_durably(self.root / key, value.as_buffer_like())


def write_durably(path: Path, data: Any, exclusive: bool = False) -> None:
    """Write a file so that it is whole or absent whatever happens.

    Parameters
    ----------
    path : pathlib.Path
        Missing folders above it are made.
    data : bytes-like
    exclusive : bool
        Leave a file that is already there alone and raise FileExistsError.

    Raises
    ------
    FileNotFoundError
        When its folder is removed meanwhile, or its temporary file again and again.
    """
    created = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in reversed(range(ATTEMPTS)):
        try:
            _write(path, data, exclusive)
            break
        except FileNotFoundError:
            if not (left and path.parent.exists()):
                raise
    for folder in {path.parent, *(folder.parent for folder in created)}:
        sync_folder(folder)


def _write(path: Path, data: Any, exclusive: bool) -> None:
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


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last.

    Parameters
    ----------
    folder : pathlib.Path
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
