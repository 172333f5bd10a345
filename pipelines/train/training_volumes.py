"""Opening what is trained on: where labels lie in their raw volumes, and what of it may be read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pipelines.options import region_box
from pipelines.outputs import check_whole, open_input, say_notes
from tilenet.errors import InvalidData
from tilenet.geometry import AXES, ZYX, Box, zyx
from tilenet.training import Recipe, TrainingVolume, check_voxel_size, holds_same
from tilenet.volumes import PLACE_CURE, Placed, Volume, VolumeReference, place

if TYPE_CHECKING:
    from pipelines.train.training_options import TrainingOptions

#: What to do where the labels of a further volume do not fit it.
NOT_THERE = (
    "Give labels of the same place, or a crop that states its position (OME-Zarr's translation): "
    "--label-offset is of the first volume's labels."
)


def open_volumes(
    source: VolumeReference, labels: VolumeReference, options: TrainingOptions, recipe: Recipe
) -> tuple[list[TrainingVolume], Box | None]:
    """Open and check all volumes, and give the held-out box of the first, if there is one."""
    raw = open_input(source)
    boxes = recipe.validation.region, options.region
    held_out, wanted = (None if box is None else region_box(box, raw.shape) for box in boxes)
    maps = None if options.weight_map is None else VolumeReference(options.weight_map)
    found, weights = _placed(raw, labels, maps, options.label_offset)
    if held_out is not None and not found.box.contains(held_out):
        problem = f"leaves the labels {found.location}, which lie at {found.box}"
        raise InvalidData(f"The held-out box {held_out}", problem, "Choose a box inside of them.")
    if held_out is not None and wanted is not None:
        # All of it, not only what is labelled: grey values of all of it are read.
        _apart(wanted, held_out, stated=True)
    region = _labelled(raw, found, weights, wanted)
    if held_out is not None:
        region = _apart(region, held_out, stated=False)
    context = wanted or _around(raw, region, held_out)
    volumes = [_volume(raw, found, weights, region, context, recipe)]
    if held_out is not None:
        check_whole(raw, held_out)
        check_whole(found.volume, found.inside(held_out))
    for text in options.also:
        volumes.append(_also(text, volumes[0], held_out, recipe))
    return volumes, held_out


def _also(text: str, first: TrainingVolume, held_out: Box | None, recipe: Recipe) -> TrainingVolume:
    # A further volume: RAW,LABELS or RAW,LABELS,WEIGHTS.
    parts = [VolumeReference(part) for part in text.split(",")]
    if len(parts) not in (2, 3) or (len(parts) == 3) != (first.weights is not None):
        problem = "is not RAW,LABELS" + (",WEIGHTS" if first.weights is not None else "")
        raise InvalidData(f"--also {text}", problem, "Give the same for every volume.")
    raw = open_input(parts[0])
    maps = parts[2] if len(parts) > 2 else None
    labels, weights = _placed(raw, parts[1], maps, None, cure=NOT_THERE)
    region = _labelled(raw, labels, weights, None)
    # The same volume may have labels in several places; what is held out of it is so for all.
    if held_out is not None and not holds_same(replace(first, region=held_out), raw):
        held_out = None
    if held_out is not None and region.intersect(held_out).size:
        problem = f"is the first volume again, and would train on the held-out box {held_out}"
        raise InvalidData(f"--also {text}", problem, "Leave it out, or --validation.")
    return _volume(raw, labels, weights, region, _around(raw, region, held_out), recipe)


def _placed(
    raw: Volume,
    labels: VolumeReference,
    weights: VolumeReference | None,
    offset: ZYX | None,
    *,
    cure: str = PLACE_CURE,
) -> tuple[Placed, Placed | None]:
    # Weights lie where they do in the labels that they were made of.
    truth = open_input(labels)
    check_voxel_size(raw, truth)
    found = place(truth, raw, offset, cure=cure)
    say_notes(truth.location, found.notes)
    if raw.voxel_size is None and truth.voxel_size is not None:
        text = f"No voxel size is stated, and {truth.location} states {truth.voxel_size} nm."
        say_notes(raw.location, (text,))
    if weights is None:
        return found, None
    opened = open_input(weights)
    check_voxel_size(raw, opened)
    there = place(opened, truth, what="The weights", cure="Make them of these labels.")
    say_notes(opened.location, there.notes)
    offset = zyx(a + b for a, b in zip(there.offset, found.offset, strict=True))
    return found, Placed(opened, offset)


def _labelled(raw: Volume, labels: Placed, weights: Placed | None, wanted: Box | None) -> Box:
    # The part of the wanted one, or of all, that has labels and weights.
    region = wanted or Box.of_shape(raw.shape)
    cutting = []
    for what, placed in (("labels", labels), ("weights", weights)):
        if placed is None:
            continue
        asked, region = region, region.intersect(placed.box)
        if region.size == 0:
            problem = f"lies outside of the {what} {placed.location}, which are in {placed.box}"
            cure = "Choose another --region." if wanted else "Give weights of these labels."
            raise InvalidData(f"The training region {asked}", problem, cure)
        if region != asked:
            cutting.append(f"{placed.location} lie at {placed.box}")
    if cutting:
        text = f"{' and '.join(cutting)} of {raw.location}: trained on is {region}."
        click.echo(text, err=True)
    return region


def _around(raw: Volume, region: Box, held_out: Box | None) -> Box:
    # What of the raw volume may be read around a region: all but what lies beyond the held-out box.
    whole = Box.of_shape(raw.shape)
    if held_out is None:
        return whole
    sides = []
    for axis in range(3):
        if region.stop[axis] <= held_out.start[axis]:
            sides.append(whole.with_range(axis, 0, held_out.start[axis]))
        if region.start[axis] >= held_out.stop[axis]:
            sides.append(whole.with_range(axis, held_out.stop[axis], whole.stop[axis]))
    return max(sides, key=lambda box: box.size)


def _volume(
    raw: Volume,
    labels: Placed,
    weights: Placed | None,
    region: Box,
    context: Box,
    recipe: Recipe,
) -> TrainingVolume:
    volume = TrainingVolume(raw=raw, labels=labels, weights=weights, region=region, context=context)
    # The statistics of a whole volume need all of it, as those of a prediction do.
    check_whole(raw, context if recipe.intensity.own is None else Box.of_shape(raw.shape))
    check_whole(labels.volume, labels.inside(region))
    if weights is None:
        return volume
    check_whole(weights.volume, weights.inside(region))
    rule = dict(weights.volume.attributes.get("rule", {}))
    compared = {"gap": recipe.targets.gap}
    if recipe.targets.gap:
        compared["per_section"] = recipe.network.kind == "planar"
    for name, wanted in compared.items():
        if name in rule and rule[name] != wanted:
            problem = f"was made with {name} {rule[name]}, but the training has {wanted}"
            cure = f"Give both the same --{name.replace('_', '-')}."
            raise InvalidData(f"The weight map {weights.location}", problem, cure)
    return volume


def _apart(region: Box, held_out: Box, *, stated: bool) -> Box:
    common = region.intersect(held_out)
    if min(common.shape) <= 0:
        return region
    if stated:
        problem = f"overlaps the held-out box {held_out} in {common}"
        raise InvalidData(f"The training region {region}", problem, "Choose boxes apart.")
    # What is left of the whole is a box only if the held-out box cuts off one end of it.
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        if any(held_out.shape[i] < region.shape[i] for i in others):
            continue
        start, stop = list(region.start), list(region.stop)
        if held_out.stop[axis] == region.stop[axis] and held_out.start[axis] > region.start[axis]:
            stop[axis] = held_out.start[axis]
            return Box(zyx(start), zyx(stop))
        if held_out.start[axis] == region.start[axis] and held_out.stop[axis] < region.stop[axis]:
            start[axis] = held_out.stop[axis]
            return Box(zyx(start), zyx(stop))
    problem = f"does not cut off one end of the volume along {', '.join(AXES)}"
    cure = "Say what to train on with --region."
    raise InvalidData(f"The held-out box {held_out}", problem, cure)
