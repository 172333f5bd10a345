"""A training that is described and checked, and not begun: recipe, volumes and regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pipelines.options import Region, region_box
from pipelines.outputs import check_apart, check_whole, open_input
from tilenet.errors import InvalidData, InvalidRecipe, OutputExists
from tilenet.geometry import AXES, Box, zyx
from tilenet.inference import OutputChannel
from tilenet.networks import UNetArchitecture
from tilenet.strict_toml import load, validate
from tilenet.training import (
    Patches,
    Recipe,
    Statistics,
    TrainingVolume,
    check_held_out,
    check_patch,
    holds_same,
    measure,
)
from tilenet.volumes import Volume, VolumeReference
from tilenet.volumes.stores import is_remote


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What the user chose of how to train; the command's options say what each means.

    Parameters
    ----------
    output : str
        Model file to write.
    config : str or None
        Recipe, by name or path.
    changes : mapping
        Values that replace the recipe's, by dotted name: {"optimization.steps": 300}.
    weight_map : str or None
        Loss weights of the volume.
    also : sequence of str
        Further volumes: RAW,LABELS or RAW,LABELS,WEIGHTS.
    region : sequence of (int, int or None) or None
        Part of the first volume to learn from, start and stop along (z, y, x).
    device : str
        "cpu", "cuda" or "cuda:N".
    threads : int or None
        CPU threads of each process; None shares out all cores.
    log : str or None
        Folder for TensorBoard.
    overwrite : bool
        Replace a model that is there, and forget an interrupted training of it.
    """

    output: str
    config: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    weight_map: str | None = None
    also: Sequence[str] = ()
    region: Region | None = None
    device: str = "cpu"
    threads: int | None = None
    log: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class TrainingJob:
    """A checked training."""

    recipe: Recipe  # how to train
    volumes: Sequence[TrainingVolume]  # what on
    held_out: Box | None  # box of the first volume to validate on
    statistics: Statistics  # of the training regions

    @property
    def architecture(self) -> UNetArchitecture:
        channels = self.volumes[0].raw.channels or 1
        return self.recipe.network.architecture(channels, len(self.statistics.values))

    @property
    def patches(self) -> Patches:
        return Patches(
            volumes=self.volumes,
            architecture=self.architecture,
            recipe=self.recipe,
            statistics=self.statistics,
        )

    @property
    def outputs(self) -> tuple[OutputChannel, ...]:
        """Names of the classes, and the label values that they stand for."""
        values = self.statistics.values
        names = self.recipe.targets.names or tuple(f"label {value}" for value in values)
        if len(names) != len(values):
            problem = f"are {len(names)} names, but the labels have {len(values)} values: {values}"
            raise InvalidData(f"--names {','.join(names)}", problem, "Name each class once.")
        return tuple(OutputChannel(n, value) for n, value in zip(names, values, strict=True))


def prepare(
    source: VolumeReference,
    labels: VolumeReference,
    options: TrainingOptions,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> TrainingJob:
    """Open and check everything, and pass once over the training regions."""
    recipe = read_recipe(options)
    more = [part for text in options.also for part in text.split(",")]
    maps = [] if options.weight_map is None else [options.weight_map]
    _check_output(options.output, [source.location, labels.location, *maps, *more])
    volumes, held_out = _volumes(source, labels, options, recipe)
    architecture = _check_before(recipe, volumes)
    statistics = measure(
        volumes,
        recipe.targets,
        per_section=architecture.is_planar,
        keep_blocks=recipe.sampling.positions == "class",
        stopped=stopped,
    )
    if held_out is not None:
        check_held_out(
            replace(volumes[0], region=held_out, weights=None),
            recipe.targets,
            values=statistics.values,
            per_section=architecture.is_planar,
            stopped=stopped,
        )
    job = TrainingJob(recipe, volumes, held_out, statistics)
    assert job.outputs  # the names fit, or it raises
    return job


def _check_before(recipe: Recipe, volumes: Sequence[TrainingVolume]) -> UNetArchitecture:
    # What needs no pass over the volumes.
    sizes = {volume.raw.voxel_size for volume in volumes} - {None}
    if len(sizes) > 1:
        found = " and ".join(str(size) for size in sorted(sizes, key=str))
        cure = "A network knows structures by their size in voxels: take a --level that fits."
        raise InvalidData("Raw volumes", f"have voxels of {found} nm", cure)
    channels = {volume.raw.channels or 1 for volume in volumes}
    if len(channels) > 1:
        problem = f"have {' and '.join(map(str, sorted(channels)))} channels"
        raise InvalidData("Raw volumes", problem, "Choose one channel of each with --channel.")
    architecture = recipe.network.architecture(channels.pop(), 2)
    for volume in volumes:
        patch = recipe.patch_for(architecture, volume.region.shape)
        check_patch(patch, volume, architecture)
    return architecture


def read_recipe(options: TrainingOptions) -> Recipe:
    values: dict[str, Any] = {}
    if options.config is not None:
        values = load(find_recipe(options.config), InvalidRecipe)
    for name, value in options.changes.items():
        part, _, key = name.partition(".")
        table = values.get(part, {})
        values[part] = {**table, key: value} if isinstance(table, dict) else table
    where = options.config or "of the options"
    recipe = validate(Recipe, values, where, InvalidRecipe)
    # A recipe may say how to validate where the command says on what; an option may not.
    if "validation.every" in options.changes and recipe.validation.region is None:
        problem = f"validation.every = {recipe.validation.every}: no box is held out (--validation)"
        raise InvalidRecipe(where, (problem,))
    return recipe


def recipe_names() -> list[str]:
    """List the recipes that come with tilenet."""
    folder = resources.files("pipelines.train") / "recipes"
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def find_recipe(name: str) -> Path:
    if Path(name).is_file():  # the user's own, also under the name of one of ours
        return Path(name)
    known = recipe_names()
    if name not in known:
        raise InvalidRecipe(name, (f"is no file, and no recipe of ours: {', '.join(known)}",))
    return Path(str(resources.files("pipelines.train") / "recipes" / f"{name}.toml"))


def _check_output(output: str, inputs: Sequence[str]) -> None:
    for location in inputs:
        check_apart(output, location)
    if is_remote(output):
        raise InvalidData(f"Output {output}", "is a URL", "Models lie on disk: give a path.")
    if Path(output).is_dir():
        raise OutputExists(output, "a folder", replaceable=False)
    if not Path(output).resolve().parent.is_dir():
        raise InvalidData(f"The folder of {output}", "does not exist", "Make it first.")


def _volumes(
    source: VolumeReference, labels: VolumeReference, options: TrainingOptions, recipe: Recipe
) -> tuple[list[TrainingVolume], Box | None]:
    raw = open_input(source)
    whole = Box.of_shape(raw.shape)
    held_out = None
    if recipe.validation.region is not None:
        held_out = region_box(recipe.validation.region, raw.shape)
    region = whole if options.region is None else region_box(options.region, raw.shape)
    if held_out is not None:
        region = _apart(region, held_out, stated=options.region is not None)
    weights = (
        None if options.weight_map is None else open_input(VolumeReference(options.weight_map))
    )
    volumes = [_volume(raw, open_input(labels), weights, region, recipe)]
    if held_out is not None:
        for stored in (volumes[0].raw, volumes[0].labels):
            check_whole(stored, held_out)
    for text in options.also:
        parts = text.split(",")
        if len(parts) not in (2, 3) or (len(parts) == 3) != (weights is not None):
            problem = "is not RAW,LABELS" + (",WEIGHTS" if weights is not None else "")
            raise InvalidData(f"--also {text}", problem, "Give the same for every volume.")
        more = [open_input(VolumeReference(part)) for part in parts]
        third = more[2] if len(more) > 2 else None
        if held_out is not None and holds_same(replace(volumes[0], region=held_out), more[0]):
            problem = f"is the first volume again, and would train on the held-out box {held_out}"
            raise InvalidData(f"--also {text}", problem, "Leave it out, or --validation.")
        volumes.append(_volume(more[0], more[1], third, Box.of_shape(more[0].shape), recipe))
    return volumes, held_out


def _volume(
    raw: Volume, labels: Volume, weights: Volume | None, region: Box, recipe: Recipe
) -> TrainingVolume:
    volume = TrainingVolume(raw=raw, labels=labels, weights=weights, region=region)
    for stored in (raw, labels, weights):
        if stored is not None:
            check_whole(stored, region)
    rule = {} if weights is None else dict(weights.attributes.get("rule", {}))
    compared = {"gap": recipe.targets.gap}
    if recipe.targets.gap:
        compared["per_section"] = recipe.network.kind == "planar"
    for name, wanted in compared.items():
        if weights is not None and name in rule and rule[name] != wanted:
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
