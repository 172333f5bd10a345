"""The job script that holds workers, written by dask-jobqueue.

Its ``Job`` classes know each system's directives, and how jobs are submitted and cancelled; what
they lack is in the system's own file. Its clusters are not used: they do not notice a job that ends
before its worker has arrived, nor one whose workers are several, and their adaptive scaling may end
a worker that computes. ``jobs`` does that part.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from pipelines.cluster.options import Batch, ClusterOptions
from pipelines.cluster.tls import security
from pipelines.cluster.worker_settings import ENDS, exports, worker_settings

#: Seconds after which a worker that cannot reach its scheduler ends, and its job with it.
DEATH_SECONDS = 60


def make_job(options: ClusterOptions, *, address: str, job_name: str, worker: str) -> Any:
    """Describe a job that holds one worker or several.

    Parameters
    ----------
    options : ClusterOptions
        With ``batch``.
    address : str
        Of the scheduler that the workers join.
    job_name : str
        As the queue shows it.
    worker : str
        Name of its worker, or the beginning of the names of several.

    Returns
    -------
    dask_jobqueue.core.Job
        With ``job_script()``, ``submit_command``, ``cancel_command`` and ``job_id_regexp``.
    """
    batch = options.batch
    assert batch is not None
    profile, system = batch.profile, batch.system
    workers = profile.job_workers
    memory = options.memory * workers
    minutes, seconds = divmod(batch.walltime, 60)
    walltime = f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"
    return system.job_class()(
        address,
        name=worker,
        job_name=job_name,
        cores=options.slots * workers,
        memory=memory,
        processes=workers,
        queue=profile.queue,
        interface=profile.interface,
        protocol="tls://" if options.tls else None,
        security=security(options.tls),
        death_timeout=DEATH_SECONDS,
        local_directory=profile.local_directory,
        worker_extra_args=_worker_arguments(options, batch),
        job_extra_directives=[*system.directives(profile), *profile.directives],
        job_script_prologue=_prologue(options, batch),
        python=shlex.quote(profile.python or sys.executable),
        **system.arguments(profile, walltime, memory),
    )


def _worker_arguments(options: ClusterOptions, batch: Batch) -> list[str]:
    resources = ["--resources", f"GPU={options.slots}"] if batch.profile.gpus_per_job else []
    # Dask's default are pages for everybody on the network.
    return [*resources, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]


def _prologue(options: ClusterOptions, batch: Batch) -> list[str]:
    # Not every system begins a job in the folder that it was submitted in, and paths may be
    # relative. Lifetimes count from the start of the job: a worker that is restarted ends no later.
    folder = f"cd {shlex.quote(str(Path.cwd()))}"
    ends = f"$(( $(date +%s) + {batch.lifetime} - RANDOM % {batch.stagger + 1} ))"
    settings = worker_settings(options.threads, batch.profile.gpus_per_job)
    return [folder, *batch.profile.setup, f"export {ENDS}={ends}", *exports(settings)]
