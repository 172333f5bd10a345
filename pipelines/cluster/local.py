"""Worker processes on this machine: as many as it has cores, or one per GPU."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import warnings
from collections.abc import Iterator

import dask
from distributed import Client, LocalCluster

from pipelines.cluster.nannies import STARTS, listen, nanny_log_tail
from pipelines.cluster.options import ClusterOptions
from pipelines.cluster.worker_settings import worker_settings
from tilenet.errors import InvalidData, WorkersDied

#: Where the dashboard listens when the port is free: loopback only.
DASHBOARD = "127.0.0.1:8787"


@contextlib.contextmanager
def local_client(options: ClusterOptions) -> Iterator[Client]:
    """Start worker processes, and end them.

    GPU workers offer Dask's resource GPU, one of it per slot: several blocks share a device, one
    computing while others are read and written. Each worker sees one device.
    """
    listen()
    with (
        # Dask would end what looks after a worker that does not come back soon, for ever.
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"}),
        dask.config.set(worker_settings(options.threads, options.gpus)),
        _start(options) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _start(options: ClusterOptions) -> LocalCluster:
    # One worker that dies while all come up ends Dask's start of all of them.
    for _ in range(STARTS - 1):
        with contextlib.suppress(RuntimeError):
            return _start_once(options)
    try:
        return _start_once(options)
    except RuntimeError as error:
        why = "it ended before it had come up"
        raise WorkersDied(STARTS, why, nanny_log_tail()) from error


def _start_once(options: ClusterOptions) -> LocalCluster:
    accept_any_port()
    return LocalCluster(
        n_workers=options.workers,
        threads_per_worker=options.slots,
        processes=True,
        memory_limit=options.memory,
        host="127.0.0.1",
        dashboard_address=choose_dashboard(options.dashboard),
        silence_logs=logging.CRITICAL,
        resources={"GPU": options.slots} if options.gpus else None,
    )


def visible_gpus() -> int:
    """Count the GPUs that CUDA_VISIBLE_DEVICES leaves this process."""
    import torch

    return torch.cuda.device_count()


def accept_any_port() -> None:
    """Let Dask's dashboards take another port without a warning, from now on.

    Several commands that start at the same time find the same port free, and one gets it. Not for a
    while only: filters are the process's, and another thread that puts back those that it found
    would undo it in the middle.
    """
    warnings.filterwarnings("ignore", message="Port .* is already in use")


def choose_dashboard(wanted: str | None) -> str:
    """Choose where the dashboard listens: another port on loopback where Dask's usual one is taken.

    Parameters
    ----------
    wanted : str or None
        HOST:PORT, if the user said so; an error when nobody can listen there.

    Returns
    -------
    str
        HOST:PORT.
    """
    host, _, port = (wanted or DASHBOARD).rpartition(":")
    try:
        socket.create_server((host, int(port))).close()
    except OSError as error:
        if wanted is None:
            return f"{host}:0"
        problem = f"cannot be listened on: {error.strerror or error}"
        raise InvalidData(f"--dashboard {wanted}", problem, "Give another address.") from error
    return f"{host}:{port}"


def default_workers(threads: int) -> int:
    """Give the number of local worker processes that fill the machine.

    Parameters
    ----------
    threads : int
        Of each.

    Returns
    -------
    int
        At least 1.
    """
    # A container or a job may be allowed fewer cores than the machine has; macOS cannot say.
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // threads)
