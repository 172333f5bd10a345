"""A training that is described and checked, and not begun: recipe, volumes and regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pipelines.outputs import check_apart, say_notes
from pipelines.train.training_options import TrainingOptions
from pipelines.train.training_volumes import open_volumes
from tilenet.errors import InvalidData, InvalidRecipe, OutputExists
from tilenet.geometry import Box
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
    measure,
)
from tilenet.volumes import VolumeReference
from tilenet.volumes.stores import is_remote


@dataclass(frozen=True)
class TrainingJob:
    """A checked training."""

    recipe: Recipe  # how to train
    volumes: Sequence[TrainingVolume]  # what on
    held_out: Box | None  # box of the first volume to validate on
    statistics: Statistics  # of the training regions
    judged: Mapping[int, int] | None = None  # voxels per label value of the held-out box

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
    volumes, held_out = open_volumes(source, labels, options, recipe)
    architecture = _check_before(recipe, volumes)
    statistics = measure(
        volumes,
        recipe,
        per_section=architecture.is_planar,
        stopped=stopped,
    )
    judged = None
    if held_out is not None:
        judged = check_held_out(
            replace(volumes[0], region=held_out, weights=None, context=None),
            recipe.targets,
            values=statistics.values,
            per_section=architecture.is_planar,
            stopped=stopped,
        )
    job = TrainingJob(recipe, volumes, held_out, statistics, judged)
    assert job.outputs  # the names fit, or it raises
    job.patches.check_context(stopped)
    return job


def _check_before(recipe: Recipe, volumes: Sequence[TrainingVolume]) -> UNetArchitecture:
    # What needs no pass over the volumes.
    stated = {volume.raw.voxel_size for volume in volumes}
    sizes = stated - {None}
    if sizes and None in stated:
        say_notes("Raw volumes", ("Some state a voxel size, and some do not.",))
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
