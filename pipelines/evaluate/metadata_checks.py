"""What must fit together before a prediction is compared with its truth: what the metadata say."""

from __future__ import annotations

import click

from pipelines.evaluate.comparison import Comparison, Judgement, output_channels
from pipelines.evaluate.figure_choice import check_truth_values, chosen_figures
from pipelines.evaluate.origins import say_origins
from pipelines.evaluate.voxel_checks import check_labels, check_samples
from pipelines.options import region_box
from pipelines.outputs import check_bounded, check_whole, open_input, same_size, say_notes
from tilenet.errors import InvalidData
from tilenet.geometry import Box
from tilenet.networks import UINT8
from tilenet.volumes import Placed, Volume, VolumeReference, place


def check_comparison(
    prediction: VolumeReference, truth: VolumeReference, wanted: Judgement
) -> Comparison:
    """Open both volumes, read samples, and check that they can be compared as wanted.

    Parameters
    ----------
    prediction, truth : VolumeReference
    wanted : Judgement

    Returns
    -------
    Comparison
        Samples of both have been read.
    """
    _ = wanted.cut  # what it cannot be is refused first
    predicted, true = open_input(prediction), open_input(truth)
    figures = chosen_figures(wanted, predicted)
    _check_truth(true)
    check_truth_values(true, wanted)
    _check_channel(predicted, figures)
    placed = _place(predicted, true, wanted)
    _check_kind(predicted, wanted, figures)
    comparison = Comparison(
        prediction=prediction,
        truth=truth,
        predicted=predicted,
        true=placed,
        region=_region(predicted, placed, wanted),
        figures=figures,
        wanted=wanted,
    )
    # What is not stored yet reads as 0, and would be judged as if it were.
    cure = "Run the prediction to its end, or compare the part that is there with --region."
    check_whole(predicted, comparison.region, cure)
    check_whole(true, placed.inside(comparison.region))
    check_labels(comparison)
    if not wanted.segmentation and predicted.channels is None:
        check_samples(comparison)
    say_origins(comparison)
    return comparison


def _check_truth(true: Volume) -> None:
    what = f"Truth {true.location}"
    if true.channels is not None:
        problem = f"has {true.channels} channels, and labels have none"
        raise InvalidData(what, problem, "Ingest the channel of labels alone (--channel).")
    if true.dtype.kind not in "biu":
        problem = f"holds {true.dtype} values, and labels are integers"
        cure = "Give labels: 0 for membrane or background, above 0 for interior or instances."
        if true.dtype.kind == "f":
            cure += " Store whole numbers as integers with 'tilenet ingest --dtype uint32'."
        raise InvalidData(what, problem, cure)


def _check_channel(predicted: Volume, figures: tuple[str, ...]) -> None:
    if predicted.channels is None or figures == ("classes",):
        return
    names = [str(channel.get("name")) for channel in output_channels(predicted)]
    listed = f" ({', '.join(names)})" if names else ""
    problem = f"has {predicted.channels} channels{listed}, and one is compared with the truth"
    cure = "Choose that of the interior with --channel, or compare all with --figures classes."
    raise InvalidData(f"Prediction {predicted.location}", problem, cure)


def _place(predicted: Volume, true: Volume, wanted: Judgement) -> Placed:
    sizes = predicted.voxel_size, true.voxel_size
    alike = _same_voxels(predicted, true)
    if not (alike or wanted.ignore_voxel_size):
        problem = f"its voxels are {sizes[0]} nm (z, y, x), those of {true.location} {sizes[1]} nm"
        cure = "Give the truth of the same volume, or --ignore-voxel-size if one is stated wrong."
        raise InvalidData(f"Prediction {predicted.location}", problem, cure)
    if None in sizes and sizes != (None, None) and not wanted.ignore_voxel_size:
        silent, other = (predicted, true) if sizes[0] is None else (true, predicted)
        text = f"No voxel size is stated, and {other.location} states {other.voxel_size} nm."
        say_notes(silent.location, (text,))
    placed = place(true, predicted, wanted.label_offset, by_position=alike, what="The labels")
    say_notes(true.location, placed.notes)
    return placed


def _same_voxels(predicted: Volume, true: Volume) -> bool:
    size, wanted_size = predicted.voxel_size, true.voxel_size
    if size is None or wanted_size is None:
        return True
    first = 1 if true.shape[0] == 1 else 0  # a single section has no spacing along z
    return same_size(size[first:], wanted_size[first:])


def _region(predicted: Volume, true: Placed, wanted: Judgement) -> Box:
    asked = region_box(wanted.region, predicted.shape)
    region = asked.intersect(true.box)
    if region.size == 0:
        problem = f"lies outside of the truth {true.location}, which is in {true.box}"
        raise InvalidData(f"The region {asked}", problem, "Choose another --region.")
    if region != asked:
        text = f"{true.location} lies at {true.box} of {predicted.location}: judged is {region}."
        click.echo(text, err=True)
    return region


def _check_kind(predicted: Volume, wanted: Judgement, figures: tuple[str, ...]) -> None:
    what, dtype = f"Prediction {predicted.location}", predicted.dtype
    is_ours = predicted.attributes.get("kind") == "prediction"
    if wanted.segmentation:
        if dtype.kind not in "biu" or is_ours:
            problem = "holds probabilities, and --segmentation means instances"
            cure = "Leave it out, or make instances with 'tilenet label' first."
            raise InvalidData(what, problem, cure)
        return
    needs_probabilities = wanted.raw_threshold is None or "isbi" in figures
    if needs_probabilities and dtype.kind not in "bf" and dtype != UINT8.name:
        integers = f"{UINT8.name} ({UINT8.meaning})"
        problem = f"holds {dtype} values, and probabilities are {integers} or floating-point"
        cure = "If it holds instances, say so with --segmentation; or give --raw-threshold V."
        raise InvalidData(what, problem, cure)
    if needs_probabilities and predicted.channels is None:
        check_bounded(predicted)
    if is_ours and predicted.channels is None:
        _check_class(predicted, what, wanted)


def _check_class(predicted: Volume, what: str, wanted: Judgement) -> None:
    channels = output_channels(predicted)
    index = predicted.layout.channel or 0
    is_background = index < len(channels) and channels[index].get("label") == 0
    if is_background and not wanted.invert and wanted.truth_class is None:
        problem = (
            f"holds the probability of {channels[index].get('name')!r}, which stands for label 0, "
            "and the truth's interior is what is above 0"
        )
        cure = "Choose the channel of the interior with --channel, or compare 1 - p with --invert."
        raise InvalidData(what, problem, cure)
