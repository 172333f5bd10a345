"""What runs where: the scheduler is asked, and workers only where they surely answer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click
from distributed import Client

from pipelines.cluster.joined import CONNECT_SECONDS
from pipelines.cluster.nannies import nanny_log_tail
from pipelines.cluster.replacing import patience
from pipelines.cluster.scheduler_rpc import answer, ask
from pipelines.progress import LINE_SECONDS, clock
from pipelines.stopping import check_stop
from tilenet.errors import InvalidData, WorkersGone

#: Seconds after which a worker that was not heard of is asked nothing: it may hang.
SILENT_SECONDS = 5.0

#: Seconds that a worker that was heard of may take to answer: it may load PyTorch from a slow disk.
ANSWER_SECONDS = 120.0

# Seconds between two looks at the workers.
_WAKE_SECONDS = 0.2


@dataclass(frozen=True)
class WorkerState:
    """A worker as the scheduler knows it.

    Parameters
    ----------
    address, name : str
    threads, memory : int
        Blocks at once; bytes, 0 where it has no limit.
    silent : float
        Seconds since it should have been heard of.
    processing, executing : frozenset of str
        Keys of the tasks that it was given, and of those that it said it computes.
    running : bool
        Whether it takes tasks: it is neither paused nor about to end.
    resources : frozenset of str
        Names of Dask's resources that it offers.
    nanny : str
        Address of its nanny, which starts it anew when it ends; empty where there is none.
    """

    address: str
    name: str
    threads: int
    memory: int
    silent: float
    processing: frozenset[str]
    executing: frozenset[str]
    running: bool = True
    resources: frozenset[str] = frozenset()
    nanny: str = ""


def survey(client: Client) -> list[WorkerState]:
    """Ask the scheduler which blocks are where.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    list of WorkerState
        One for each worker.
    """
    return [WorkerState(**values) for values in ask(client, client.run_on_scheduler, _surveyor())]


def _surveyor() -> Callable[..., list[dict[str, Any]]]:
    # A function of its own is sent as code: the scheduler may lack tilenet.
    def look(dask_scheduler: Any) -> list[dict[str, Any]]:
        from time import time

        from distributed.scheduler import heartbeat_interval

        # Many workers report in less often.
        expected = time() - heartbeat_interval(len(dask_scheduler.workers))
        return [
            {
                "address": ws.address,
                "name": str(ws.name),
                "threads": ws.nthreads,
                "memory": ws.memory_limit or 0,
                "silent": max(0.0, expected - ws.last_seen),
                "processing": frozenset(str(ts.key) for ts in ws.processing),
                "executing": frozenset(str(ts.key) for ts in ws.executing),
                "running": ws in dask_scheduler.running,
                "resources": frozenset(ws.resources),
                "nanny": ws.nanny or "",
            }
            for ws in dask_scheduler.workers.values()
        ]

    return look


def task_resources(client: Client) -> dict[str, float] | None:
    """Say what a task takes of a worker's resources: a slot of its GPU, where all offer slots.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    dict or None
        Dask resources of a task.
    """
    # The client's own list of workers is an empty one at times, and tasks that ask for what no
    # worker offers wait for ever.
    return {"GPU": 1} if all("GPU" in seen.resources for seen in _present(client)) else None


def ask_workers(client: Client, question: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Ask every worker, and name in the error those that hang or ended meanwhile.

    Parameters
    ----------
    client : distributed.Client
    question : callable
        What each is to call.
    *arguments
        Its arguments.

    Returns
    -------
    dict
        Answers by address; at least one.
    """
    workers = [worker.address for worker in _lively(client)]
    asked = client.run(
        question, *arguments, workers=workers, on_error="return", asynchronous=True
    )  # fmt: skip
    try:
        found: dict[str, Any] = answer(client, asked, ANSWER_SECONDS, "workers")
    except TimeoutError as error:
        silent = [seen for seen in survey(client) if seen.silent > SILENT_SECONDS]
        raise _hung(silent, f"does not answer within {ANSWER_SECONDS:.0f} s") from error
    for worker, said in found.items():
        if isinstance(said, OSError):
            cure = "Run the same command again."
            raise InvalidData(f"Worker {worker}", "ended while it was asked", cure) from said
        if isinstance(said, Exception):
            raise said
    return found


def _lively(client: Client) -> list[WorkerState]:
    # What a worker loads may silence it for a while.
    waited = 0.0
    while True:
        workers = _present(client)
        silent = [seen for seen in workers if seen.silent > SILENT_SECONDS]
        if not silent:
            return workers
        if waited > CONNECT_SECONDS:
            raise _hung(silent, f"has not been heard of for {silent[0].silent:.0f} s")
        check_stop()
        time.sleep(_WAKE_SECONDS)
        waited += _WAKE_SECONDS


def _present(client: Client) -> list[WorkerState]:
    # One that died is replaced, mostly: waited for as long as a run goes on without any.
    waited = said = 0.0
    while not (workers := survey(client)):
        limit = patience(client)
        if waited >= limit:
            raise WorkersGone("is left", clock(waited), nanny_log_tail())
        if waited - said >= LINE_SECONDS and math.isfinite(limit):  # jobs tell of themselves
            said = waited
            click.echo(f"No worker is left; waiting, {clock(waited)} of {clock(limit)}", err=True)
        check_stop()
        time.sleep(_WAKE_SECONDS)
        waited += _WAKE_SECONDS
    return workers


def _hung(workers: list[WorkerState], problem: str) -> InvalidData:
    names = ", ".join(f"{seen.address} ({seen.name})" for seen in workers[:3]) or "(unknown)"
    cure = "It hangs, or its machine is out of reach: end it, and run the same command again."
    return InvalidData(f"Worker {names}", problem, cure)


def running_keys(client: Client, *, stopped: bool) -> set[str]:
    """Ask the workers which tasks they compute at this moment.

    Parameters
    ----------
    client : distributed.Client
    stopped : bool
        Whether a signal ends the run, which may have reached the workers too.

    Returns
    -------
    set of str
        Keys; with all that was given to a worker that does not answer, unless it is to end.
    """
    workers = survey(client)
    lively = [worker for worker in workers if worker.silent < SILENT_SECONDS]
    silent = [] if stopped else [worker.processing for worker in workers if worker not in lively]
    addresses = [worker.address for worker in lively]
    asked = client.run(_active, workers=addresses, on_error="ignore", asynchronous=True)
    try:
        answers = answer(client, asked, SILENT_SECONDS, "workers").values()
    except TimeoutError:  # one of them hangs since: what they said of themselves
        answers = [worker.executing for worker in lively]
    except OSError:
        if stopped:  # the signal reached the workers too: nothing runs any more
            return set()
        answers = [worker.processing for worker in lively]
    return set().union(*answers, *silent)


def whereabouts(client: Client, keys: Sequence[str]) -> dict[str, str]:
    """Ask the scheduler which workers tasks ended on.

    Parameters
    ----------
    client : distributed.Client
    keys : sequence of str
        Of tasks that were finished or failed.

    Returns
    -------
    dict
        Addresses by key; without those of tasks that no worker is known of.
    """
    found: dict[str, str] = ask(client, client.run_on_scheduler, _locator(), list(keys))
    return found


def _locator() -> Callable[..., dict[str, str]]:
    # A function of its own is sent as code: the scheduler may lack tilenet.
    def locate(keys: list[str], dask_scheduler: Any) -> dict[str, str]:
        found = {}
        for key in keys:
            task = dask_scheduler.tasks.get(key)
            places = [] if task is None else [*(task.erred_on or ())]
            if task is not None and not places:
                places = [worker.address for worker in task.who_has or ()]
            if places:
                found[key] = places[-1]
        return found

    return locate


def _active(dask_worker: Any) -> set[str]:
    return set(dask_worker.active_threads.values())
