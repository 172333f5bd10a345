"""The queueing systems that are known: another one is a file of its own, and its name here."""

from __future__ import annotations

from pipelines.cluster.lsf import Lsf
from pipelines.cluster.pbs import Pbs
from pipelines.cluster.queueing import QueueingSystem
from pipelines.cluster.sge import Sge
from pipelines.cluster.slurm import Slurm

#: By name, in the order of messages.
SYSTEMS: dict[str, QueueingSystem] = {
    system.name: system for system in (Slurm(), Lsf(), Pbs(), Sge())
}
