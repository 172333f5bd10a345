"""What a pass over the training volumes found, and what of it is doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from pipelines.train.job import TrainingJob
from tilenet.training import VolumeStatistics, stored_range
from tilenet.volumes import FEW, is_likely

#: Share of the variance from which few voxels are said to carry most of it.
MOST = 0.5

#: Classes of which the voxels are listed.
LISTED = 12


def say_findings(job: TrainingJob) -> None:
    """Print the classes of every volume, and warnings, on stderr."""
    for volume in job.statistics.volumes:
        click.echo(_classes(volume), err=True)
    for text in warnings(job):
        click.echo(f"Warning: {text}", err=True)


def _classes(volume: VolumeStatistics) -> str:
    voxels = sum(volume.counts.values()) + volume.ignored
    known = "" if not volume.ignored else f"; {volume.labelled:.2%} of them are labelled"
    return f"{volume.labels}: {voxels} voxels{known}; classes {_listed(volume.counts)}"


def _listed(counts: Mapping[int, int]) -> str:
    total = sum(counts.values())
    shares = [f"{value} ({voxels / total:.2%})" for value, voxels in counts.items()]
    more = len(shares) - LISTED
    return ", ".join(shares[:LISTED]) + (f" and {more} more" if more > 0 else "")


def warnings(job: TrainingJob) -> Iterator[str]:
    """Say what of the findings is doubtful, a sentence or two each."""
    yield from _of_classes(job)
    yield from _of_ignored(job)
    yield from _of_held_out(job)
    for volume in job.statistics.volumes:
        yield from _of_grey_values(volume, own=job.recipe.intensity.own is not None)


def _of_classes(job: TrainingJob) -> Iterator[str]:
    targets, found = job.recipe.targets, job.statistics
    cure = "; where instances touch, --gap makes background" if targets.binary else ""
    for value in found.rare:
        text = f"Only {found.counts[value]} of {sum(found.counts.values())} voxels are of class"
        yield f"{text} {value}{'' if targets.gap else cure}."
    for volume in found.volumes:
        lacking = [str(value) for value in found.values if value not in volume.counts]
        if lacking:
            yield (
                f"{volume.labels} has no voxel of class {', '.join(lacking)}, which other volumes "
                "have. Label values have to mean the same in all of them."
            )


def _of_ignored(job: TrainingJob) -> Iterator[str]:
    ignore, volumes = job.recipe.targets.ignore, job.statistics.volumes
    if ignore is None or any(volume.ignored for volume in volumes) or _partly_held_out(job):
        return
    held = f"the classes are {_listed(job.statistics.counts)}"
    if job.recipe.targets.binary:
        ranges = (stored_range(volume) for volume in job.volumes)
        held = f"they hold {', '.join(f'{low} to {high}' for low, high in ranges)}"
    yield f"No voxel of the training labels has the ignored value {ignore}: {held}."


def _partly_held_out(job: TrainingJob) -> bool:
    # Whether the held-out box has ignored voxels.
    box, judged = job.held_out, job.judged
    return box is not None and judged is not None and sum(judged.values()) < box.size


def _of_held_out(job: TrainingJob) -> Iterator[str]:
    if job.judged is None:
        return
    lacking = [str(value) for value in job.statistics.values if value not in job.judged]
    if lacking:
        yield f"The held-out box {job.held_out} has no voxel of class {', '.join(lacking)}."
    chosen = job.recipe.validation.select
    partly = _partly_held_out(job)
    if chosen != "loss" and (partly or len(job.statistics.values) != 2):
        why = "holds ignored voxels" if partly else "does not have two classes"
        yield f"The held-out box {why}, so {chosen} is not defined, and the loss chooses the model."


def _of_grey_values(volume: VolumeStatistics, *, own: bool) -> Iterator[str]:
    grey = volume.grey
    if grey.few > MOST:
        yield (
            f"In {volume.raw}, {FEW:.1%} of the voxels carry {grey.few:.0%} of the variance of the "
            "grey values, so the others are hardly told apart. Clip them, with --clip 0.5,99.5 "
            "say; leave out what is no specimen with --void."
        )
    if is_likely(grey.mean, grey.std):
        return
    found = f"have mean {grey.mean:.3g} and standard deviation {grey.std:.3g} when normalised by"
    if own:
        yield (
            f"In the training region of {volume.raw}, grey values {found} the statistics of the "
            "whole volume, where 0 and 1 are usual. Leave out what is no specimen with --void, or "
            "clip with --clip 0.5,99.5, say."
        )
        return
    yield (
        f"In {volume.raw}, grey values {found} the rule of all volumes, where 0 and 1 are usual. "
        "Where volumes have other grey scales, say --intensity volume: each has its own rule."
    )
