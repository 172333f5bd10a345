"""On paper: how many GPUs one scheduler feeds, and what a petabyte takes: arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.cluster import ClusterOptions
from pipelines.predict import Choices, cluster_of_gpus, paper_job, plan_job
from tilenet.geometry import ZYX, Box
from tilenet.planning import Costs

#: 10^15 voxels, and the GPUs that predict them.
PETABYTE: ZYX = (100_000, 100_000, 100_000)
GPUS = 1000

#: Host memory of a GPU's worker: enough for a block that lasts ten minutes.
WORKER_BYTES = 128 * 2**30

#: Bytes per shard while an output is listed, and per missing block in the list of them.
SHARD_BYTES, MISSING_BYTES = 1, 40


@dataclass(frozen=True)
class Measured:
    """What was measured."""

    # scheduler, client: seconds of processor time per block.
    scheduler: float
    client: float
    memory: float  # bytes resident of the client at the end
    listing: float | None  # seconds per shard to find out what is missing

    @property
    def busier(self) -> float:
        """Seconds per block of the process that is the first to have no time left."""
        return max(self.scheduler, self.client)


def petabyte(minutes: float, measured: Measured) -> dict[str, float]:
    """Plan a petabyte with the paper's network in bfloat16, in blocks of about so many minutes."""
    choices = Choices(block_minutes=minutes, precision="bfloat16", device="cuda")
    job = paper_job(PETABYTE, "uint8", choices, model=None, network="planar")
    cluster = cluster_of_gpus(ClusterOptions(workers=1, slots=2), GPUS, GPUS * WORKER_BYTES)
    plan = plan_job(job, Box.of_shape(PETABYTE), cluster)
    costs, blocks = Costs(plan), len(plan.grid)
    figures = {
        "minutes_wanted": minutes,
        "gpus_per_scheduler_at_that": 60 * minutes / measured.busier,
        "minutes_planned": costs.block_seconds / 60,
        "blocks": blocks,
        "objects": plan.objects,
        "gpu_hours": costs.hours,
        "days": costs.wall_seconds / 86400,
        "scheduler_hours": blocks * measured.scheduler / 3600,
        "client_hours": blocks * measured.client / 3600,
        "client_bytes": measured.memory + SHARD_BYTES * plan.objects + MISSING_BYTES * blocks,
    }
    if measured.listing is not None:
        figures["listing_seconds"] = plan.objects * measured.listing
    return figures
