"""``tilenet predict``: a volume and a model in, a stitched prediction out, Zarr to Zarr."""

from __future__ import annotations

import dataclasses
import functools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from distributed import Client

from pipelines.cluster import ClusterOptions, default_workers, open_client, resolve, task_resources
from pipelines.engine import Limits, Outcome, RunOptions, common_facts, ending, run_on_cluster
from pipelines.options import Region, cluster_options, region_box, source_argument
from pipelines.outputs import (
    Part,
    Summary,
    check_can_go_on,
    check_part,
    check_stored,
    part_option,
    share_of,
    with_others,
)
from pipelines.predict.checks import check_inputs, check_job, check_output
from pipelines.predict.intensity_rule import IntensityRule, doubt
from pipelines.predict.job import Choices, Job, new_output, predict_task, provenance, settings
from pipelines.predict.options import prediction_options
from pipelines.predict.plan_text import plan_text
from pipelines.predict.planning import output_dtype, plan_job, planned_cluster
from pipelines.predict.resume import check_resume
from pipelines.stopping import Stop, stop_on_signals
from pipelines.watching import Watch, open_watch
from tilenet.errors import BlocksFailed, InvalidData
from tilenet.geometry import BlockGrid, Box
from tilenet.inference import PredictTask, compute_block
from tilenet.planning import Costs, Plan
from tilenet.volumes import (
    Intensity,
    Moments,
    MomentsTask,
    OutputReference,
    Volume,
    VolumeReference,
    create_volume,
    open_volume,
    remove_partial_files,
)

if TYPE_CHECKING:
    import dask.array


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
@click.option("--invert", is_flag=True, help="Negate the normalised grey values.")
@cluster_options
@part_option
@click.option("--overwrite", is_flag=True, help="Replace an output that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
def predict(
    intensity: IntensityRule, void: float | None, invert: bool, as_json: bool, **options: Any
) -> int:
    """Predict the volume SOURCE into the Zarr OUTPUT.

    The result equals one pass of the network over the whole mirror-padded volume. Interrupted, it
    is continued by the same command; a later run with another --region extends it.
    """
    rule = dataclasses.replace(intensity, void=void, invert=invert)
    run = functools.partial(run_prediction, rule=rule, **options)
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
    rule: IntensityRule | None = None,
    overwrite: bool = False,
    part: Part | None = None,
) -> Summary:
    """Predict a volume.

    Parameters
    ----------
    source : VolumeReference
        The input.
    output : str
        Path or URL of the prediction; continued when it was begun under the same conditions.
    model : str
        Model file.
    cluster : ClusterOptions
        Where to compute.
    region : sequence of (int, int or None), optional
        Start and stop along (z, y, x); snapped outward to whole blocks.
    mask : VolumeReference, optional
        Where to predict.
    choices : Choices, optional
        Block, data type, precision, device, orientations to average.
    rule : IntensityRule, optional
        Grey values; the model's rule by default.
    overwrite : bool
        Replace an output that is there.
    part : Part, optional
        Compute a share of the blocks only.

    Returns
    -------
    Summary
        What was done; blocks may have failed.

    Raises
    ------
    TilenetError
        Before anything is written, when something does not fit.
    """
    rule = rule or IntensityRule("model")
    choices = choices or Choices()
    if cluster.local and choices.device != "cpu":
        from tilenet.inference import check_device  # on the CPU only the workers need load PyTorch

        check_device(choices.device)
    gpus = 0 if cluster.batch is None else cluster.batch.profile.gpus_per_job
    if gpus and choices.device == "cpu":
        problem = f"reserve {gpus} GPUs each, which --device cpu would leave idle"
        raise InvalidData("The jobs", problem, "Give --device cuda, or gpus_per_job = 0.")
    job = check_job(source, model, mask=mask, choices=choices)
    begun = check_output(job, output, overwrite)
    cluster = resolve(cluster, job.choices.device)
    plan = plan_job(job, region_box(region, job.volume.shape), cluster, begun)
    stored = begun.attributes["intensity"] if begun else {}
    known = rule.known(job.header, stored)
    started = begun is not None
    check_part(part, output, begun=started, first_pass=known is None, overwrite=overwrite)
    check_inputs(job, plan, measured=known is None)
    if known is not None and (warning := doubt(job.volume, plan.request.region, known)):
        click.echo(warning, err=True)
    costs = Costs(plan)
    click.echo(plan_text(job, costs), err=True)
    cluster = planned_cluster(cluster, costs)
    limits = Limits.expecting(
        costs.block_seconds,
        timeout=cluster.block_timeout,
        memory=plan.worker_bytes,
        outage=cluster.outage_timeout,
    )
    grid, outcome = share_of(plan.grid, part), Outcome()
    if begun is not None:
        check_can_go_on(begun, grid)
    with (
        ending(outcome),
        stop_on_signals() as stop,
        open_client(cluster, stop, limits.memory) as client,
        open_watch("predict", output, client, cluster.dashboard) as watch,
    ):
        run = _Run(job, plan, output, watch, client, stop, uuid.uuid4().hex, part, limits)
        task = run.prepare(rule, known, begun, overwrite)
        missing = open_volume(output).missing(grid)
        if missing and begun is not None and part is None:  # nobody else writes
            remove_partial_files(output)
        run.compute(task, grid, missing, outcome)
    check_stored(output, grid, missing, outcome, shared=part is not None)
    before, share = len(grid) - len(missing), None if part is None else str(part)
    return Summary("predict", output, len(grid), before, outcome, watch, share)


@dataclass(frozen=True)
class _Run:
    # A planned prediction on a running cluster.
    job: Job
    plan: Plan
    output: str
    watch: Watch
    client: Client
    stop: Stop
    name: str
    part: Part | None
    limits: Limits

    def prepare(
        self, rule: IntensityRule, known: Intensity | None, begun: Volume | None, overwrite: bool
    ) -> PredictTask:
        facts = common_facts(self.client, settings(self.job, self.plan))
        intensity = known or self._measure(rule)
        dtype = output_dtype(self.job, begun)
        stated = provenance(
            self.job, self.plan, intensity=rule.to_dict(intensity), facts=facts, dtype=dtype
        )
        if begun is None:
            new = new_output(self.job, self.plan, dtype, stated)
            self.stop.check()  # a stop while the cluster came up must cost no old output
            creation: str | None = create_volume(self.output, new, overwrite=overwrite)
        else:
            check_resume(self.job, self.plan, begun, stated)
            creation = begun.creation
        written = OutputReference(self.output, creation)
        return predict_task(
            self.job, self.plan, written, intensity=intensity, facts=facts, run=self.name
        )

    def _measure(self, rule: IntensityRule) -> Intensity:
        volume = self.job.volume
        grid = BlockGrid(volume.shape, self.plan.block)
        task = MomentsTask(source=self.job.source, run=self.name, void=rule.void)
        with self.watch.reporter("Grey values", grid, range(len(grid))) as reporter:
            options = RunOptions(
                name="moments", reporter=reporter, stop=self.stop, keep_reports=True,
                limits=self.limits,
            )  # fmt: skip
            outcome = run_on_cluster(task, grid, options, client=self.client)
        self.stop.check()
        if outcome.failed:
            failed = [(str(box), error) for box, error in outcome.failed]
            raise BlocksFailed("predict", failed, len(grid), stored=False)
        # Summed in the grid's order, not in that of arrival: floating-point sums depend on it.
        ordered = sorted(outcome.reports, key=lambda report: report.box.start)
        total = sum((report.value for report in ordered), Moments())
        return dataclasses.replace(total.intensity, invert=rule.invert)

    def compute(
        self, task: PredictTask, grid: Sequence[Box], missing: Sequence[int], outcome: Outcome
    ) -> None:
        with self.watch.reporter("Predict", grid, missing, one_by_one=True) as reporter:
            options = RunOptions(
                name="predict",
                reporter=reporter,
                stop=self.stop,
                resources=task_resources(self.client),
                limits=self.limits,
                outcome=outcome,
            )
            run_on_cluster(task, (grid[i] for i in missing), options, client=self.client)


def as_array(
    volume: str,
    model: str,
    *,
    memory: int = 4 * 2**30,
    choices: Choices | None = None,
    threads: int = 1,
) -> dask.array.Array:
    """Predict lazily: a Dask array with one task per block.

    Slicing it computes only the blocks that the slice touches. The values are those that
    ``tilenet predict`` stores under the same numeric plan.

    Parameters
    ----------
    volume : str
        Path or URL of the input.
    model : str
        Model file.
    memory : int
        Bytes that one task may use.
    choices : Choices, optional
        Block, data type, precision, device, orientations to average.
    threads : int
        CPU threads of an evaluation.

    Returns
    -------
    dask.array.Array, shape (z, y, x) or (channels, z, y, x)
        Foreground probability of two classes, or all channels.
    """
    import dask.array  # here, for it takes a second that no command needs

    source = VolumeReference(volume)
    job = check_job(source, model, mask=None, choices=choices or Choices())
    cluster = ClusterOptions(
        workers=default_workers(threads), slots=1, threads=threads, memory=memory
    )
    plan = plan_job(job, region_box(None, job.volume.shape), cluster)
    check_inputs(job, plan)
    task = PredictTask(
        source=source,
        output=OutputReference("", None),
        model=model,
        model_sha256=job.sha256,
        settings=settings(job, plan),
        intensity=job.header.intensity,
        architecture=job.header.architecture,
        tile=plan.tile,
        run=uuid.uuid4().hex,
        orientations=plan.request.orientations,
    )
    dtype = output_dtype(job, None)
    shapes: list[tuple[int, ...]] = [
        (size,) * (n // size) + ((n % size,) if n % size else ())
        for n, size in zip(job.volume.shape, plan.block, strict=True)
    ]
    if job.header.stored_channels is not None:
        shapes.insert(0, (len(job.header.stored_channels),))
    return dask.array.map_blocks(
        functools.partial(compute_block, task, dtype),
        chunks=tuple(shapes),
        dtype=dtype,
        meta=np.empty((0,) * len(shapes), dtype),
    )
