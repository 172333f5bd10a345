"""What runs in every worker process of ours before its first block; loaded by Dask's preload."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from typing import Any

from distributed.core import Status

from pipelines.cluster.local import default_workers
from pipelines.cluster.worker_settings import ENDS, GPUS
from pipelines.stopping import SIGNALS
from tilenet.volumes.stores import bind_reading

#: Seconds between two looks at whether a worker that ends is done.
_LOOK = 0.2

# An event loop keeps no strong reference to its tasks.
_running: set[asyncio.Task[None]] = set()


def dask_setup(worker: Any) -> None:
    # Signals often reach the whole process group; only the command may decide what they mean.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _take_gpu(str(worker.name))
    if ENDS in os.environ:
        task = asyncio.get_running_loop().create_task(end_in_time(worker, float(os.environ[ENDS])))
        _running.add(task)


def dask_teardown(worker: Any) -> None:
    """End a worker of a job at once when it closes in the middle of a block.

    Its command was killed, or does not want the block any more. Python would wait for the block's
    threads all the same, and the job for its process.
    """
    if ENDS in os.environ and worker.active_threads:
        os._exit(0)


def _take_gpu(name: str) -> None:
    # Before CUDA is loaded: a process sees the GPUs that it saw first.
    if GPUS not in os.environ:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    count = int(os.environ[GPUS])
    bind_reading(default_workers(count))
    devices = visible.split(",") if visible else [str(i) for i in range(count)]
    os.environ["CUDA_VISIBLE_DEVICES"] = devices[position(name) % len(devices)]


def position(name: str) -> int:
    """Give the place of a worker among those of its machine (3) or job (job7-2), from 0."""
    match = re.search(r"(?:^|-)(\d+)$", name)
    return int(match[1]) if match else 0


async def end_in_time(worker: Any, ends: float) -> None:
    """End a worker before its job is killed, and lose none of its blocks.

    Dask's own ``--lifetime`` gives the running blocks to other workers at once, so that each is
    computed twice. Here the worker takes no further block, finishes those that run, and leaves.
    """
    await asyncio.sleep(max(0.0, ends - time.time()))
    worker.status = Status.paused
    # What is held is the reports that the command has not fetched yet.
    while worker.state.executing or worker.data:
        await asyncio.sleep(_LOOK)
    await worker.close_gracefully(restart=False, reason="the job ends soon")
