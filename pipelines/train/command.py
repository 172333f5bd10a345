"""``tilenet train``: volumes and their labels in, a model file out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from pipelines.cluster import default_workers
from pipelines.options import (
    BOX,
    OFFSET,
    REGION,
    SHAPE,
    check_device,
    percentiles,
    source_argument,
)
from pipelines.outputs import check_folder
from pipelines.stopping import Stop, Stopped, stop_on_signals
from pipelines.train.findings import say_findings
from pipelines.train.job import prepare, recipe_names
from pipelines.train.progress import check_log
from pipelines.train.run import TrainingRun
from pipelines.train.torchrun import first_speaks, join_ranks
from pipelines.train.training_options import TrainingOptions
from tilenet.errors import OutputExists
from tilenet.volumes import VolumeReference
from tilenet.volumes.stores import bind_reading

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
    "background": "targets.background",
    "classes": "targets.classes",
    "names": "targets.names",
    "intensity": "intensity.rule",
    "clip": "intensity.clip",
    "void": "intensity.void",
    "positions": "sampling.positions",
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
@click.option(
    "--label-offset", type=OFFSET,
    help="Where LABELS, a crop, begin: voxels of SOURCE, z,y,x; else by stated positions.",
)  # fmt: skip
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
@click.option("--background", type=int, help="Label value around instances (--binary); 0.")
@click.option(
    "--classes", type=click.IntRange(2), help="Number of label values; more than 8 need it."
)
@click.option("--names", help="Names of the classes, ascending by label value: membrane,interior.")
@click.option(
    "--intensity",
    help="Grey values: pooled, volume (each by the statistics of its whole raw volume, held-out "
    "parts too, as predict does), MEAN,STD or window:LOW,HIGH; pooled.",
)
@click.option("--clip", callback=percentiles, help="Percentiles to clip grey values at: 0.1,99.9.")
@click.option("--void", type=float, help="Grey value outside the specimen, left out of statistics.")
@click.option(
    "--positions", type=click.Choice(["labelled", "uniform", "class"]),
    help="Where patches lie; uniform, or labelled with --ignore.",
)  # fmt: skip
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
        with first_speaks():
            job = prepare(*references, chosen)
            say_findings(job)
        click.echo(write_preview(job, Path(preview)))
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
    TrainingDiverged
        In the middle; the last good model is kept.
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
        with first_speaks():
            job = prepare(source, labels, options, stopped=lambda: bool(stop))
            say_findings(job)
    except InterruptedError as error:
        assert stop.signal is not None
        raise Stopped(stop.signal) from error
    with join_ranks(options.device) as (ranks, device):
        return TrainingRun(job, options, ranks, device, stop).go(begun)
