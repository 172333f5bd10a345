"""The one place that knows names of zarr-python that it does not promise.

Each has a public fall-back, but for one, which is looked for at the start. What the fall-backs cost
is said with them.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import re
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import zarr
import zarr.storage
from zarr.abc.store import Store

from tilenet.errors import LibraryUnfit

T = TypeVar("T")

#: The first version that works, and that from which nothing was tried: pyproject.toml has both.
FIRST, BELOW = "3.1.6", "3.2"

#: Where names are that have no fall-back: public ones that came late, and one that is not public,
#: through which object stores list and by which errors of theirs are explained.
NEEDED = (
    ("zarr.abc.buffer", "Buffer"),
    ("zarr.abc.buffer", "BufferPrototype"),
    ("zarr.buffer", "default_buffer_prototype"),
    ("zarr.storage", "ObjectStore._list"),
)

#: Seconds that the thread in which Zarr asks its stores may take to end with the process.
LAST_SECONDS = 10

_PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"


def check_version(found: str) -> None:
    """Refuse a zarr-python that lacks what is needed, before anything is read."""
    lacking = [f"{module}.{name}" for module, name in NEEDED if _find(module, name) is None]
    if _numbers(found) < _numbers(FIRST):
        lacking.insert(0, "what came later")
    if lacking:
        raise LibraryUnfit("zarr", found, f">= {FIRST}, < {BELOW}", lacking)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def _find(module: str, name: str) -> Any:
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None


check_version(zarr.__version__)

from zarr.abc.buffer import Buffer as Buffer  # noqa: E402  (not before they are looked for)
from zarr.abc.buffer import BufferPrototype as BufferPrototype  # noqa: E402
from zarr.buffer import default_buffer_prototype as default_buffer_prototype  # noqa: E402


@functools.cache
def _own_loop() -> asyncio.AbstractEventLoop:
    own = asyncio.new_event_loop()
    threading.Thread(target=own.run_forever, name="tilenet_io", daemon=True).start()
    return own


def _own_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(coroutine, _own_loop()).result()


_sync: Callable[..., Any] = _find("zarr.core.sync", "sync") or _own_sync


def sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Wait for what a store is asked.

    In the thread in which Zarr asks its stores itself: what fsspec opens there belongs to it. Where
    there is no such name it is a thread of ours; a store of fsspec may refuse that.

    Parameters
    ----------
    coroutine : coroutine

    Returns
    -------
    object
        The answer.
    """
    answer: T = _sync(coroutine)
    return answer


@atexit.register
def end_thread() -> None:
    """End Zarr's thread with the process.

    Zarr, whose own turn comes later, waits 0.2 s: on a busy machine it ended in a traceback. Where
    there are no such names, that is what may happen.
    """
    loop, thread = _find("zarr.core.sync", "loop"), _find("zarr.core.sync", "iothread")
    if loop and thread and loop[0] is not None and thread[0] is not None:
        loop[0].call_soon_threadsafe(loop[0].stop)
        thread[0].join(LAST_SECONDS)


def python_pipeline() -> str:
    """Name zarr-python's own way to decode; what is set where that has another name by now."""
    module, _, name = _PIPELINE.rpartition(".")
    return _PIPELINE if _find(module, name) else str(zarr.config.get("codec_pipeline.path"))


def check_writable(store: Store) -> None:
    """Refuse to write to what was opened for reading."""
    if store.read_only:
        raise ValueError("store was opened in read-only mode and does not support writing")
