"""From what is to be predicted to its plan."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np

from pipelines.cluster import ClusterOptions, leave_time
from pipelines.engine import Limits
from pipelines.outputs import Prediction
from pipelines.predict.job import Choices
from pipelines.predict.measured_speeds import Workplace
from tilenet.errors import ResumeRefused
from tilenet.geometry import AXES, ZYX, Box, zyx
from tilenet.inference import ModelHeader
from tilenet.networks import (
    IDENTITY,
    STORED_TYPES,
    UINT8,
    Orientation,
    orientations_to_text,
    parse_orientations,
)
from tilenet.planning import Costs, Plan, Request, check_plan_memory, device_kind
from tilenet.volumes import Volume, VolumeReference


class PlannedVolume(Protocol):
    """What a plan has to know of an input, which may exist on paper only."""

    @property
    def shape(self) -> ZYX:
        """Voxels, (z, y, x)."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def channels(self) -> int | None:
        """Number of channels; None without such an axis."""

    @property
    def chunk_shape(self) -> ZYX:
        """Voxels that are decoded as one piece, (z, y, x)."""

    @property
    def chunk_bytes(self) -> int:
        """Bytes of such a piece, with all channels that it holds."""


class PlannedJob(Protocol):
    """What a plan has to know of a prediction."""

    @property
    def volume(self) -> PlannedVolume: ...

    @property
    def header(self) -> ModelHeader:
        """What the model file says, or would."""

    @property
    def mask(self) -> VolumeReference | None: ...

    @property
    def choices(self) -> Choices: ...


def plan_job(
    job: PlannedJob, region: Box, cluster: ClusterOptions, begun: Volume | None = None
) -> Plan:
    """Plan a prediction by the rates measured here, if any, or take up a begun output's plan.

    Parameters
    ----------
    job : PlannedJob
    region : Box
        The part to predict.
    cluster : ClusterOptions
    begun : Volume, optional
        The output to be continued.

    Returns
    -------
    Plan
        By those rates, or the one taken up.
    """
    place = Workplace(cluster, job.choices.device, job.choices.codec)
    request = request_for(job, region, cluster, begun)
    if begun is None:
        return place.plan(request)
    stored = Prediction.from_attributes(begun.attributes).numeric_plan
    shapes = {"block": zyx(stored.block), "shard": begun.write_shape}
    for name, size in shapes.items():
        if (wanted := getattr(job.choices, name)) not in (None, size):
            raise ResumeRefused(begun.location, {name: (size, wanted)})
    shapes |= {"tile": zyx(stored.tile), "chunk": begun.chunk_shape}
    axis = AXES.index(stored.stream_axis)
    plan = place.rated(Plan(request=request, axis=axis, slab=stored.slab, **shapes))
    check_plan_memory(plan, "The plan that this output was begun with")
    return plan


def request_for(
    job: PlannedJob, region: Box, cluster: ClusterOptions, begun: Volume | None = None
) -> Request:
    """Say what is to be planned.

    Parameters
    ----------
    job : PlannedJob
    region : Box
        The part to predict.
    cluster : ClusterOptions
    begun : Volume, optional
        The output to be continued.

    Returns
    -------
    Request
        Without rates.
    """
    stored = Prediction.from_attributes(begun.attributes).numeric_plan if begun else None
    itemsize = STORED_TYPES[output_dtype(job, begun)].size
    channels = len(job.header.stored_outputs)
    threads = cluster.threads or (stored.threads if stored else 1)
    # An output that was begun with several threads is continued by as many fewer workers.
    workers = cluster.workers if cluster.cores is None else max(1, cluster.cores // threads)
    return Request(
        volume_shape=job.volume.shape,
        region=region,
        architecture=job.header.architecture,
        input_bytes=job.volume.dtype.itemsize * (job.volume.channels or 1),
        output_bytes=itemsize * channels,
        chunk_shape=job.volume.chunk_shape,
        chunk_bytes=job.volume.chunk_bytes,
        output_channels=channels,
        masked=job.mask is not None,
        precision=job.choices.precision or (stored.precision if stored else "float32"),
        device=device_kind(job.choices.device),
        workers=workers,
        slots=cluster.slots,
        threads=threads,
        memory=cluster.memory * cluster.workers // workers,
        device_memory=job.choices.device_memory,
        block=job.choices.block,
        shard=job.choices.shard,
        block_seconds=60 * job.choices.block_minutes,
        orientations=_orientations(job, begun),
    )


def planned_cluster(cluster: ClusterOptions, costs: Costs) -> tuple[ClusterOptions, Limits]:
    """Give the cluster that a plan is for, and what its workers may take.

    Parameters
    ----------
    cluster : ClusterOptions
    costs : Costs
        The plan, and how long its blocks last.

    Returns
    -------
    ClusterOptions
        With the plan's workers, and the time that they need at the end of a job.
    Limits
        For :func:`pipelines.engine.open_runner`.
    """
    request = costs.plan.request
    chosen = dataclasses.replace(
        cluster, workers=request.workers, threads=request.threads, memory=request.memory
    )
    limits = Limits.expecting(
        costs.block_seconds,
        timeout=cluster.block_timeout,
        memory=costs.plan.worker_bytes,
        outage=cluster.outage_timeout,
    )
    return leave_time(chosen, costs.block_seconds), limits


def _orientations(job: PlannedJob, begun: Volume | None) -> tuple[Orientation, ...]:
    chosen = job.choices.orientations
    if begun is None:
        return chosen or (IDENTITY,)
    begun_with = Prediction.from_attributes(begun.attributes)
    stored = parse_orientations(begun_with.test_time_augmentation)
    if chosen not in (None, stored):
        difference = (orientations_to_text(stored), orientations_to_text(chosen or stored))
        raise ResumeRefused(begun.location, {"test_time_augmentation": difference})
    return stored


def output_dtype(job: PlannedJob, begun: Volume | None) -> str:
    """Choose the data type of the stored values.

    Parameters
    ----------
    job : PlannedJob
    begun : Volume or None
        The output to be continued.

    Returns
    -------
    str
        The user's choice, the begun output's, or uint8 (float32 for scores without bounds).
    """
    if job.choices.dtype is not None:
        return job.choices.dtype
    if begun is not None:
        return str(begun.dtype)
    bounded = all(output.is_bounded for output in job.header.stored_outputs)
    return UINT8.name if bounded else "float32"
