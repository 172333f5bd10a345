"""The job script that holds workers, written by dask-jobqueue.

Its ``Job`` classes know each system's directives, and how jobs are submitted and cancelled. Its
clusters are not used: they do not notice a job that ends before its worker has arrived, nor one
whose workers are several, and their adaptive scaling may end a worker that computes. ``jobs`` does
that part.
"""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.cluster.options import Batch, ClusterOptions, System
from pipelines.cluster.tls import security
from pipelines.cluster.worker_settings import ENDS, exports, worker_settings
from tilenet.errors import InvalidData

#: Seconds after which a worker that cannot reach its scheduler ends, and its job with it.
DEATH_SECONDS = 60


def load_library(system: System) -> Any:
    """Import what dask-jobqueue knows of a batch system; the first time in the main thread."""
    if importlib.util.find_spec("dask_jobqueue") is None:
        problem = f"jobs of {system} need dask-jobqueue, and it is not installed"
        cure = "Install it: pip install 'tilenet[jobqueue]'."
        raise InvalidData("Cluster", problem, cure)
    # The import takes Ctrl-C for itself (dask_jobqueue 0.9, runner.py): give it back.
    before = signal.getsignal(signal.SIGINT)
    module = importlib.import_module(f"dask_jobqueue.{system}")
    if signal.getsignal(signal.SIGINT) is not before:
        signal.signal(signal.SIGINT, before)
    return getattr(module, f"{system.upper()}Job")


def make_job(options: ClusterOptions, *, address: str, job_name: str, worker: str) -> Any:
    """Describe a job.

    Parameters
    ----------
    options : ClusterOptions
        With ``batch``.
    address : str
        Of the scheduler that the workers join.
    job_name : str
        Name of the job, as the queue shows it.
    worker : str
        Name of its worker, or the beginning of the names of several.

    Returns
    -------
    dask_jobqueue.core.Job
        With ``job_script()``, ``submit_command``, ``cancel_command`` and ``job_id_regexp``.
    """
    batch = options.batch
    assert batch is not None
    job_class = load_library(batch.system)
    own = _SYSTEMS[batch.system](options, batch)
    logs, gpus = _LOGS[batch.system](batch.log_directory), own.pop("gpus", [])
    return job_class(
        address,
        name=worker,
        job_name=job_name,
        cores=options.slots * batch.workers,
        memory=options.memory * batch.workers,
        processes=batch.workers,
        queue=batch.queue,
        interface=batch.interface,
        protocol="tls://" if options.tls else None,
        security=security(options.tls),
        death_timeout=DEATH_SECONDS,
        local_directory=batch.local_directory,
        worker_extra_args=_worker_arguments(options, batch),
        job_extra_directives=[*logs, *gpus, *batch.directives],
        job_script_prologue=_prologue(options, batch),
        python=shlex.quote(batch.python or sys.executable),
        **own,
    )


def _worker_arguments(options: ClusterOptions, batch: Batch) -> list[str]:
    resources = ["--resources", f"GPU={options.slots}"] if batch.gpus else []
    # Dask's default are pages for everybody on the network.
    return [*resources, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]


def _prologue(options: ClusterOptions, batch: Batch) -> list[str]:
    # Not every system begins a job in the folder that it was submitted in, and paths may be
    # relative. Lifetimes count from the start of the job: a worker that is restarted ends no later.
    folder = f"cd {shlex.quote(str(Path.cwd()))}"
    ends = f"$(( $(date +%s) + {batch.lifetime} - RANDOM % {batch.stagger + 1} ))"
    settings = worker_settings(options.threads, batch.gpus)
    return [folder, *batch.setup, f"export {ENDS}={ends}", *exports(settings)]


def _clock(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def _slurm(options: ClusterOptions, batch: Batch) -> dict[str, Any]:
    gpus = [f"--gres=gpu:{batch.gpus}"] if batch.gpus else []
    return {
        "account": batch.account,
        "walltime": _clock(batch.walltime),
        "job_cpu": batch.cores,
        "gpus": gpus,
    }


def _lsf(options: ClusterOptions, batch: Batch) -> dict[str, Any]:
    gpus = [f'-gpu "num={batch.gpus}"'] if batch.gpus else []
    return {
        "project": batch.account,
        "walltime": _clock(batch.walltime)[:-3],
        "ncpus": batch.cores,
        "mem": options.memory * batch.workers,
        "gpus": gpus,
    }


def _pbs(options: ClusterOptions, batch: Batch) -> dict[str, Any]:
    memory = -(-options.memory * batch.workers // 2**20)
    gpus = f":ngpus={batch.gpus}" if batch.gpus else ""
    return {
        "account": batch.account,
        "walltime": _clock(batch.walltime),
        "resource_spec": f"select=1:ncpus={batch.cores}:mem={memory}MB{gpus}",
    }


def _sge(options: ClusterOptions, batch: Batch) -> dict[str, Any]:
    # Names of parallel environments and of memory are the site's: they are given as directives.
    return {
        "project": batch.account,
        "walltime": _clock(batch.walltime),
        "resource_spec": f"gpu={batch.gpus}" if batch.gpus else None,
    }


_SYSTEMS: dict[str, Callable[[ClusterOptions, Batch], dict[str, Any]]] = {
    "slurm": _slurm,
    "lsf": _lsf,
    "pbs": _pbs,
    "sge": _sge,
}

# Where output goes; and where the system would take another shell than the script names, bash.
_LOGS: dict[str, Callable[[str], list[str]]] = {
    "slurm": lambda folder: [f"-o {folder}/%x-%j.log"],
    "lsf": lambda folder: [f"-o {folder}/%J.log"],
    "pbs": lambda folder: [f"-o {folder}/", "-j oe", "-S /bin/bash"],
    "sge": lambda folder: [f"-o {folder}/", "-S /bin/bash"],
}
