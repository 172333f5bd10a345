"""A cluster as a user describes it: a strict TOML file, options of the command, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

import psutil
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipelines.cluster.batch import load_library
from pipelines.cluster.lifetimes import lifetime_of, stagger_of
from pipelines.cluster.local import default_workers
from pipelines.cluster.options import OUTAGE_SECONDS, Batch, ClusterOptions, System, Tls
from pipelines.cluster.tls import check_tls
from pipelines.cluster.values import read_address, read_bytes, read_seconds
from tilenet.errors import InvalidProfile
from tilenet.strict_toml import load, validate

#: Share of the machine's available memory that workers may use together by default.
MEMORY_SHARE = 0.75

_SYSTEMS = get_args(System)

# What every kind of cluster has.
_LIMITS = ("block_timeout", "outage_timeout")

Bytes = Annotated[int, BeforeValidator(read_bytes)]
Seconds = Annotated[int, BeforeValidator(read_seconds)]
Address = Annotated[str, BeforeValidator(read_address)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\r\n]+$")]


class _ProfileTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TlsFiles(_ProfileTable):
    """Files for encrypted connections; all three or none.

    Parameters
    ----------
    ca, cert, key : str or None
        Certificate of the authority, this side's certificate, and its private key; PEM.
    """

    ca: Text | None = None
    cert: Text | None = None
    key: Text | None = None

    @property
    def files(self) -> Tls | None:
        """The three of them; None where none is given."""
        if self.ca and self.cert and self.key:
            return Tls(ca=self.ca, cert=self.cert, key=self.key)
        return None


class Profile(_ProfileTable):
    """Where to compute. "Machine" is this one, or the one that a job gets.

    Parameters
    ----------
    kind : {"local", "slurm", "lsf", "pbs", "sge"}
        Processes on this machine, or jobs of a batch system.
    scheduler : str or None
        A running scheduler instead: its address or scheduler file.
    workers : int or None
        Worker processes of a machine; one per core, in jobs one or one per GPU.
    slots : int
        Blocks at once per worker.
    threads : int or None
        CPU threads of each worker; 1.
    memory : int or None
        Bytes that the workers of a machine may use together; a job has to say it.
    queue, account : str or None
        Queue (partition), and whom to charge.
    walltime : int or None
        Seconds that a job may run; a job has to say it.
    gpus_per_job, cores : int
        GPUs and CPU cores of a job; as many cores as its workers have threads.
    min_jobs, max_jobs : int or None
        Jobs at once, as many as there is work for; 1, and as many as the least.
    directives : tuple of str
        Further directives, each as it follows #SBATCH, #BSUB, #PBS or #$.
    setup : tuple of str
        Shell lines before the workers start.
    python : str or None
        Interpreter of the workers; the command's own.
    interface : str or None
        Network interface of scheduler and workers.
    log_directory : str
        Where the jobs' output goes.
    local_directory : str or None
        Scratch folder of the workers.
    lifetime, lifetime_stagger : int or None
        Seconds after which a job's workers take no further block, and how much earlier by chance.
    start_timeout : int
        Seconds to go without any worker.
    block_timeout : int or None
        Seconds in which a worker has to finish some block.
    outage_timeout : int
        Seconds that a run waits in all while block after block fails.
    tls : TlsFiles
        Files for encrypted connections.
    dashboard : str or None
        Where the dashboard listens, HOST:PORT; on loopback.
    """

    kind: Literal["local", "slurm", "lsf", "pbs", "sge"] = "local"
    scheduler: Text | None = None
    workers: Count | None = None
    slots: Count = 2
    threads: Count | None = None
    memory: Bytes | None = None
    queue: Text | None = None
    account: Text | None = None
    walltime: Seconds | None = None
    gpus_per_job: int = Field(default=0, ge=0)
    cores: Count | None = None
    min_jobs: Count | None = None
    max_jobs: Count | None = None
    directives: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    setup: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    python: Text | None = None
    interface: Text | None = None
    log_directory: Text = "tilenet-logs"
    local_directory: Text | None = None
    lifetime: Seconds | None = None
    lifetime_stagger: Seconds | None = None
    start_timeout: Seconds = 3600
    block_timeout: Seconds | None = None
    outage_timeout: Seconds = int(OUTAGE_SECONDS)
    tls: TlsFiles = TlsFiles()
    dashboard: Address | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_tls()
        if self.kind == "local":
            self._check_no_jobs()
        else:
            self._check_jobs()
        return self

    def _check_tls(self) -> None:
        given = self.tls.model_fields_set
        if given and self.tls.files is None:
            missing = sorted({"ca", "cert", "key"} - given)
            raise ValueError(f"tls needs ca, cert and key: {', '.join(missing)} missing")
        if given and self.kind == "local" and self.scheduler is None:
            where = "add scheduler (--scheduler) or kind (--cluster)"
            raise ValueError(f"tls: nothing leaves this machine; {where}, or leave it out")

    def _check_no_jobs(self) -> None:
        where = {"kind", "scheduler", "tls", "dashboard"}
        general = {"workers", "slots", "threads", "memory", *_LIMITS, *where}
        for key in sorted(self.model_fields_set - general):
            systems = ", ".join(_SYSTEMS)
            raise ValueError(f"{key} is of jobs: add kind (--cluster), one of {systems}")

    def _check_jobs(self) -> None:
        if self.scheduler is not None:
            raise ValueError(f"scheduler joins one that runs, kind {self.kind} starts its own")
        for key in ("walltime", "memory"):
            if getattr(self, key) is None:
                raise ValueError(f"{key} is missing: say what a job of {self.kind} needs")
        if self.gpus_per_job and self.workers not in (None, self.gpus_per_job):
            raise ValueError(f"workers {self.workers}: it is one per GPU, so {self.gpus_per_job}")
        if self.lowest > self.highest:
            raise ValueError(f"min_jobs {self.lowest} is more than max_jobs {self.highest}")
        self._check_times()
        parallel = any(directive.startswith("-pe") for directive in self.directives)
        if self.kind == "sge" and self.job_cores > 1 and not parallel:
            environment = f'"-pe NAME {self.job_cores}"'
            raise ValueError(f"directives lack {environment}, the parallel environment of the site")

    def _check_times(self) -> None:
        assert self.walltime is not None
        lifetime = self.lifetime or lifetime_of(self.walltime, self.slots)
        if lifetime > self.walltime:
            raise ValueError("lifetime is longer than the walltime, which kills the workers")
        if (self.lifetime_stagger or 0) >= lifetime:
            raise ValueError(f"lifetime_stagger leaves nothing of the lifetime, {lifetime} s")

    @property
    def lowest(self) -> int:
        """Jobs at least."""
        return self.min_jobs or 1

    @property
    def highest(self) -> int:
        """Jobs at most."""
        return self.max_jobs or self.lowest

    @property
    def job_workers(self) -> int:
        """Workers of a job."""
        return self.workers or self.gpus_per_job or 1

    @property
    def job_cores(self) -> int:
        """CPU cores of a job."""
        return self.cores or self.job_workers * (self.threads or 1)


#: Options of a command that stand for keys of a profile.
FLAGS = (*Profile.model_fields, "tls_ca", "tls_cert", "tls_key")


def make_options(cluster: str | None, flags: Mapping[str, Any]) -> ClusterOptions:
    """Put a profile and the options of a command together; options win.

    Parameters
    ----------
    cluster : str or None
        A kind of cluster, or the path of a profile.
    flags : mapping
        Values by key of the profile; None where the option was not given.

    Returns
    -------
    ClusterOptions
        Checked as far as that goes without the cluster.

    Raises
    ------
    InvalidProfile
        Naming every key that is unknown (and the nearest known one) or has an impossible value.
    InvalidData
        When a library is missing, or TLS files do not fit.
    """
    values: dict[str, Any] = {}
    if cluster in ("local", *_SYSTEMS):
        values = {"kind": cluster}
    elif cluster is not None:
        values = load(cluster, InvalidProfile)
    given = {key: value for key, value in flags.items() if value not in (None, ())}
    files = {key: given.pop(f"tls_{key}") for key in ("ca", "cert", "key") if f"tls_{key}" in given}
    values |= given
    if files and isinstance(table := values.get("tls", {}), dict):
        values["tls"] = table | files
    profile = validate(Profile, values, cluster or "options", InvalidProfile)
    if (tls := profile.tls.files) is not None:
        check_tls(tls)
    return _of_machine(profile) if profile.kind == "local" else _of_jobs(profile, profile.kind)


def _of_machine(profile: Profile) -> ClusterOptions:
    count = profile.workers or default_workers(profile.threads or 1)
    chosen = (profile.scheduler, profile.workers, profile.threads)
    left_to_the_plan = chosen == (None, None, None)
    total = profile.memory or int(psutil.virtual_memory().available * MEMORY_SHARE)
    return ClusterOptions(
        scheduler=profile.scheduler,
        workers=count,
        slots=profile.slots,
        threads=profile.threads,
        memory=total // count,
        tls=profile.tls.files,
        block_timeout=profile.block_timeout,
        outage_timeout=profile.outage_timeout,
        cores=default_workers(1) if left_to_the_plan else None,
        dashboard=profile.dashboard,
    )


def _of_jobs(profile: Profile, system: System) -> ClusterOptions:
    load_library(system)
    assert profile.walltime is not None
    assert profile.memory is not None
    lifetime = profile.lifetime or lifetime_of(profile.walltime, profile.slots)
    batch = Batch(
        system=system,
        walltime=profile.walltime,
        lifetime=lifetime,
        stagger=profile.lifetime_stagger or stagger_of(lifetime),
        lifetime_chosen=profile.lifetime is not None,
        workers=profile.job_workers,
        gpus=profile.gpus_per_job,
        cores=profile.job_cores,
        min_jobs=profile.lowest,
        max_jobs=profile.highest,
        start_timeout=profile.start_timeout,
        queue=profile.queue,
        account=profile.account,
        directives=profile.directives,
        setup=profile.setup,
        python=profile.python,
        interface=profile.interface,
        log_directory=profile.log_directory,
        local_directory=profile.local_directory,
    )
    return ClusterOptions(
        batch=batch,
        workers=batch.workers * batch.max_jobs,
        slots=profile.slots,
        threads=profile.threads,
        memory=profile.memory // batch.workers,
        tls=profile.tls.files,
        dashboard=profile.dashboard,
        block_timeout=profile.block_timeout,
        outage_timeout=profile.outage_timeout,
    )
