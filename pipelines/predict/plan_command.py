"""``tilenet plan``: say what a prediction would cost; run nothing."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from typing import Any

import click
from click.core import ParameterSource

from pipelines.cluster import ClusterOptions, leave_time, resolve
from pipelines.options import SHAPE, cluster_options, region_box, source_argument
from pipelines.predict.checks import check_job
from pipelines.predict.imagined_volume import NETWORKS, cluster_of_gpus, describe_network, paper_job
from pipelines.predict.job import Choices
from pipelines.predict.measured_speeds import Workplace
from pipelines.predict.options import prediction_options
from pipelines.predict.plan_text import alternatives_text, plan_text
from pipelines.predict.planning import PlannedJob, request_for
from tilenet.geometry import ZYX
from tilenet.planning import Costs, alternatives, device_kind
from tilenet.volumes import VolumeReference


def _price(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 <= value < math.inf:
        raise click.BadParameter(f"{value} is not a price")
    return value


@click.command()
@functools.partial(source_argument, required=False)
@click.option("--model", help="Model file (.safetensors); without SOURCE it may be left out.")
@click.option("--shape", type=SHAPE, help="Instead of SOURCE: voxels of a volume on paper, z,y,x.")
@click.option(
    "--dtype-of-input", type=click.Choice(["uint8", "uint16", "int16", "float16", "float32"]),
    help="With --shape: data type of the volume on paper; uint8.",
)  # fmt: skip
@click.option(
    "--network", type=click.Choice(list(NETWORKS)),
    help="With --shape, without --model: the paper's 2-D network, or a 3-D one; planar.",
)  # fmt: skip
@click.option(
    "--gpus",
    type=click.IntRange(1),
    help="Plan for so many GPUs, wherever they are, one worker each.",
)
@prediction_options
@cluster_options
@click.option("--price-per-gpu-hour", type=float, callback=_price, help="In any currency.")
@click.option("--price-per-core-hour", type=float, callback=_price, help="The same on CPUs.")
@click.option(
    "--calibrate/--no-calibration", "calibrate", default=None,
    help="Measure the rates of this machine anew, or never; by default, if they are not known.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_context
def plan(
    ctx: click.Context, /, choices: Choices, gpus: int | None, as_json: bool, **options: Any
) -> None:
    """Say how SOURCE would be predicted, and what that costs. Nothing is run or written.

    With --shape instead of SOURCE the volume need not exist. Rates are measured in some ten
    seconds where they are not known yet, and kept in the user's cache folder.
    """
    _check_usage(ctx)
    if gpus is not None:
        choices = dataclasses.replace(choices, device="cuda")
    costs, job, notes = _plan(ctx, choices, gpus, **options)
    leave_time(options["cluster"], costs.block_seconds)  # says where it cannot
    found = alternatives(costs, options["cluster"].cores)
    if as_json:
        used = {"device": choices.device, "precision": costs.plan.request.precision}
        told = {**used, **costs.plan.to_dict(), **costs.to_dict(), **notes}
        told["alternatives"] = [alternative.to_dict() for alternative in found]
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(f"{plan_text(job, costs, notes)}\n\n{alternatives_text(costs, found)}")


def _plan(
    ctx: click.Context,
    choices: Choices,
    gpus: int | None,
    *,
    cluster: ClusterOptions,
    region: tuple[tuple[int, int], ...] | None,
    calibrate: bool | None,
    **options: Any,
) -> tuple[Costs, PlannedJob, dict[str, str]]:
    price = _price_for(
        choices.device, **_taken(options, "price_per_gpu_hour", "price_per_core_hour")
    )
    job = _job(choices, **options)
    if gpus is None:
        cluster = resolve(cluster, choices.device)
    else:
        memory = cluster.memory * cluster.workers if _given(ctx, "memory") else None
        cluster = cluster_of_gpus(cluster, gpus, memory)
    request = request_for(job, region_box(region, job.volume.shape), cluster)
    place = Workplace(cluster, choices.device, choices.codec)
    if calibrate is False or gpus is not None:
        planned = place.plan(request)
    else:
        planned = place.calibrated(request, anew=calibrate is True)
    notes = {"network": describe_network(request.architecture)}
    if options["shape"] is not None and options["model"] is None:
        notes["network"] += ": taken for want of a --model"
    return Costs(planned, price), job, notes


def _job(
    choices: Choices,
    *,
    source: VolumeReference | None,
    model: str | None,
    mask: VolumeReference | None,
    shape: ZYX | None,
    dtype_of_input: str | None,
    network: str | None,
) -> PlannedJob:
    if source is not None:
        assert model is not None, "a SOURCE has a --model"
        return check_job(source, model, mask=mask, choices=choices)
    assert shape is not None, "either SOURCE or --shape is given"
    dtype = dtype_of_input or "uint8"
    return paper_job(shape, dtype, choices, model=model, network=network or "planar")


def _taken(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: options.pop(name) for name in names}


def _price_for(
    device: str, *, price_per_gpu_hour: float | None, price_per_core_hour: float | None
) -> float | None:
    on_cpu = device_kind(device) == "cpu"
    if (price_per_gpu_hour if on_cpu else price_per_core_hour) is not None:
        wrong, right = ("gpu", "core") if on_cpu else ("core", "gpu")
        place = "CPUs" if on_cpu else "GPUs"
        raise click.UsageError(
            f"--price-per-{wrong}-hour: this plan is for {place}. Give --price-per-{right}-hour."
        )
    return price_per_core_hour if on_cpu else price_per_gpu_hour


def _given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _check_usage(ctx: click.Context) -> None:
    def clash(first: str, *others: str) -> None:
        for other in others:
            if _given(ctx, first) and _given(ctx, other):
                raise click.UsageError(f"{_flag(first)} does not go with {_flag(other)}.")

    on_paper = _given(ctx, "shape")
    if _given(ctx, "source") == on_paper:
        found = "both" if on_paper else "neither"
        raise click.UsageError(f"Give either SOURCE or --shape, not {found}.")
    if not on_paper and not _given(ctx, "model"):
        raise click.UsageError("Missing option '--model': SOURCE needs one, --shape does not.")
    clash("shape", "mask", "level", "channel", "axes")
    clash("source", "network", "dtype_of_input")
    clash("model", "network")
    clash("gpus", "workers", "scheduler", "cluster", "device", "calibrate")


def _flag(name: str) -> str:
    return "SOURCE" if name == "source" else f"--{name.replace('_', '-')}"
