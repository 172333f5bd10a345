"""What has to fit together before a prediction begins; nothing is written here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipelines.prediction import Choices, Job
from pipelines.provenance_checks import problems
from tilenet import storage, writing
from tilenet.checkpoint import ModelHeader, model_sha256, read_header
from tilenet.codecs import compressors
from tilenet.errors import (
    InvalidData,
    ModelMismatch,
    OutputExists,
    OutputInsideInput,
    ResumeRefused,
    VoxelSizeMismatch,
)
from tilenet.geometry import Box
from tilenet.listing import count_stored
from tilenet.new_volume import describe_existing
from tilenet.orientation import check_quarter_turns, stated
from tilenet.plan import Plan
from tilenet.predict_task import factor_of
from tilenet.tasks import VolumeReference
from tilenet.tiling import BlockGrid
from tilenet.volume import WHOLE_KINDS, Volume, open_volume
from tilenet.volume_layout import attributes_of

#: Missing objects that are counted only.
MANY = 10**7

#: Voxel sizes that differ by less than this share are the same.
VOXEL_SIZE_TOLERANCE = 0.02


def check_job(
    source: VolumeReference, model: str, *, mask: VolumeReference | None, choices: Choices
) -> Job:
    """Open everything and check that it fits together.

    Parameters
    ----------
    source : VolumeReference
        The input.
    model : str
        The model file.
    mask : VolumeReference or None
        Where to predict.
    choices : Choices
        What the user chose.

    Returns
    -------
    Job
        Nothing has been written.

    Raises
    ------
    TilenetError
        Whatever is wrong with the input, the model, the mask or their combination.
    """
    header = read_header(model)
    volume = source.open()
    _check_channels(volume, header, model)
    check_choices(model, header, choices)
    if not choices.ignore_voxel_size:
        _check_voxel_size(volume, header)
        _check_square_voxels(volume, choices)
    if mask is not None:
        _check_mask(volume, mask.open())
    return Job(
        source=source,
        volume=volume,
        model=model,
        sha256=model_sha256(model),
        header=header,
        mask=mask,
        choices=choices,
    )


def check_choices(model: str, header: ModelHeader, choices: Choices) -> None:
    """Refuse what a model cannot do, and a codec that there is not.

    Parameters
    ----------
    model : str
        The model file, for messages.
    header : ModelHeader
        What it says.
    choices : Choices
        What the user chose.

    Raises
    ------
    TilenetError
        Naming the choice.
    """
    if choices.dtype == "uint8" and header.activation == "linear":
        problem = "gives scores without bounds, which uint8 cannot hold"
        raise ModelMismatch(model, problem, "Store them with --dtype float32.")
    compressors(choices.codec)
    check_quarter_turns(choices.orientations or (), header.architecture)


def _check_mask(volume: Volume, mask: Volume) -> None:
    if mask.channels is not None:
        problem = f"{mask.location} has {mask.channels} channels"
        raise InvalidData("Mask", problem, "Give a mask of one channel.")
    factor_of(volume, mask)


def _check_channels(volume: Volume, header: ModelHeader, model: str) -> None:
    wanted, found = header.architecture.in_channels, volume.channels or 1
    if wanted != found:
        problem = f"takes {wanted} channels, but {volume.location} has {found}"
        cure = "Choose one with --channel." if wanted == 1 else "Give a volume with as many."
        raise ModelMismatch(model, problem, cure)


def _check_square_voxels(volume: Volume, choices: Choices) -> None:
    size = volume.voxel_size
    if size is None or _same_size(size[1:2], size[2:]):
        return
    if any(orientation.transposed for orientation in choices.orientations or ()):
        problem = (
            f"has voxels of {size[1]:g} nm along y and {size[2]:g} nm along x, which quarter turns "
            "would exchange"
        )
        cure = "Average flips only (--flips), or give --ignore-voxel-size if the size is wrong."
        raise InvalidData(volume.location, problem, cure)


def _check_voxel_size(volume: Volume, header: ModelHeader) -> None:
    if header.voxel_size is None or volume.voxel_size is None:
        return
    # A single section has no spacing along z.
    first = 1 if volume.shape[0] == 1 else 0
    if _same_size(volume.voxel_size[first:], header.voxel_size[first:]):
        return
    levels = (volume.layout.levels or {}).items()
    fitting = [path for path, size in levels if size and _same_size(size, header.voxel_size)]
    raise VoxelSizeMismatch(
        volume.location, volume.voxel_size, header.voxel_size, fitting[0] if fitting else None
    )


def _same_size(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return all(
        math.isclose(a, b, rel_tol=VOXEL_SIZE_TOLERANCE) for a, b in zip(first, second, strict=True)
    )


def check_output(job: Job, output: str, overwrite: bool) -> Volume | None:
    """Look at what lies where the output goes.

    Parameters
    ----------
    job : Job
        The prediction.
    output : str
        Path or URL.
    overwrite : bool
        Whether a Zarr that is there is to be replaced.

    Returns
    -------
    Volume or None
        The output that is to be continued; None when one is to be created.

    Raises
    ------
    OutputExists, OutputInsideInput
        When it is something else, or not apart from the input.
    """
    check_apart(output, job.source.location)
    check_apart(output, job.model)
    if job.mask is not None:
        check_apart(output, job.mask.location)
    writing.check_writable(output)
    found = describe_existing(output)
    if found is None:
        return None
    if found == "a Zarr group":
        if overwrite:
            return None
        if open_group_attributes(output).get("kind") == "prediction":
            return _check_begun(job, open_volume(output))
        found = "a Zarr group that is not a prediction of tilenet"
    elif overwrite and found == "a Zarr array":
        return None
    raise OutputExists(output, found, replaceable=found.startswith("a Zarr"))


def _check_begun(job: Job, begun: Volume) -> Volume:
    # Before planning: its plan would be judged by another network.
    stated(begun.attributes.get("test_time_augmentation", "none"))  # a later version's, perhaps
    check_provenance(begun)
    if begun.attributes["model_sha256"] != job.sha256:
        differences = {"model_sha256": (begun.attributes["model_sha256"], job.sha256)}
        raise ResumeRefused(begun.location, differences)
    return begun


def check_provenance(begun: Volume) -> None:
    """Refuse to go on with an output that does not say, or not truly, how it was begun.

    Parameters
    ----------
    begun : Volume
        An output of ours.

    Raises
    ------
    OutputExists
        Naming the first field that is missing or cannot be true.
    """
    found = problems(begun)
    if found:
        what = f"a {begun.attributes['kind']} whose provenance is incomplete: {found[0]}"
        raise OutputExists(begun.location, what)


def open_group_attributes(location: str) -> Mapping[str, Any]:
    """Read the provenance of a Zarr group.

    Parameters
    ----------
    location : str
        Path or URL of a group.

    Returns
    -------
    mapping
        Its attributes under "tilenet"; empty when it has none.
    """
    values = attributes_of(location, storage.open_node(location)).get("tilenet")
    return values if isinstance(values, Mapping) else {}


def check_whole(
    volume: Volume, region: Box, cure: str = "Run the command that makes it to its end."
) -> None:
    """Refuse what a command of ours has not made to its end: what is missing reads as zeros.

    Parameters
    ----------
    volume : Volume
        An input.
    region : Box
        The part that is needed.
    cure : str
        What to do about it.

    Raises
    ------
    InvalidData
        Naming the first shard that is missing.
    """
    if volume.attributes.get("kind") not in WHOLE_KINDS:
        return
    blocks = BlockGrid(volume.shape, volume.write_shape, region)
    what = f"objects that hold {region}"
    if len(blocks) > MANY and (lacking := len(blocks) - count_stored(volume.array)) > MANY:
        # A damaged shape, perhaps; to ask for one after the other would take for ever.
        problem = f"at least {lacking} of the {len(blocks)} {what} are not stored yet"
        raise InvalidData(volume.location, problem, cure)
    missing = volume.missing(blocks)
    if missing:
        problem = (
            f"{len(missing)} of the {len(blocks)} {what} are not stored yet, "
            f"the first {blocks[missing[0]]}"
        )
        raise InvalidData(volume.location, problem, cure)


def check_inputs(job: Job, plan: Plan, *, measured: bool = False) -> None:
    """Refuse a prediction of what is not stored yet.

    Parameters
    ----------
    job : Job
        The prediction.
    plan : Plan
        Its plan.
    measured : bool
        Grey values of the whole volume are needed, whatever the region.

    Raises
    ------
    InvalidData
        Naming the first shard that is missing in the input or the mask.
    """
    whole = Box.of_shape(job.volume.shape)
    needed = plan.grid.covered.grow(plan.reach, plan.reach).intersect(whole)
    check_whole(job.volume, whole if measured else needed)
    if job.mask is not None:
        mask = job.mask.open()
        check_whole(mask, Box.of_shape(mask.shape))


def check_folder(option: str, folder: str) -> None:
    """Refuse what cannot become a folder that is written to.

    Parameters
    ----------
    option : str
        Option that names it, for the message.
    folder : str
        Path or URL; a URL is not looked at.

    Raises
    ------
    InvalidData
        When it, or what it would lie in, is a file or must not be written to.
    """
    if storage.is_remote(folder):
        return
    if problem := writing.write_problem(storage.local_path(folder)):
        cure = "Give another folder, or change its permissions."
        raise InvalidData(f"{option} {folder}", problem, cure)


def check_apart(output: str, source: str) -> None:
    """Refuse an output inside the input, and the other way round.

    Parameters
    ----------
    output, source : str
        Paths or URLs.

    Raises
    ------
    OutputInsideInput
        When one contains the other.
    """
    if storage.is_remote(output) or storage.is_remote(source):
        inside = f"{output.rstrip('/')}/".startswith(f"{source.rstrip('/')}/")
        around = f"{source.rstrip('/')}/".startswith(f"{output.rstrip('/')}/")
    else:
        a, b = storage.local_path(output), storage.local_path(source)
        inside, around = a.is_relative_to(b), b.is_relative_to(a)
    if inside or around:
        raise OutputInsideInput(output, source)
