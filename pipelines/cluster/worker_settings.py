"""What every worker process of ours is given: rules of memory, environment, preload."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import dask

from tilenet.volumes.stores import VARIABLE

#: Environment variable: how many workers of one machine or job share its GPUs, one each.
GPUS = "TILENET_GPUS"

#: Environment variable: when a worker takes no further block, seconds since 1970.
ENDS = "TILENET_WORKER_ENDS"

# Where tilenet is missing, the worker joins all the same, and is told of by name.
_PRELOAD = """\
try:
    from pipelines.cluster.{} import {}
except ImportError:
    pass
"""

_WORKER_PRELOAD = _PRELOAD.format("worker", "dask_setup, dask_teardown")
_NANNY_PRELOAD = _PRELOAD.format("nannies", "dask_setup")

# Workers hold no data between tasks, so pausing or spilling could only stall them; the nanny ends
# a worker that nears its limit, and its block is retried.
_RULES: dict[str, Any] = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.preload": [_WORKER_PRELOAD],
    "distributed.nanny.preload": [_NANNY_PRELOAD],
    # Dask's own looks at itself, every 10 and 20 ms by default, took 4 % of every core (measured).
    "distributed.worker.profile.interval": "100ms",
    "distributed.admin.tick.interval": "500ms",
}

# glibc hands every large tensor back to the system and faults its pages in anew, which costs up to
# half of an evaluation's time; Dask's own setting makes it do so sooner. These keep the memory:
# a worker needs it again for the next tile.
_ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**40),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
}

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def worker_settings(threads: int | None, gpus: int) -> dict[str, Any]:
    """Give the settings of Dask under which worker processes are started, a GPU each if any.

    Threads are those of numerical libraries, and those that decode what is read; None is 1.
    """
    # Set before the process begins: later is too late for the allocator and the libraries.
    key = "distributed.nanny.pre-spawn-environ"
    variables = {**_ALLOCATOR, **dict.fromkeys(_THREADS, str(threads or 1))}
    if gpus:  # its share of the cores decodes: one thread is slower than a GPU computes
        variables[GPUS] = str(gpus)
    else:
        variables[VARIABLE] = str(threads or 1)
    return {**_RULES, key: {**dask.config.get(key), **variables}}


def exports(settings: Mapping[str, Any]) -> list[str]:
    """Write settings of Dask as shell lines, for workers that a script starts."""
    lines = []
    for name, value in settings.items():
        variable = "DASK_" + name.replace(".", "__").replace("-", "_").upper()
        # Dask reads Python's literals; JSON's are the same but for the words, and quote better.
        literal = json.dumps(value) if isinstance(value, list | dict) else repr(value)
        lines.append(f"export {variable}={shlex.quote(literal)}")
    return lines
