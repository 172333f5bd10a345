"""``tilenet predict``: a volume and a model in, a stitched prediction out, Zarr to Zarr."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from operator import add
from typing import Any

import click

from pipelines.cluster import ClusterOptions, resolve
from pipelines.engine import Runner
from pipelines.options import (
    Region,
    cluster_options,
    percentiles,
    region_box,
    source_argument,
)
from pipelines.outputs import (
    OutputRun,
    Part,
    Prediction,
    Summary,
    part_option,
    say_notes,
    with_others,
)
from pipelines.predict.checks import check_inputs, check_job, find_prediction
from pipelines.predict.intensity_rule import (
    IntensityRule,
    grey_value_warning,
    unclipped_warning,
)
from pipelines.predict.job import Choices, Job, execution, new_output, predict_task, provenance
from pipelines.predict.options import prediction_options
from pipelines.predict.plan_text import plan_text
from pipelines.predict.planning import output_dtype, plan_job, planned_cluster
from pipelines.predict.resume import check_resume
from tilenet.errors import InvalidData
from tilenet.geometry import BlockGrid
from tilenet.inference import PredictTask
from tilenet.planning import Costs, Plan
from tilenet.volumes import (
    GreyTask,
    HistogramCount,
    Intensity,
    MomentsCount,
    NewVolume,
    OutputReference,
    Volume,
    VolumeReference,
    own_intensity,
)


@click.command()
@source_argument
@click.argument("output")
@click.option("--model", required=True, help="Model file (.safetensors).")
@prediction_options
@click.option(
    "--intensity", default="model", show_default=True, callback=lambda c, p, v: IntensityRule(v),
    help="Grey values: model, volume, MEAN,STD or window:LOW,HIGH.",
)  # fmt: skip
@click.option("--void", type=float, help="Grey value outside the specimen (--intensity volume).")
@click.option(
    "--clip", callback=percentiles,
    help="Percentiles to clip at (--intensity volume): 0.1,99.9.",
)  # fmt: skip
@click.option("--invert", is_flag=True, help="Negate the normalised grey values.")
@cluster_options
@part_option
@click.option("--overwrite", is_flag=True, help="Replace an output that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
def predict(
    choices: Choices, intensity: IntensityRule, void: float | None, invert: bool,
    clip: tuple[float, float] | None, overwrite: bool, as_json: bool, **options: Any,
) -> int:  # fmt: skip
    """Predict the volume SOURCE into the Zarr OUTPUT.

    The result equals one pass of the network over the whole mirror-padded volume. Interrupted, it
    is continued by the same command; a later run with another --region extends it.
    """
    rule = dataclasses.replace(intensity, void=void, invert=invert, clip=clip)
    chosen = dataclasses.replace(choices, intensity=rule, overwrite=overwrite)
    run = functools.partial(run_prediction, choices=chosen, **options)
    return with_others(run, options["part"]).finish(as_json=as_json)


def run_prediction(
    source: VolumeReference,
    output: str,
    *,
    model: str,
    cluster: ClusterOptions,
    region: Region | None = None,
    mask: VolumeReference | None = None,
    choices: Choices | None = None,
    part: Part | None = None,
) -> Summary:
    """Predict a volume; it is checked before anything is written.

    Parameters
    ----------
    source : VolumeReference
    output : str
        Path or URL of the prediction; continued when it was begun under the same conditions.
    model : str
    cluster : ClusterOptions
    region : sequence of (int, int or None), optional
        Start and stop along (z, y, x); snapped outward to whole blocks.
    mask : VolumeReference, optional
        Where to predict.
    choices : Choices, optional
    part : Part, optional
        Compute a share of the blocks only.

    Returns
    -------
    Summary
        What was done; blocks may have failed.
    """
    choices = choices or Choices()
    _check_devices(cluster, choices.device)
    job = check_job(source, model, mask=mask, choices=choices)
    begun = find_prediction(job, output)
    cluster = resolve(cluster, choices.device)
    plan = plan_job(job, region_box(region, job.volume.shape), cluster, begun)
    stored = Prediction.from_attributes(begun.attributes).intensity if begun else None
    rule = job.choices.intensity
    known = rule.known(job.header, stored)
    run = OutputRun(
        command="predict", output=output, begun=begun, grid=plan.grid, part=part,
        overwrite=choices.overwrite,
    )  # fmt: skip
    run.check(first_pass=known is None)
    check_inputs(job, plan, measured=known is None)
    if known is not None and (
        warning := grey_value_warning(job.volume, plan.request.region, known)
    ):
        say_notes(job.volume.location, (warning,), strict=choices.strict)
    if (unclipped := unclipped_warning(job.header, rule)) is not None:
        say_notes(job.volume.location, (unclipped,), strict=choices.strict)
    costs = Costs(plan)
    click.echo(plan_text(job, costs), err=True)
    cluster, limits = planned_cluster(cluster, costs)
    prepare = functools.partial(_prepare, job, plan, begun, known)
    return run.store(cluster, prepare, limits=limits, one_by_one=True)


def _check_devices(cluster: ClusterOptions, device: str) -> None:
    if cluster.local and device != "cpu":
        from tilenet.inference import check_device  # on the CPU only the workers need load PyTorch

        check_device(device)
    gpus = 0 if cluster.batch is None else cluster.batch.profile.gpus_per_job
    if gpus and device == "cpu":
        problem = f"reserve {gpus} GPUs each, which --device cpu would leave idle"
        raise InvalidData("The jobs", problem, "Give --device cuda, or gpus_per_job = 0.")


def _prepare(
    job: Job, plan: Plan, begun: Volume | None, known: Intensity | None, runner: Runner
) -> tuple[NewVolume | None, Callable[[OutputReference], PredictTask]]:
    facts = runner.facts(execution(job, plan))
    intensity, dtype = known or _measure(job, plan, runner), output_dtype(job, begun)
    grey = job.choices.intensity.stated(intensity)
    stated = provenance(job, plan, intensity=grey, facts=facts, dtype=dtype)
    new = None
    if begun is None:
        new = new_output(job, plan, dtype, stated)
    else:
        check_resume(job, plan, begun, stated)
    make = functools.partial(
        predict_task, job, plan, intensity=intensity, facts=facts, run=runner.name
    )
    return new, make


def _measure(job: Job, plan: Plan, runner: Runner) -> Intensity:
    rule, grid = job.choices.intensity, BlockGrid(job.volume.shape, plan.block)

    def fold(count: HistogramCount | MomentsCount) -> Any:
        task = GreyTask(source=job.source, run=runner.name, count=count)
        return runner.fold("Grey values", task, grid, lambda _, all_: functools.reduce(add, all_))

    found = own_intensity(fold, rule.own, job.volume.dtype)
    intensity = dataclasses.replace(found, invert=rule.invert)
    if warning := grey_value_warning(job.volume, plan.request.region, intensity):
        say_notes(job.volume.location, (warning,), strict=job.choices.strict)
    return intensity
