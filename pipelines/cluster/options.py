"""Which cluster to use, as frozen values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from pipelines.cluster.lifetimes import lifetime_of
from pipelines.cluster.profile import Profile
from pipelines.cluster.profile_keys import OUTAGE_SECONDS
from pipelines.cluster.queueing import QueueingSystem
from pipelines.cluster.systems import SYSTEMS
from pipelines.cluster.tls import Tls
from pipelines.progress import clock

if TYPE_CHECKING:
    from pipelines.cluster.joined import Joining


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Jobs of a queueing system that hold the workers."""

    profile: Profile
    # Seconds after which a job's workers take no further block, finish those they have and end.
    lifetime: int
    # How much earlier, drawn anew for each job, so that they do not all end at once.
    stagger: int

    @property
    def system(self) -> QueueingSystem:
        return SYSTEMS[self.profile.kind]

    @property
    def walltime(self) -> int:
        """Seconds that a job may run."""
        assert self.profile.walltime is not None
        return self.profile.walltime


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Which cluster to use.

    Parameters
    ----------
    scheduler : str or None
        Address of a running scheduler, for example tcp://node:8786, or its scheduler file.
    batch : Batch or None
        Jobs that hold the workers. Without either, workers are processes on this machine.
    workers, slots : int
        Worker processes in all; tasks at once in each.
    threads : int or None
        Of numerical libraries in each worker; None: 1, or as a continued output was begun.
    memory : int
        Bytes that each worker may use.
    gpus : int
        GPUs of this machine, one per local worker; 0 where it computes on the CPU or one GPU.
    tls : Tls or None
    block_timeout : float or None
        Seconds in which a busy worker has to finish a block; None: many times what is expected.
    outage_timeout : float
        Seconds that a run waits in all while block after block fails.
    cores : int or None
        Cores of this machine, where the plan may share them out to workers and threads.
    machine : str or None
        What the workers compute with, from ``machine_name``; None asks here.
    dashboard : str or None
        Where the dashboard listens, HOST:PORT; None is loopback.
    joining : Joining or None
        Holds the client of a running scheduler; None joins it anew whenever it is needed.
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
    joining: Joining | None = field(default=None, compare=False, repr=False)

    @property
    def local(self) -> bool:
        """Whether the workers are processes on this machine."""
        return self.scheduler is None and self.batch is None


def leave_time(options: ClusterOptions, block_seconds: float) -> ClusterOptions:
    """Leave the workers of jobs the time to finish blocks, or warn where that cannot be.

    Parameters
    ----------
    options : ClusterOptions
    block_seconds : float
        What a block is expected to take while others keep its worker busy.

    Returns
    -------
    ClusterOptions
        With a shorter lifetime of jobs where that is needed and the user chose none.
    """
    if (batch := options.batch) is None:
        return options
    if batch.profile.lifetime is None:
        lifetime = lifetime_of(batch.walltime, options.slots, block_seconds)
        batch = dataclasses.replace(batch, lifetime=min(batch.lifetime, lifetime))
    left, held = batch.walltime - batch.lifetime, options.slots * block_seconds
    if held > left:
        click.echo(
            f"Warning: a job is killed {clock(left)} after its workers take no further block, and "
            f"those that one holds by then, {options.slots} of about {clock(block_seconds)}, take "
            f"{clock(held)} in turn: what is not done is computed twice. Give more --walltime, a "
            "shorter --lifetime, or fewer --slots or --block-minutes.",
            err=True,
        )
    return dataclasses.replace(options, batch=batch)
