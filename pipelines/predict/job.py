"""A prediction that is planned, and not begun: what predict and plan share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.outputs import GreyRule, Prediction
from pipelines.predict.intensity_rule import IntensityRule
from tilenet.geometry import AXES, ZYX
from tilenet.inference import ModelHeader, PredictTask, place_mask
from tilenet.networks import STORED_TYPES, Execution, Orientation, averaged, orientations_to_json
from tilenet.planning import BLOCK_SECONDS, DEVICE_BYTES, Plan
from tilenet.volumes import Intensity, NewVolume, OutputReference, Volume, VolumeReference, identify
from tilenet.volumes.stores import seen_from_anywhere


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user chose of how to predict; None leaves it to the plan or the begun output.

    Parameters
    ----------
    block, shard : tuple of int or None
        Voxels of a task and of an object, (z, y, x).
    block_minutes : float
        How long a block is to last, about.
    dtype, precision : str or None
        Of the stored values; of the network.
    device : str
        "cpu", "cuda" or "cuda:N".
    device_memory : int
        Bytes that an evaluation may use on a GPU.
    codec : str
        Compressor of the output.
    ignore_voxel_size : bool
        Apply a model that was trained at another voxel size.
    strict : bool
        Refuse an input of which something is doubtful.
    rotations : int or None
        Orientations of the sections that are averaged: 1, 7 or 8.
    flips : bool
        Average the four flips instead.
    intensity : IntensityRule
    overwrite : bool
    """

    block: ZYX | None = None
    shard: ZYX | None = None
    block_minutes: float = BLOCK_SECONDS / 60
    dtype: str | None = None
    precision: str | None = None
    device: str = "cpu"
    device_memory: int = DEVICE_BYTES
    codec: str = "zstd"
    ignore_voxel_size: bool = False
    strict: bool = False
    rotations: int | None = None
    flips: bool = False
    intensity: IntensityRule = field(default_factory=IntensityRule)
    overwrite: bool = False

    def __post_init__(self) -> None:
        averaged(1 if self.rotations is None else self.rotations, self.flips)

    @property
    def orientations(self) -> tuple[Orientation, ...] | None:
        """The orientations chosen; None where nothing was."""
        if self.rotations is None and not self.flips:
            return None
        return averaged(self.rotations or 1, self.flips)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A checked prediction.

    Parameters
    ----------
    source : VolumeReference
    volume : Volume
        The input, opened.
    model, sha256 : str
        The model file and its content.
    header : ModelHeader
    mask, mask_volume : VolumeReference and Volume, or None
        Where to predict, and the same opened.
    choices : Choices
    """

    source: VolumeReference
    volume: Volume
    model: str
    sha256: str
    header: ModelHeader
    mask: VolumeReference | None
    mask_volume: Volume | None
    choices: Choices


def trained_on(header: ModelHeader) -> list[dict[str, Any]]:
    """Say which voxels a model was trained on, as its file has it; empty where it does not."""
    # The record is for people: it may hold anything.
    volumes = header.training.get("volumes")
    known = volumes.values() if isinstance(volumes, Mapping) else ()
    return [
        {name: volume.get(name) for name in ("raw", "labels", "region")}
        for volume in known
        if isinstance(volume, Mapping)
    ]


def provenance(
    job: Job, plan: Plan, *, intensity: GreyRule, facts: Mapping[str, Any], dtype: str
) -> Prediction:
    """State everything that determines the output's values.

    Parameters
    ----------
    job : Job
    plan : Plan
    intensity : GreyRule
        The rule as given, and its numbers.
    facts : mapping
        What decides the last bits, from the workers, and what explains it.
    dtype : str
        Of the stored values.

    Returns
    -------
    Prediction
        Compared field by field before a resume.
    """
    outputs = job.header.stored_outputs
    # A model has one activation; what it gives is bounded, or it is not.
    activation, bounded = outputs[0].activation, outputs[0].is_bounded
    averaged_over = f"{activation} {'probabilities' if bounded else 'scores'}"
    stated: dict[str, Any] = {
        "kind": "prediction",
        "model_sha256": job.sha256,
        "input": identify(job.volume),
        "mask": None if job.mask_volume is None else mask_identity(job.volume, job.mask_volume),
        "intensity": intensity,
        "test_time_augmentation": orientations_to_json(
            plan.request.orientations, averaged_over, plan.request.precision
        ),
        "output": {
            "dtype": dtype,
            "rule": STORED_TYPES[dtype].rule,
            "activation": activation,
            "channels": [{"name": output.name, "label": output.label} for output in outputs],
        },
        "numeric_plan": {
            "block": list(plan.block),
            "tile": list(plan.tile),
            "tile_input": list(plan.tile_input),
            "stream_axis": AXES[plan.axis],
            "slab": plan.slab,
            "batch": 1,
            "precision": plan.request.precision,
            "threads": plan.request.threads,
            **facts,
        },
    }
    if volumes := trained_on(job.header):
        stated["trained_on"] = volumes
    return Prediction.from_attributes(stated)


def mask_identity(volume: Volume, mask: Volume) -> dict[str, Any]:
    """Recognise a mask, and where it lies in the volume.

    Parameters
    ----------
    volume, mask : Volume

    Returns
    -------
    dict
        JSON values; of a mask that begins where the volume does, as older versions said it.
    """
    offset = place_mask(volume, mask).offset
    return identify(mask) | ({"offset": list(offset)} if any(offset) else {})


def execution(job: Job, plan: Plan) -> Execution:
    """Give how a worker is to run the network.

    Parameters
    ----------
    job : Job
    plan : Plan

    Returns
    -------
    Execution
        What changes the bits of a result, the device, and how tasks share it.
    """
    request = plan.request
    return Execution(
        job.choices.device,
        request.precision,
        request.threads,
        axis=plan.axis,
        slab=plan.slab,
        streams=plan.streams,
        queued_rows=plan.queued_rows,
    )


def predict_task(
    job: Job,
    plan: Plan,
    output: OutputReference,
    *,
    intensity: Intensity,
    facts: Mapping[str, Any],
    run: str,
) -> PredictTask:
    """Make what a worker runs.

    Parameters
    ----------
    job : Job
    plan : Plan
    output : OutputReference
        Created already.
    intensity : Intensity
        Rule that normalises grey values, as it came to be.
    facts : mapping
        What decides the last bits, which every worker must have in common.
    run : str

    Returns
    -------
    PredictTask
        Called with the box of a block.
    """
    return PredictTask(
        source=job.source,
        output=output,
        model=seen_from_anywhere(job.model),
        model_sha256=job.sha256,
        execution=execution(job, plan),
        intensity=intensity,
        architecture=plan.request.architecture,
        tile=plan.tile,
        run=run,
        orientations=plan.request.orientations,
        mask=job.mask,
        facts=tuple(facts.items()),
    )


def new_output(job: Job, plan: Plan, dtype: str, record: Prediction) -> NewVolume:
    return NewVolume(
        shape=job.volume.shape,
        dtype=dtype,
        chunk=plan.chunk,
        shard=plan.shard,
        voxel_size=job.volume.voxel_size,
        translation=job.volume.layout.translation,
        channels=job.header.stored_channels,
        codec=job.choices.codec,
        attributes=record.to_attributes(),
    )
