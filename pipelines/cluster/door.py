"""Open the cluster that the options describe, whichever it is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT

from pipelines.cluster.job_client import job_client
from pipelines.cluster.joined import joined_client
from pipelines.cluster.local import local_client, visible_gpus
from pipelines.cluster.options import ClusterOptions
from pipelines.cluster.worker_states import ask_workers, survey
from pipelines.stopping import Stop, stop_on_signals
from tilenet._version import __version__
from tilenet.errors import InvalidData, WorkerTooSmall
from tilenet.inference import machine_name

_MORE_MEMORY = (
    "Start workers with more (dask worker --memory-limit, --memory), or take fewer --workers or "
    "--slots, or a smaller --block or --shard; the plan of a begun output stays."
)


@contextlib.contextmanager
def open_client(
    options: ClusterOptions, stop: Stop | None = None, needed: int = 0
) -> Iterator[Client]:
    """Start or join a cluster, and leave nothing behind.

    Parameters
    ----------
    options : ClusterOptions
    stop : Stop, optional
        Ends the wait for jobs that do not start.
    needed : int
        Bytes that every worker has to have.

    Yields
    ------
    distributed.Client
        Connected, with at least one worker.
    """
    if options.local:
        opened = local_client(options)
    elif options.scheduler is not None:
        opened = joined_client(options)
    else:
        opened = job_client(options, Stop() if stop is None else stop)
    with opened as client:
        if not options.local:
            check_workers(client)
        check_worker_memory(client, needed)
        yield client


def resolve(options: ClusterOptions, device: str = "cpu") -> ClusterOptions:
    """Find out what the workers have: a running scheduler's are asked.

    Parameters
    ----------
    options : ClusterOptions
    device : str
        On this machine "cuda" is every GPU that it shows, one worker process each; "cuda:1" is
        that one alone.

    Returns
    -------
    ClusterOptions
        With the number of workers, the most slots and the least memory that one of them has.
    """
    if options.scheduler is not None:
        return _ask(options, device)
    if options.batch is not None:
        # What its nodes are is not known here, so no measured rates are either.
        return dataclasses.replace(options, machine=f"jobs of {options.batch.system.name}")
    if device == "cpu":
        return options
    gpus = visible_gpus() if device == "cuda" else 0
    workers = max(1, gpus)
    memory = options.memory * options.workers // workers
    return dataclasses.replace(options, workers=workers, memory=memory, gpus=gpus, cores=None)


def _ask(options: ClusterOptions, device: str) -> ClusterOptions:
    with stop_on_signals(at_once=True), open_client(options) as client:
        # The workers are asked: the client's own list of them is an empty one at times.
        answers = ask_workers(client, _capacity, device).values()
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


def check_workers(client: Client) -> None:
    """See that every worker has tilenet, and of this version."""
    for worker, found in ask_workers(client, _version_asker()).items():
        if found == __version__:
            continue
        problem = f"has tilenet {found}, and this is {__version__}" if found else "lacks tilenet"
        cure = "Start its workers in an environment that has this version of tilenet."
        raise InvalidData(f"Worker {worker}", problem, cure)


def check_worker_memory(client: Client, needed: int) -> None:
    """See that every worker has the memory that the plan needs, and so has this machine."""
    workers = survey(client)
    for worker in workers:
        # Dask gives a worker what the machine has at most, whatever it was promised.
        if 0 < worker.memory < needed:
            raise WorkerTooSmall(worker.address, needed, worker.memory, _MORE_MEMORY)
    if isinstance(client.cluster, LocalCluster) and needed * len(workers) > MEMORY_LIMIT:
        share, what = MEMORY_LIMIT // len(workers), f"on this machine, one of {len(workers)},"
        raise WorkerTooSmall(what, needed, share, _MORE_MEMORY)


def _version_asker() -> Callable[[], str | None]:
    # A function of its own is sent as code, not as a name that only tilenet's installation knows.
    def version() -> str | None:
        try:
            import pipelines
            import tilenet
        except ImportError:
            return None
        return tilenet.__version__ if pipelines else None

    return version
