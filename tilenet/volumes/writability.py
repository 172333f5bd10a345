"""Whether an output can be written to, found out before hours are computed for it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tilenet.errors import UnreadableVolume
from tilenet.volumes.stores import (
    PARTIAL,
    SCHEMES,
    WEB,
    default_buffer_prototype,
    is_remote,
    local_path,
    make_store,
    scheme_of,
    sync,
)

#: Key that shows whether an output can be written to.
WRITE_CHECK = f"write-check{PARTIAL}"

#: What helps where a begun output cannot be written to.
MAKE_WRITABLE = "Make it writable, and run the same command again"


def check_writable(location: str) -> None:
    """Store and remove something small, before hours are computed that could not be stored.

    Parameters
    ----------
    location : str
        Path or URL of an output; of a path that is there nothing is tried.
    """
    if not is_remote(location):
        path = local_path(location)
        if not os.path.exists(path) and (problem := write_problem(path)):  # noqa: PTH110
            raise UnreadableVolume(location, problem, "Give another place")
        return
    if scheme_of(location) not in SCHEMES:
        return
    if scheme_of(location) in WEB:
        cure = "Give a path or the URL of an object store"
        raise UnreadableVolume(location, "is on a web server, which is read only", cure)
    store = make_store(location, writable=True)
    sync(store.set(WRITE_CHECK, default_buffer_prototype().buffer.from_bytes(b"")))
    sync(store.delete(WRITE_CHECK))


def write_problem(path: Path) -> str | None:
    """Try to write where a path is or would be.

    Permissions alone tell nothing of quotas, nor of places where not even root may write.

    Parameters
    ----------
    path : pathlib.Path of a folder, which need not be there yet

    Returns
    -------
    str or None
        What is wrong; None when a file could be made.
    """
    # Not Path.exists, which raises where a folder above must not be entered.
    found = next(p for p in (path, *path.parents) if os.path.exists(p))  # noqa: PTH110
    if not found.is_dir():
        return f"{found} is a file, not a folder"
    try:
        tempfile.NamedTemporaryFile(dir=found).close()
    except OSError as error:
        return f"nothing can be written in {found}: {error.strerror or error}"
    return None


def remove_partial_files(location: str) -> int:
    """Remove what interrupted writes left behind.

    Parameters
    ----------
    location : str, path or URL; only local stores write temporary files

    Returns
    -------
    int
        Number of files removed.
    """
    if is_remote(location):
        return 0
    walk = os.walk(local_path(location))
    orphans = [Path(folder, n) for folder, _, names in walk for n in names if n.endswith(PARTIAL)]
    for orphan in orphans:
        try:
            orphan.unlink(missing_ok=True)
        except OSError as error:
            problem = f"{orphan}, left by an interrupted write, cannot be removed: {error.strerror}"
            raise UnreadableVolume(location, problem, MAKE_WRITABLE) from error
    return len(orphans)
