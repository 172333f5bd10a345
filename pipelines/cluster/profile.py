"""A cluster as a user describes it: a strict TOML file, options of the command, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipelines.cluster.lifetimes import lifetime_of
from pipelines.cluster.systems import SYSTEMS
from pipelines.cluster.tls import Tls
from pipelines.cluster.values import read_address, read_bytes, read_seconds

#: Seconds that a run waits in all for what is away, unless the user says.
OUTAGE_SECONDS = 600.0

# What every kind of cluster has.
_LIMITS = ("block_timeout", "outage_timeout")

if TYPE_CHECKING:
    Kind = str
else:  # a type checker takes no list of systems
    Kind = Literal[("local", *SYSTEMS)]

Bytes = Annotated[int, BeforeValidator(read_bytes)]
Seconds = Annotated[int, BeforeValidator(read_seconds)]
Address = Annotated[str, BeforeValidator(read_address)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\r\n]+$")]


class _ProfileTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TlsFiles(_ProfileTable):
    """Files for encrypted connections, PEM; all three or none."""

    ca: Text | None = None  # certificate of the authority
    cert: Text | None = None  # of this side
    key: Text | None = None

    @property
    def files(self) -> Tls | None:
        """The three of them; None where none is given."""
        if self.ca and self.cert and self.key:
            return Tls(ca=self.ca, cert=self.cert, key=self.key)
        return None


class Profile(_ProfileTable):
    """Where to compute. "Machine" is this one, or the one that a job gets."""

    kind: Kind = "local"
    scheduler: Text | None = None  # one that runs: its address or scheduler file
    workers: Count | None = None  # of a machine; one per core, in jobs one or one per GPU
    slots: Count = 2  # blocks at once per worker
    threads: Count | None = None  # of each worker; 1
    memory: Bytes | None = None  # of a machine's workers together; a job has to say it
    queue: Text | None = None  # or partition
    account: Text | None = None  # whom to charge
    walltime: Seconds | None = None  # a job has to say it
    gpus_per_job: int = Field(default=0, ge=0)
    cores: Count | None = None  # of a job; as many as its workers have threads
    min_jobs: Count | None = None  # at once; 1
    max_jobs: Count | None = None  # at once, as there is work for; as many as the least
    # Further ones, each as it follows #SBATCH, #BSUB, #PBS or #$.
    directives: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    # Shell lines before the workers start.
    setup: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    python: Text | None = None  # interpreter of the workers; the command's own
    interface: Text | None = None  # network interface of scheduler and workers
    log_directory: Text = "tilenet-logs"  # of the jobs' output
    local_directory: Text | None = None  # scratch folder of the workers
    lifetime: Seconds | None = None  # after it, a job's workers take no further block
    lifetime_stagger: Seconds | None = None  # how much earlier, by chance
    start_timeout: Seconds = 3600  # to go without any worker
    block_timeout: Seconds | None = None  # in which a worker has to finish some block
    # That a run waits in all while block after block fails.
    outage_timeout: Seconds = int(OUTAGE_SECONDS)
    tls: TlsFiles = TlsFiles()
    dashboard: Address | None = None  # where it listens; on loopback

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
            systems = ", ".join(SYSTEMS)
            raise ValueError(f"{key} is of jobs: add kind (--cluster), one of {systems}")

    def _check_jobs(self) -> None:
        if self.scheduler is not None:
            raise ValueError(f"scheduler joins one that runs, kind {self.kind} starts its own")
        for key in ("walltime", "memory"):
            if getattr(self, key) is None:
                raise ValueError(f"{key} is missing: say what a job of {self.kind} needs")
        if self.gpus_per_job and self.workers not in (None, self.gpus_per_job):
            raise ValueError(f"workers {self.workers}: it is one per GPU, so {self.gpus_per_job}")
        if self.least_jobs > self.most_jobs:
            raise ValueError(f"min_jobs {self.least_jobs} is more than max_jobs {self.most_jobs}")
        self._check_times()
        if (lack := SYSTEMS[self.kind].lack(self)) is not None:
            raise ValueError(lack)

    def _check_times(self) -> None:
        assert self.walltime is not None
        lifetime = self.lifetime or lifetime_of(self.walltime, self.slots)
        if lifetime > self.walltime:
            raise ValueError("lifetime is longer than the walltime, which kills the workers")
        if (self.lifetime_stagger or 0) >= lifetime:
            raise ValueError(f"lifetime_stagger leaves nothing of the lifetime, {lifetime} s")

    @property
    def least_jobs(self) -> int:
        """Jobs at least."""
        return self.min_jobs or 1

    @property
    def most_jobs(self) -> int:
        """Jobs at most."""
        return self.max_jobs or self.least_jobs

    @property
    def job_workers(self) -> int:
        return self.workers or self.gpus_per_job or 1

    @property
    def job_cores(self) -> int:
        return self.cores or self.job_workers * (self.threads or 1)


#: Options of a command that stand for keys of a profile.
FLAGS = (*Profile.model_fields, "tls_ca", "tls_cert", "tls_key")
