"""What runs where: the scheduler is asked, and workers only where they surely answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distributed import Client

#: Seconds after which a worker that was not heard of is asked nothing: it may hang.
SILENT_SECONDS = 5.0


@dataclass(frozen=True)
class Seen:
    """A worker as the scheduler knows it.

    Parameters
    ----------
    address, name : str
        Of the worker.
    threads, memory : int
        Blocks at once; bytes, 0 where it has no limit.
    silent : float
        Seconds since it was heard of.
    processing, executing : frozenset of str
        Keys of the tasks that it was given, and of those that it said it computes.
    """

    address: str
    name: str
    threads: int
    memory: int
    silent: float
    processing: frozenset[str]
    executing: frozenset[str]


def survey(client: Client) -> list[Seen]:
    """Ask the scheduler which blocks are where.

    Parameters
    ----------
    client : distributed.Client
        The cluster.

    Returns
    -------
    list of Seen
        One for each worker.
    """
    return [Seen(**values) for values in client.run_on_scheduler(_surveyor())]


def _surveyor() -> Callable[..., list[dict[str, Any]]]:
    # A function of its own is sent as code: the scheduler may lack tilenet.
    def look(dask_scheduler: Any) -> list[dict[str, Any]]:
        from time import time

        return [
            {
                "address": ws.address,
                "name": str(ws.name),
                "threads": ws.nthreads,
                "memory": ws.memory_limit or 0,
                "silent": time() - ws.last_seen,
                "processing": frozenset(str(ts.key) for ts in ws.processing),
                "executing": frozenset(str(ts.key) for ts in ws.executing),
            }
            for ws in dask_scheduler.workers.values()
        ]

    return look


def task_resources(client: Client) -> dict[str, float] | None:
    """Say what a task takes of a worker's resources: a slot of its GPU, where all offer slots.

    Parameters
    ----------
    client : distributed.Client
        The cluster.

    Returns
    -------
    dict or None
        Dask resources of a task.
    """
    # The client's own list of workers is an empty one at times, and tasks that ask for what no
    # worker offers wait for ever.
    offers = client.run_on_scheduler(_resources())
    return {"GPU": 1} if offers and all("GPU" in offer for offer in offers) else None


def _resources() -> Callable[..., list[dict[str, float]]]:
    def look(dask_scheduler: Any) -> list[dict[str, float]]:
        return [dict(ws.resources) for ws in dask_scheduler.workers.values()]

    return look


def running_keys(client: Client) -> set[str]:
    """Ask the workers which tasks they compute at this moment.

    Parameters
    ----------
    client : distributed.Client
        The cluster.

    Returns
    -------
    set of str
        Keys; without those of a worker that does not answer.
    """
    lively = [worker.address for worker in survey(client) if worker.silent < SILENT_SECONDS]
    try:
        return set().union(*client.run(_active, workers=lively).values())
    except OSError:  # a signal reached the workers too: nothing runs any more
        return set()


def _active(dask_worker: Any) -> set[str]:
    return set(dask_worker.active_threads.values())
