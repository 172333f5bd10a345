"""A cluster as a user describes it: a strict TOML file, options of the command, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from pipelines.cluster.lifetimes import lifetime_of
from pipelines.cluster.profile_keys import ProfileKeys
from pipelines.cluster.systems import SYSTEMS

# What every kind of cluster has.
_LIMITS = ("block_timeout", "outage_timeout")

if TYPE_CHECKING:
    Kind = str
else:  # a type checker takes no list of systems
    Kind = Literal[("local", *SYSTEMS)]


class Profile(ProfileKeys):
    """Keys that fit together and the kind of cluster."""

    kind: Kind = "local"

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


#: Options of a command that stand for keys of a profile.
FLAGS = (*Profile.model_fields, "tls_ca", "tls_cert", "tls_key")
