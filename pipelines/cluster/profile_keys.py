"""The keys of a profile, which says where to compute; ``profile`` checks them together."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipelines.cluster.tls import Tls
from pipelines.cluster.values import read_address, read_bytes, read_seconds

#: Seconds that a run waits in all for what is away, unless the user says.
OUTAGE_SECONDS = 600.0

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


class ProfileKeys(_ProfileTable):
    """Where to compute. "Machine" is this one, or the one that a job gets."""

    kind: str = "local"
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
