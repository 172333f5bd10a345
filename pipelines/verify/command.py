"""``tilenet verify``: whether an output is complete, undamaged, and matches its provenance."""

from __future__ import annotations

import math
import secrets
import uuid
from typing import Any

import click

from pipelines.cluster import ClusterOptions, resolve
from pipelines.engine import open_runner
from pipelines.options import REGION, Region, check_device, cluster_options, region_box
from pipelines.outputs import Prediction, bounds_of, kind_of, problems, record_of
from pipelines.predict import planned_cluster
from pipelines.stopping import Stopped
from pipelines.verify.findings import Report
from pipelines.verify.recompute import METADATA, Basis, Recomputation, basis_flaws, prepare
from tilenet.errors import InvalidData, TilenetError
from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.planning import Costs
from tilenet.volumes import (
    FOLDER,
    LABELS,
    CheckTask,
    Flaw,
    Volume,
    VolumeReference,
    key_reader,
    list_objects,
    object_path,
    open_volume,
)
from tilenet.volumes.stores import PARTIAL

#: Decoded bytes that one task looks at: seconds, whatever the size of a shard.
TASK_BYTES = 256 * 2**20

#: Missing objects that are looked for one by one although provenance says that something is wrong.
MOST_LACKING = 100_000


@click.command()
@click.argument("output")
@click.option("--source", help="What it was made of: its identity is compared.")
@click.option("--level", help="Pyramid level of --source, if it was not the finest.")
@click.option("--channel", type=click.IntRange(0), help="Channel of --source, if it has several.")
@click.option("--axes", help="Meaning of the axes of --source, where nothing says it.")
@click.option("--model", help="The model of a prediction: its digest is compared.")
@click.option("--mask", help="The mask of a prediction.")
@click.option("--region", type=REGION, help="Part to verify, snapped outward to whole blocks.")
@click.option(
    "--recompute", type=click.FloatRange(0, 1, min_open=True),
    help="Share of the blocks to predict again and compare, 0.01 for example; one at least.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), help="Decides which blocks; drawn and printed.")
@click.option("--device", default="cpu", show_default=True, callback=check_device,
              help="Where to recompute: cpu, cuda or cuda:N.")  # fmt: skip
@click.option("--delete-bad", is_flag=True,
              help="Delete stored objects that are damaged or impossible.")  # fmt: skip
@click.option("--delete-different", is_flag=True,
              help="Delete what --recompute finds to differ by more than plans do.")  # fmt: skip
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def verify(
    output: str,
    source: str | None,
    level: str | None,
    channel: int | None,
    axes: str | None,
    model: str | None,
    mask: str | None,
    delete_bad: bool,
    delete_different: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Verify OUTPUT, which predict, label, weights or ingest have made.

    Every stored object is decoded; provenance has to be whole, and to be true of --model and
    --source where they are given. Exit code 0 when all is well, 1 when something is not.
    """
    if source is None and (level, channel, axes) != (None, None, None):
        raise click.UsageError("--level, --channel and --axes are those of --source")
    if delete_different and options["recompute"] is None:
        raise click.UsageError("--delete-different deletes what --recompute finds: give both")
    basis = Basis(
        source=None if source is None else VolumeReference(source, level, channel, axes),
        model=model,
        mask=None if mask is None else VolumeReference(mask),
    )
    report = run_verify(output, basis=basis, **options)
    if delete_bad or delete_different:
        report.delete(bad=delete_bad, different=delete_different)
    return report.finish(as_json=as_json)


def run_verify(
    output: str,
    *,
    basis: Basis,
    cluster: ClusterOptions,
    region: Region | None = None,
    recompute: float | None = None,
    seed: int | None = None,
    device: str = "cpu",
) -> Report:
    volume = open_volume(output)
    report = Report(output, kind_of(volume))
    _check_options(volume, report.kind, basis, recompute)
    report.flaws += [Flaw("provenance", METADATA, "", problem) for problem in problems(volume)]
    sound = not report.flaws
    if sound:
        report.flaws += basis_flaws(volume, basis)
    box = _box(volume, region_box(region, volume.shape), sound)
    again = None
    if recompute is not None and not report.flaws:
        resolved = resolve(cluster, device)
        again = prepare(volume, box, basis, device=device, cluster=resolved)
    elif recompute is not None:
        report.notes.append("nothing was recomputed: what to compute is not known for sure")
    looked = _check_stored(volume, box, report, resolve(cluster), sound=sound)
    if looked and again is not None and recompute is not None:
        seed = secrets.randbelow(2**32) if seed is None else seed
        try:
            _recompute(again, report, resolved, share=recompute, seed=seed)
        except (TilenetError, Stopped) as error:  # what was found before is told all the same
            why = "it was stopped" if isinstance(error, Stopped) else str(error)
            report.flaws.append(Flaw("unchecked", "", "", f"blocks were not recomputed: {why}"))
    return report


def _check_options(volume: Volume, kind: str, basis: Basis, recompute: float | None) -> None:
    if not volume.array.path:
        problem = "is one level of an output, and what says how it was made lies beside it"
        raise InvalidData(volume.location, problem, "Give the folder above.")
    asked = {"--model": basis.model, "--mask": basis.mask, "--recompute": recompute}
    for name in [name for name, value in asked.items() if value is not None]:
        if kind != "prediction":
            problem = f"is for predictions, and this holds {kind}"
            raise InvalidData(name, problem, f"Leave out {name}.")


def _box(volume: Volume, region: Box, sound: bool) -> Box:
    record = record_of(volume) if sound else None
    planned = zyx(record.numeric_plan.block) if isinstance(record, Prediction) else None
    step = planned or volume.write_shape
    return region.snap_outward(step).intersect(Box.of_shape(volume.shape))


def _check_stored(
    volume: Volume, box: Box, report: Report, cluster: ClusterOptions, *, sound: bool
) -> bool:
    lattice = BlockGrid(volume.shape, volume.write_shape, box).lattice
    lacking = math.prod(lattice.shape) * (volume.channels or 1) - _check_names(volume, report)
    if lacking > MOST_LACKING and not sound:
        what = f"at least {lacking:,} objects are missing from an array of this shape"
        report.notes.append(f"{what}, which may be damaged: no object was looked at")
        return False
    task = CheckTask(
        output=VolumeReference(volume.location), run=uuid.uuid4().hex, bounds=bounds_of(volume),
        region=box,
    )  # fmt: skip
    blocks = BlockGrid(volume.shape, _task_shape(volume), box)
    place = volume.location
    with open_runner(cluster, command="verify", output=place, small=len(blocks) <= 1) as runner:
        report.objects = report.add(runner.run("Verify", task, blocks))
    return True


def _task_shape(volume: Volume) -> ZYX:
    # Whole rows of shards first, as they lie together on most disks.
    voxel = volume.dtype.itemsize * (volume.channels or 1)
    shape = list(volume.write_shape)
    for axis in (2, 1, 0):
        fitting = max(1, TASK_BYTES // (math.prod(shape) * voxel))
        shape[axis] *= min(fitting, math.ceil(volume.shape[axis] / shape[axis]))
    return zyx(shape)


def _check_names(volume: Volume, report: Report) -> int:
    # How many shards are stored.
    inside, position = object_path(volume, ""), key_reader(volume.array)
    stored, strays, joining = 0, list[str](), False
    for path in list_objects(volume.location):
        if path.startswith(inside) and position(path.removeprefix(inside)) is not None:
            stored += 1
        elif path.startswith(f"{LABELS}/"):
            continue  # label images of this volume, outputs of their own
        elif path.endswith(PARTIAL):
            report.notes.append(f"{path} was left by an interrupted write; it is not used")
        elif path.startswith(f"{FOLDER}/") and report.kind == "instances":
            joining = True
        elif path.startswith(f"{inside}c/"):
            strays.append(path)
        elif path not in (METADATA, f"{inside}{METADATA}"):
            report.notes.append(f"{path} is not of tilenet")
    cause = "is no object of an array of this shape"
    report.flaws += [Flaw("stray", path, "", cause) for path in sorted(strays)]
    if joining:
        cause = "the tables of its first pass are still there: it was not labelled to its end"
        report.flaws.append(Flaw("unfinished", FOLDER, "", cause))
    return stored


def _recompute(
    again: Recomputation, report: Report, cluster: ClusterOptions, *, share: float, seed: int
) -> None:
    costs = Costs(again.plan)
    boxes = again.choose(share, seed, {flaw.path for flaw in report.flaws})
    report.seed, report.blocks = seed, len(again.plan.grid)
    if not boxes:
        report.notes.append("nothing was recomputed: no block is whole")
        return
    cluster, limits = planned_cluster(cluster, costs)
    place = again.output.location
    with open_runner(cluster, command="verify", output=place, limits=limits) as runner:
        facts = runner.facts(again.execution)
        flaws, numeric = again.compare(facts)
        report.flaws += flaws
        if flaws:
            report.notes.append("nothing was recomputed: it would come to something else")
            return
        task = again.task(facts, exact=not numeric)
        if numeric:
            allowed = f"compared within {task.tolerance:g} of a probability, not bit for bit"
            report.notes.append(f"{allowed}, as the numeric plan is another: {'; '.join(numeric)}")
        outcome = runner.run("Recompute", task, boxes, one_by_one=True)
        report.recomputed = outcome.computed
        report.add(outcome)
        if not numeric and any(flaw.kind == "different" for flaw in report.flaws):
            report.notes.append(again.reasons(facts))
