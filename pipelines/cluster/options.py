"""Which cluster to use, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Batch systems whose jobs can be workers.
System = Literal["slurm", "lsf", "pbs", "sge"]

#: Seconds that a run waits in all for what is away, unless the user says.
OUTAGE_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files that encrypt what a cluster's processes say, and prove who they are.

    Parameters
    ----------
    ca : str
        Certificate of the authority that signed the others, PEM.
    cert, key : str
        Certificate of this side and its private key, PEM.
    """

    ca: str
    cert: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Jobs of a batch system that hold the workers.

    Parameters
    ----------
    system : {"slurm", "lsf", "pbs", "sge"}
        Which one.
    walltime : int
        Seconds that a job may run.
    lifetime, stagger : int
        Seconds after which a job's workers take no further block, finish those they have and end;
        and how much earlier, drawn anew for each job, so that they do not all end at once.
    lifetime_chosen : bool
        Whether the user chose the lifetime; else it is shorter where longer blocks are planned.
    workers : int
        Worker processes of a job.
    gpus : int
        GPUs of a job, one per worker.
    cores : int
        CPU cores of a job.
    min_jobs, max_jobs : int
        Jobs at once, as many as there is work for.
    start_timeout : float
        Seconds to go without any worker.
    queue, account : str or None
        Queue (partition), and whom to charge.
    directives : tuple of str
        Further directives, each as it follows #SBATCH, #BSUB, #PBS or #$.
    setup : tuple of str
        Shell lines before the workers start, for example "module load cuda".
    python : str or None
        Interpreter of the workers; this process's by default.
    interface : str or None
        Network interface of scheduler and workers, for example ib0.
    log_directory : str
        Where the jobs' output goes.
    local_directory : str or None
        Scratch folder of the workers.
    """

    system: System
    walltime: int
    lifetime: int
    stagger: int
    lifetime_chosen: bool = False
    workers: int = 1
    gpus: int = 0
    cores: int = 1
    min_jobs: int = 1
    max_jobs: int = 1
    start_timeout: float = 3600.0
    queue: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    python: str | None = None
    interface: str | None = None
    log_directory: str = "tilenet-logs"
    local_directory: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Which cluster to use.

    Parameters
    ----------
    scheduler : str or None
        Address of a running scheduler, for example tcp://node:8786, or its scheduler file.
    batch : Batch or None
        Jobs that hold the workers. Without either, workers are processes on this machine.
    workers : int
        Worker processes in all.
    slots : int
        Tasks at once in each worker.
    threads : int or None
        Threads that numerical libraries may use in each worker; None means 1, or what an output
        that is continued was begun with.
    memory : int
        Bytes that each worker may use.
    gpus : int
        GPUs of this machine, one per local worker; 0 where it computes on the CPU or one GPU.
    tls : Tls or None
        Files for encrypted connections.
    block_timeout : float or None
        Seconds in which a worker that computes has to finish some block; None is many times what
        one is expected to take.
    outage_timeout : float
        Seconds that a run waits in all while block after block fails.
    cores : int or None
        Cores of this machine, where the plan may share them out to workers and threads.
    machine : str or None
        What the workers compute with, from :func:`tilenet.inference.machine_name`; None asks here.
    dashboard : str or None
        Where the dashboard listens, HOST:PORT; None is loopback.
    """

    scheduler: str | None = None
    batch: Batch | None = None
    workers: int = 1
    slots: int = 2
    threads: int | None = None
    memory: int = 4 * 2**30
    gpus: int = 0
    tls: Tls | None = None
    block_timeout: float | None = None
    outage_timeout: float = OUTAGE_SECONDS
    cores: int | None = None
    machine: str | None = None
    dashboard: str | None = None

    @property
    def local(self) -> bool:
        """Whether the workers are processes on this machine."""
        return self.scheduler is None and self.batch is None
