"""The processes that look after workers: an end to starting one again and again, and last words.

Dask's nanny starts a worker anew that died, for ever, also one that never comes up. Loaded into
every nanny of ours by Dask's preload.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import multiprocessing
from collections import deque
from typing import Any

from distributed.core import Status

from tilenet.errors import one_line

#: Times in a row that a worker may die before it has come up.
STARTS = 3

# Seconds between two looks at a worker.
_LOOK = 0.1

# An event loop keeps no strong reference to its tasks.
_running: set[asyncio.Task[None]] = set()

# What the processes that look after this machine's workers said last.
_said: deque[str] = deque(maxlen=3)


# How lines begin that tell of an end.
_TELLING = ("Worker process", "Failed", "Worker failed")


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not text.startswith(_TELLING):
            return
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text = f"{text}: {type(error).__name__}: {error}"
        _said.append(one_line(text, None))


_listener = _Listener(logging.INFO)


def listen() -> None:
    """Remember what the processes that look after this machine's workers say, from now on."""
    _said.clear()
    logging.getLogger("distributed.nanny").addHandler(_listener)


def nanny_log_tail() -> tuple[str, ...]:
    """Give the last lines of what was said of this machine's workers.

    Returns
    -------
    tuple of str
        The last is the latest; empty where the workers are elsewhere.
    """
    return tuple(_said)


def dask_setup(nanny: Any) -> None:
    # Once for a process, whatever the number of its nannies.
    atexit.unregister(end_workers)
    atexit.register(end_workers)
    task = asyncio.get_running_loop().create_task(stop_failing_nanny(nanny))
    _running.add(task)
    task.add_done_callback(_running.discard)


async def stop_failing_nanny(nanny: Any) -> None:
    """End a nanny whose worker dies before it has come up, time after time."""
    deaths, last = 0, None
    while nanny.status not in (Status.closing, Status.closed, Status.failed):
        await asyncio.sleep(_LOOK)
        process = nanny.process
        if process is None:
            continue
        if process.status == Status.running:
            deaths = 0
        elif process.pid is not None and process.pid != last:
            deaths, last = deaths + 1, process.pid
        if deaths > STARTS:
            await nanny.close(reason=f"its worker died {STARTS} times before it had come up")


def end_workers() -> None:
    """Kill the workers that are left when their nannies' process ends.

    A nanny that gives a worker up while it starts only asks it to end. Python asks once more at the
    exit, by SIGTERM, and waits; our workers ignore that, so both would stay for ever.
    """
    for child in multiprocessing.active_children():
        if child.name.startswith("Dask Worker process"):
            child.kill()
