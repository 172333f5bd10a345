"""What has to fit together before a prediction begins; nothing is written here."""

from __future__ import annotations

from dataclasses import replace

from pipelines.outputs import (
    Prediction,
    check_apart,
    check_whole,
    find_begun,
    open_input,
    same_size,
    say_notes,
)
from pipelines.predict.job import Choices, Job
from tilenet.errors import (
    InvalidData,
    ModelMismatch,
    ResumeRefused,
    VoxelSizeMismatch,
)
from tilenet.geometry import Box
from tilenet.inference import ModelHeader, model_sha256, place_mask, read_header
from tilenet.networks import STORED_TYPES, check_quarter_turns
from tilenet.planning import Plan
from tilenet.volumes import (
    Volume,
    VolumeReference,
    compressors,
)


def check_job(
    source: VolumeReference, model: str, *, mask: VolumeReference | None, choices: Choices
) -> Job:
    """Open everything and check that it fits together; nothing is written.

    Parameters
    ----------
    source : VolumeReference
    model : str
    mask : VolumeReference or None
        Where to predict.
    choices : Choices

    Returns
    -------
    Job
        Checked.
    """
    header = read_header(model)
    volume = open_input(source, strict=choices.strict)
    _check_channels(volume, header, model)
    check_choices(model, header, choices)
    choices = replace(choices, intensity=choices.intensity.of_model(header))
    if not choices.ignore_voxel_size:
        _check_voxel_size(volume, header, strict=choices.strict)
        _check_square_voxels(volume, choices)
    mask_volume = None if mask is None else open_input(mask, strict=choices.strict)
    if mask_volume is not None:
        _check_mask(volume, mask_volume, strict=choices.strict)
    return Job(
        source=source,
        volume=volume,
        model=model,
        sha256=model_sha256(model),
        header=header,
        mask=mask,
        mask_volume=mask_volume,
        choices=choices,
    )


def check_choices(model: str, header: ModelHeader, choices: Choices) -> None:
    """Refuse what a model cannot do, and a codec that there is not."""
    bounded = choices.dtype is not None and STORED_TYPES[choices.dtype].is_bounded
    if bounded and not all(output.is_bounded for output in header.stored_outputs):
        problem = f"gives scores without bounds, which {choices.dtype} cannot hold"
        raise ModelMismatch(model, problem, "Store them with --dtype float32.")
    compressors(choices.codec)
    check_quarter_turns(choices.orientations or (), header.architecture)


def _check_mask(volume: Volume, mask: Volume, *, strict: bool) -> None:
    if mask.channels is not None:
        problem = f"{mask.location} has {mask.channels} channels"
        raise InvalidData("Mask", problem, "Give a mask of one channel.")
    say_notes(mask.location, place_mask(volume, mask).notes, strict=strict)


def _check_channels(volume: Volume, header: ModelHeader, model: str) -> None:
    wanted, found = header.architecture.in_channels, volume.channels or 1
    if wanted != found:
        problem = f"takes {wanted} channels, but {volume.location} has {found}"
        cure = "Choose one with --channel." if wanted == 1 else "Give a volume with as many."
        raise ModelMismatch(model, problem, cure)


def _check_square_voxels(volume: Volume, choices: Choices) -> None:
    size = volume.voxel_size
    if size is None or same_size(size[1:2], size[2:]):
        return
    if any(orientation.transposed for orientation in choices.orientations or ()):
        problem = (
            f"has voxels of {size[1]:g} nm along y and {size[2]:g} nm along x, which quarter turns "
            "would exchange"
        )
        cure = "Average flips only (--flips), or give --ignore-voxel-size if the size is wrong."
        raise InvalidData(volume.location, problem, cure)


def _check_voxel_size(volume: Volume, header: ModelHeader, *, strict: bool) -> None:
    if header.voxel_size is None:
        return
    if volume.voxel_size is None:
        size = ", ".join(f"{n:g}" for n in header.voxel_size)
        text = (
            f"No voxel size is stated, and the model was trained on voxels of {size} nm (z, y, x)."
        )
        say_notes(volume.location, (text,), strict=strict)
        return
    # A single section has no spacing along z.
    first = 1 if volume.shape[0] == 1 else 0
    if same_size(volume.voxel_size[first:], header.voxel_size[first:]):
        return
    levels = (volume.layout.levels or {}).items()
    fitting = [path for path, size in levels if size and same_size(size, header.voxel_size)]
    raise VoxelSizeMismatch(
        volume.location, volume.voxel_size, header.voxel_size, fitting[0] if fitting else None
    )


def find_prediction(job: Job, output: str) -> Volume | None:
    """Look at what lies where the output goes: a begun one is of the same model."""
    check_apart(output, job.source.location)
    check_apart(output, job.model)
    if job.mask is not None:
        check_apart(output, job.mask.location)
    begun = find_begun(output, "prediction", overwrite=job.choices.overwrite)
    # Before planning: its plan would be judged by another network.
    if begun is not None:
        model = Prediction.from_attributes(begun.attributes).model_sha256
        if model != job.sha256:
            raise ResumeRefused(begun.location, {"model_sha256": (model, job.sha256)})
    return begun


def check_inputs(job: Job, plan: Plan, *, measured: bool = False) -> None:
    """Refuse a prediction of what is not stored yet, in the input or the mask.

    Parameters
    ----------
    job : Job
    plan : Plan
    measured : bool
        Grey values of the whole volume are needed, whatever the region.
    """
    whole = Box.of_shape(job.volume.shape)
    needed = plan.grid.covered.grow(plan.reach, plan.reach).intersect(whole)
    check_whole(job.volume, whole if measured else needed)
    if job.mask_volume is not None:
        check_whole(job.mask_volume, Box.of_shape(job.mask_volume.shape))
