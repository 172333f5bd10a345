"""Workers that hang or do not fit: ended, and replaced where that is ours to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from distributed import Client, LocalCluster
from distributed.core import Status

from pipelines.cluster.job_cluster import HUNG, UNFIT, JobCluster
from pipelines.cluster.scheduler_rpc import ask

#: Seconds to go without any worker: of a scheduler that others look after, and of this machine,
#: whose workers start anew by themselves.
FOREIGN_SECONDS, LOCAL_SECONDS = 3600.0, 300.0

#: Seconds that the nanny of a worker may take to end it, before it counts as lost as well.
KILL_SECONDS = 20.0


def patience(client: Client) -> float:
    """Give how long a run goes on without any worker.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    float
        Seconds; infinite for jobs, which are watched already.
    """
    if isinstance(client.cluster, JobCluster):
        return math.inf
    if not isinstance(client.cluster, LocalCluster):
        return FOREIGN_SECONDS
    over = (Status.closing, Status.closed, Status.failed)
    nannies = list(client.cluster.workers.values())
    return LOCAL_SECONDS if any(nanny.status not in over for nanny in nannies) else 0.0


def replace(client: Client, address: str, name: str) -> None:
    """End a worker that hangs, so that its blocks go elsewhere.

    Its job is cancelled where it has one, because its node may be sick, and another is submitted.
    Elsewhere its nanny kills it, also a stopped one, and starts another; one without a nanny is
    told to end, and is forgotten.

    Parameters
    ----------
    client : distributed.Client
    address, name : str
    """
    _end(client, address, name, HUNG, again=True)


def replace_unfit(client: Client, address: str, name: str, *, again: bool) -> None:
    """End a worker that computes no block, and have another tried in its place, or none.

    Parameters
    ----------
    client : distributed.Client
    address, name : str
    again : bool
    """
    _end(client, address, name, UNFIT, again=again)


def _end(client: Client, address: str, name: str, why: str, *, again: bool) -> None:
    jobs = client.cluster if isinstance(client.cluster, JobCluster) else None
    if jobs is None and again:
        ask(client, client.run_on_scheduler, _killer(), address, KILL_SECONDS)
        return
    if jobs is not None:
        jobs.give_up(name, why)
    remove(client, [address])


def remove(client: Client, addresses: Sequence[str]) -> None:
    """Send workers away.

    Parameters
    ----------
    client : distributed.Client
    addresses : sequence of str
    """
    for address in addresses:
        ask(client, client.run_on_scheduler, _remover(), address)


# Functions of their own are sent as code: the scheduler may lack tilenet.


def _killer() -> Callable[..., Coroutine[Any, Any, None]]:
    async def kill(address: str, timeout: float, dask_scheduler: Any) -> None:
        await dask_scheduler.restart_workers(
            [address],
            timeout=timeout,
            wait_for_workers=False,
            on_error="return",
            stimulus_id="tilenet-hung",
        )

    return kill


def _remover() -> Callable[..., Coroutine[Any, Any, None]]:
    async def remove(address: str, dask_scheduler: Any) -> None:
        await dask_scheduler.remove_worker(address, stimulus_id="tilenet-unfit", expected=True)

    return remove
