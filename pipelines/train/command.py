"""``tilenet train``: volumes and their labels in, a model file out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cluster import default_workers
from pipelines.options import BOX, REGION, SHAPE, check_device, source_argument
from pipelines.outputs import check_folder, warn_of_unstated
from pipelines.stopping import Stop, Stopped, stop_on_signals
from pipelines.train.job import TrainingJob, TrainingOptions, prepare, recipe_names
from pipelines.train.progress import TrainingReporter, check_log
from pipelines.train.torchrun import join_ranks
from tilenet.errors import InvalidModelFile, OutputExists, TrainingDiverged
from tilenet.inference import ModelHeader, read_header, save_model
from tilenet.networks import ARITHMETIC
from tilenet.volumes import VolumeReference
from tilenet.volumes.stores import bind_reading

if TYPE_CHECKING:
    from tilenet.inference import UNet
    from tilenet.training import Ranks, Record, State

#: Options of the command that change the recipe, and the keys that they change.
CHANGES = {
    "steps": "optimization.steps",
    "batch": "optimization.batch",
    "patch": "optimization.patch",
    "optimizer": "optimization.optimizer",
    "learning_rate": "optimization.learning_rate",
    "momentum": "optimization.momentum",
    "precision": "optimization.precision",
    "seed": "optimization.seed",
    "network": "network.kind",
    "base_channels": "network.base_channels",
    "depth": "network.depth",
    "binary": "targets.binary",
    "gap": "targets.gap",
    "ignore": "targets.ignore",
    "names": "targets.names",
    "validation": "validation.region",
    "every": "validation.every",
}


@click.command()
@source_argument
@click.argument("labels")
@click.option("--output", required=True, help="Model file to write (.safetensors).")
@click.option("--config", help=f"Recipe, by path or name: {', '.join(recipe_names())}.")
@click.option("--weight-map", help="Loss weights, from 'tilenet weights'.")
@click.option("--also", multiple=True, help="A further volume: RAW,LABELS[,WEIGHTS].")
@click.option("--region", type=REGION, help="Part to learn from: z=0:20 (all of y and x).")
@click.option("--validation", type=BOX, help="Held-out part; the best model on it is kept.")
@click.option("--every", type=click.IntRange(1), help="Steps between two validations; 200.")
@click.option("--steps", type=click.IntRange(1), help="Updates of the weights; 1000.")
@click.option("--batch", type=click.IntRange(1), help="Patches per update; 1.")
@click.option("--patch", type=SHAPE, help="Output voxels per patch, z,y,x.")
@click.option(
    "--network", type=click.Choice(["planar", "anisotropic", "volumetric"]),
    help="2-D, mixed or 3-D; planar.",
)  # fmt: skip
@click.option("--base-channels", type=click.IntRange(1), help="At full resolution; 16.")
@click.option("--depth", type=click.IntRange(1, 6), help="Poolings; 4, or 3 when volumetric.")
@click.option("--optimizer", type=click.Choice(["sgd", "adamw"]), help="sgd.")
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), help="0.01, or 0.001 with adamw."
)
@click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), help="Of sgd; 0.99.")
@click.option(
    "--precision", type=click.Choice(["float32", "bfloat16"]),
    help="Of the convolutions; bfloat16 on GPUs, float32 on CPUs.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), help="Makes the training repeatable; 0.")
@click.option("--binary", is_flag=True, default=None, help="Labels are instances.")
@click.option("--gap", type=click.IntRange(0), help="Background made between instances, voxels.")
@click.option("--ignore", type=int, help="Label value that says nothing; may be negative.")
@click.option("--names", help="Names of the classes, ascending by label value: membrane,interior.")
@click.option("--device", default="cpu", show_default=True, callback=check_device)
@click.option("--threads", type=click.IntRange(1), help="CPU threads; all cores.")
@click.option("--preview", type=click.Path(), help="Write a picture of patches here; do not train.")
@click.option("--log", type=click.Path(), help="Folder for TensorBoard.")
@click.option("--overwrite", is_flag=True, help="Replace a model; forget an interrupted training.")
def train(source: VolumeReference, labels: str, preview: str | None, **options: Any) -> int:
    """Train a U-Net on the volume SOURCE and its LABELS.

    Every label value is a class; of two classes, a prediction shows the one of the higher value.
    Interrupted, the training is continued by the same command.
    """
    given = {CHANGES[name]: options.pop(name) for name in CHANGES}
    changes = {key: value for key, value in given.items() if value is not None}
    if "targets.names" in changes:
        changes["targets.names"] = [n.strip() for n in changes["targets.names"].split(",")]
    chosen = TrainingOptions(changes=changes, **options)
    bind_reading(chosen.threads or default_workers(int(os.environ.get("WORLD_SIZE", "1"))))
    references = source, VolumeReference(labels)
    if preview is not None:
        from pipelines.train.preview import write_preview

        check_folder("--preview", preview)
        click.echo(write_preview(prepare(*references, chosen), Path(preview)))
        return 0
    with stop_on_signals() as stop:
        try:
            run_training(*references, chosen, stop)
        except Stopped:
            if chosen.overwrite:
                click.echo("To go on, leave out --overwrite: it would begin anew.", err=True)
            raise
    return 0


def run_training(
    source: VolumeReference, labels: VolumeReference, options: TrainingOptions, stop: Stop
) -> int:
    """Train and save a model, or go on with a training that was interrupted.

    Parameters
    ----------
    source, labels : VolumeReference
        Grey values and labels of the first volume.
    options : TrainingOptions
        What the user chose.
    stop : Stop
        Ends the training early; the same call goes on.

    Returns
    -------
    int
        Steps done.

    Raises
    ------
    Stopped
        When a signal asked for it; a checkpoint is saved.
    TilenetError
        Before anything is written, when something does not fit; TrainingDiverged in the middle,
        the last good model being kept.
    """
    from tilenet.inference import check_device as find_device
    from tilenet.training import checkpoint_path

    find_device(options.device)
    check_folder("The folder", str(Path(options.output).resolve().parent))
    begun = checkpoint_path(options.output).exists() and not options.overwrite
    if Path(options.output).is_file() and not (options.overwrite or begun):
        raise OutputExists(options.output, "a file")
    if options.log is not None:
        check_log(options.log)
    try:
        job = prepare(source, labels, options, stopped=lambda: bool(stop))
    except InterruptedError as error:
        assert stop.signal is not None
        raise Stopped(stop.signal) from error
    _warn_of_rare_classes(job)
    with join_ranks(options.device) as (ranks, device):
        return _Run(job, options, ranks, device, stop).go(begun)


def _warn_of_rare_classes(job: TrainingJob) -> None:
    targets, counts = job.recipe.targets, job.statistics.counts
    cure = "; where instances touch, --gap makes background" if targets.binary else ""
    for value in job.statistics.rare:
        text = f"Only {counts[value]} of {sum(counts.values())} voxels are of class {value}"
        click.echo(f"{text}{'' if targets.gap else cure}.", err=True)


def _determining(recipe: dict[str, Any]) -> dict[str, Any]:
    # How often checkpoints are saved and how patches are read ahead changes no weight.
    kept = {name: dict(part) for name, part in recipe.items()}
    for part, name in (("optimization", "checkpoint_every"), ("sampling", "readers")):
        del kept[part][name]
    del kept["sampling"]["queue"]
    return kept


class _Run:
    # One training: what it has reached, and what it writes.

    def __init__(
        self, job: TrainingJob, options: TrainingOptions, ranks: Ranks, device: str, stop: Stop
    ) -> None:
        from tilenet.training import Patches, Record, checkpoint_path, identities

        self.job, self.options, self.ranks, self.stop = job, options, ranks, stop
        self.patches = Patches(job.volumes, job.architecture, job.recipe, job.statistics)
        self.outputs = job.outputs
        self.checkpoint = checkpoint_path(options.output)
        conditions = {
            "recipe": _determining(job.recipe.to_dict()),
            "volumes": {str(i): v for i, v in enumerate(identities(job.volumes))},
            "processes": ranks.count,
            "device": device.split(":")[0],
            "arithmetic": ARITHMETIC,
        }
        self.record = Record(0, conditions, {})
        self.state = self._begin(device)
        self.loss: float | None = None

    def _begin(self, device: str) -> State:
        import torch

        from tilenet.inference import UNet, check_device
        from tilenet.training import make_state

        torch.set_num_threads(self.options.threads or default_workers(self.ranks.count))
        chosen = self.job.recipe.optimization
        torch.manual_seed(chosen.seed)
        return make_state(UNet(self.job.architecture).to(check_device(device)), chosen)

    def go(self, begun: bool) -> int:
        from tilenet.training import resume
        from tilenet.training import train as updates

        if begun:
            conditions = self.record.conditions
            self.record = resume(self.checkpoint, self.state, conditions)
            if self.ranks.rank == 0:
                warn_of_unstated(str(self.checkpoint), self.record.conditions, conditions)
            self._adopt_best()
        chosen, silent = self.job.recipe.optimization, self.ranks.rank != 0
        stopped = False
        with TrainingReporter(
            chosen.steps, self.state.step, log=self.options.log, silent=silent
        ) as reporter:
            if self.options.overwrite and not silent:
                self.checkpoint.unlink(missing_ok=True)  # only now that everything is open
            if begun:
                reporter.note(f"Going on after step {self.state.step} of {chosen.steps}")
            try:
                for step in updates(self.state, self.patches, self.ranks):
                    reporter.step(step)
                    self.loss = reporter.recent_loss
                    unfinished = step.done < chosen.steps
                    stopped = self.ranks.any(bool(self.stop)) and unfinished
                    self._after(step.done, reporter, stopped)
                    if stopped:
                        break
            except TrainingDiverged as error:
                self._keep_last_good(reporter, error.step)
                raise
        if stopped:
            assert self.stop.signal is not None
            raise Stopped(self.stop.signal)
        if not silent:
            self._finish()
        return self.state.step

    def _adopt_best(self) -> None:
        # After a kill between the best model and the checkpoint that says so, the model knows more.
        try:
            stored = read_header(self.options.output).training
        except InvalidModelFile:
            return
        ours = {"recipe": self.job.recipe.to_dict(), "volumes": self.record.conditions["volumes"]}
        best = dict(stored.get("validation") or {})
        if best.get("step") != self.record.step or any(stored.get(k) != v for k, v in ours.items()):
            return
        if best["value"] < self.record.best.get("value", float("inf")):
            self.record = type(self.record)(self.record.step, self.record.conditions, best)

    def _after(self, done: int, reporter: TrainingReporter, stopped: bool) -> None:
        if self.ranks.rank != 0:
            return
        chosen, held_out = self.job.recipe, self.job.held_out
        last = done == chosen.optimization.steps
        if held_out is not None and (done % chosen.validation.every == 0 or last):
            self._validate(done, reporter)
        if (done % chosen.optimization.checkpoint_every == 0 and not last) or stopped:
            self._save_checkpoint()

    def _validate(self, done: int, reporter: TrainingReporter) -> None:
        from tilenet.training import validate

        assert self.job.held_out is not None
        figures = validate(
            self.state.network,
            self.job.volumes[0],
            box=self.job.held_out,
            targets=self.job.recipe.targets,
            statistics=self.job.statistics,
            patch=self.patches.patch,
        )
        value = figures.get(self.job.recipe.validation.select)
        best = value < self.record.best.get("value", float("inf"))
        reporter.validation(done, figures, best=best)
        if best:
            facts = {"step": done, "value": value, "figures": str(figures)}
            # First, so that a kill between the two leaves a training to go on with.
            self._save_checkpoint()
            self.record = type(self.record)(done, self.record.conditions, facts)
            self._save_model(self.state.network, done)
            self._save_checkpoint()

    def _save_checkpoint(self) -> None:
        from tilenet.training import save_checkpoint

        record: Record = type(self.record)(
            self.state.step, self.record.conditions, self.record.best
        )
        save_checkpoint(self.checkpoint, self.state, record)

    def _save_model(self, network: UNet, steps: int) -> None:
        counts = self.job.statistics.counts
        record = {
            "steps": steps,
            "seed": self.job.recipe.optimization.seed,
            "loss": self.loss,
            "recipe": self.job.recipe.to_dict(),
            "volumes": self.record.conditions["volumes"],
            "voxels_per_label": {str(value): n for value, n in counts.items()},
            "validation": dict(self.record.best),
        }
        header = ModelHeader(
            architecture=self.job.architecture,
            intensity=self.job.statistics.intensity,
            outputs=self.outputs,
            voxel_size=self.job.volumes[0].raw.voxel_size,
            training=record,
        )
        save_model(self.options.output, network, header)

    def _finish(self) -> None:
        best = self.record.best
        if not best:
            self._save_model(self.state.network, self.state.step)
        self.checkpoint.unlink(missing_ok=True)
        steps = self.job.recipe.optimization.steps
        text = f"{self.options.output}: weights after {self.state.step} of {steps} steps"
        if best:
            text = f"{self.options.output}: best of {steps} steps, after {best['step']}: "
            text += str(best["figures"])
        click.echo(text)

    def _keep_last_good(self, reporter: TrainingReporter, diverged: int) -> None:
        from tilenet.training import read_record, resume

        if self.ranks.rank != 0:
            return
        if self.record.best:
            reporter.note(f"{self.options.output} holds the best model so far.")
            return
        # A checkpoint is good if an update was made from it: its loss and gradients were finite.
        if not self.checkpoint.exists() or read_record(self.checkpoint).step >= diverged:
            reporter.note("No step was known to be good, so no model is written.")
            return
        resume(self.checkpoint, self.state, self.record.conditions)
        self._save_model(self.state.network, self.state.step)
        reporter.note(f"{self.options.output} holds the model after {self.state.step} steps.")
