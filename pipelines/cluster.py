"""The one door to Dask clusters: a local one of processes, or a running scheduler."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dask
from distributed import Client, LocalCluster

from tilenet.errors import InvalidData, SchedulerLost, TilenetError
from tilenet.rate_cache import machine_name

#: Where the dashboard listens when the port is free: loopback only.
DASHBOARD = ("127.0.0.1", 8787)

#: Seconds to wait for a scheduler to answer, and for its first worker.
CONNECT_SECONDS = 30

# Workers hold no data between tasks, so pausing or spilling could only stall them; the nanny ends
# a worker that nears its limit, and its block is retried.
_MEMORY_RULES: dict[str, Any] = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # Signals often reach the whole process group; only the command may decide what they mean.
    "distributed.worker.preload": [
        "import signal\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)"
    ],
}


# glibc hands every large tensor back to the system and faults its pages in anew, which costs up to
# half of an evaluation's time; Dask's own setting makes it do so sooner. These keep the memory:
# a worker needs it again for the next tile.
_ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**40),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
}


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Which cluster to use.

    Parameters
    ----------
    scheduler : str or None
        Address of a running scheduler, for example tcp://node:8786; None starts a local cluster.
    workers : int
        Local worker processes.
    slots : int
        Tasks at once in each local worker.
    threads : int or None
        Threads that numerical libraries may use in each local worker; None means 1, or what an
        output that is continued was begun with.
    memory : int
        Bytes that each local worker may use.
    cores : int or None
        Cores of this machine, where the plan may share them out to workers and threads.
    machine : str or None
        What the workers compute with, from :func:`tilenet.rate_cache.machine_name`; None asks here.
    """

    scheduler: str | None = None
    workers: int = 1
    slots: int = 2
    threads: int | None = None
    memory: int = 4 * 2**30
    cores: int | None = None
    machine: str | None = None


@contextlib.contextmanager
def open_client(options: ClusterOptions) -> Iterator[Client]:
    """Start or join a cluster, and leave nothing behind.

    Parameters
    ----------
    options : ClusterOptions
        Which cluster to use.

    Yields
    ------
    distributed.Client
        Connected, with at least one worker.

    Raises
    ------
    InvalidData
        When the scheduler cannot be reached or has no workers.
    SchedulerLost
        When it ended in the meantime.
    """
    if options.scheduler is not None:
        with _join(options.scheduler) as client:
            yield client
        return
    with (
        dask.config.set(_MEMORY_RULES),
        _environment(options.threads or 1),
        LocalCluster(
            n_workers=options.workers,
            threads_per_worker=options.slots,
            processes=True,
            memory_limit=options.memory,
            host="127.0.0.1",
            dashboard_address=_free_dashboard(),
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def resolve(options: ClusterOptions, device: str = "cpu") -> ClusterOptions:
    """Ask a running scheduler what its workers have; a local cluster has what it is given.

    Parameters
    ----------
    options : ClusterOptions
        Which cluster to use.
    device : str
        Device that the workers compute on; a local GPU gets one worker process.

    Returns
    -------
    ClusterOptions
        With the number of workers, the most slots and the least memory that one of them has.
    """
    if options.scheduler is None and device != "cpu":
        total = options.memory * options.workers
        return dataclasses.replace(options, workers=1, memory=total, cores=None)
    if options.scheduler is None:
        return options
    with open_client(options) as client:
        # The workers are asked: the client's own list of them is an empty one at times.
        answers = client.run(_capacity, device).values()
        slots, memory, machines = zip(*answers, strict=True)
        # A task is sent anywhere, and a worker runs as many at once as it has threads. Planned for
        # the most of them in the least memory, none uses more than it has, whatever it holds
        # beside its tasks; where workers differ much, that is more careful than it need be.
        return dataclasses.replace(
            options,
            workers=len(slots),
            slots=max(slots),
            memory=min(limit or options.memory for limit in memory),
            machine=" and ".join(sorted(set(machines))),
        )


def _capacity(device: str, dask_worker: Any) -> tuple[int, int | None, str]:
    limit: int | None = dask_worker.memory_manager.memory_limit
    return dask_worker.state.nthreads, limit, machine_name(device)


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    key = "distributed.nanny.pre-spawn-environ"
    values = {**_ALLOCATOR, **dict.fromkeys(names, str(threads))}
    with dask.config.set({key: {**dask.config.get(key), **values}}):
        yield


@contextlib.contextmanager
def _join(address: str) -> Iterator[Client]:
    cure = "Check the address, and that 'dask scheduler' and workers are running."
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        problem = f"does not answer within {CONNECT_SECONDS} s"
        raise InvalidData(f"Scheduler {address}", problem, cure) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            problem = f"has no workers within {CONNECT_SECONDS} s"
            raise InvalidData(f"Scheduler {address}", problem, cure) from error
        try:
            yield client
        except Exception as error:
            # Whatever was asked of a scheduler that is gone fails in its own way.
            if client.status == "running" or isinstance(error, TilenetError):
                raise
            raise SchedulerLost(address) from error


def _free_dashboard() -> str:
    host, port = DASHBOARD
    with socket.socket() as probe:
        busy = probe.connect_ex((host, port)) == 0
    return f"{host}:{0 if busy else port}"
