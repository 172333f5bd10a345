"""``tilenet weights``: instances in, border weight map out, chunkwise and exact."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import click
import numpy as np

from pipelines.cluster import ClusterOptions, resolve
from pipelines.derive.storage_options import (
    StorageOptions,
    check_one_channel,
    overwrite_option,
    storage_options,
)
from pipelines.engine import Runner, Task
from pipelines.options import cluster_options, input_options
from pipelines.outputs import (
    Derived,
    OutputRun,
    Part,
    Summary,
    Weights,
    check_apart,
    check_block_memory,
    check_conditions,
    check_whole,
    find_begun,
    grow_block,
    open_input,
    part_option,
    say_notes,
    task_bytes,
)
from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.labels import ClassCounts, CountTask, WeightRule, WeightTask
from tilenet.volumes import (
    NewVolume,
    OutputReference,
    Volume,
    VolumeReference,
    compressors,
)

#: Bytes that a task holds per voxel that it reads, and per byte of a label: the separation's
#: extremes are copies of the labels.
VOXEL_BYTES, LABEL_COPIES = 40, 5

#: Bytes of a stored weight.
WEIGHT_BYTES = 4

#: Blocks per task slot that there should be at least.
BLOCKS_PER_SLOT = 2

#: A radius that leaves out more than this share of w0 is warned of.
CUT_OFF = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightOptions(StorageOptions):
    """What the user chose beside the rule."""

    single_instance: bool = False  # allow a volume that holds one instance only


@dataclasses.dataclass(frozen=True)
class _Job:
    # What fits together; nothing is written before all of it is known.
    source: VolumeReference
    volume: Volume
    output: str
    rule: WeightRule
    begun: Volume | None
    new: NewVolume
    grid: BlockGrid
    options: WeightOptions


@click.command()
@click.argument("instances")
@click.argument("output")
@click.option("--w0", type=float, default=10.0, show_default=True, help="Height of the border.")
@click.option(
    "--sigma", type=float, default=5.0, show_default=True,
    help="Width of the border, in voxels of the finest axis.",
)  # fmt: skip
@click.option(
    "--radius", type=float, default=32.0, show_default=True,
    help="No border where the second nearest instance is farther, in voxels of the finest axis.",
)  # fmt: skip
@click.option(
    "--per-section/--volumetric", default=None,
    help="Sections are images of their own, or not; as the instances were labelled.",
)  # fmt: skip
@click.option("--gap", type=int, default=0, help="Voxels of background made where instances touch.")
@click.option("--ignore", type=int, help="Label of weight 0: neither background nor an instance.")
@click.option("--single-instance", is_flag=True, help="Accept labels with a single instance.")
@storage_options
@input_options
@cluster_options
@part_option
@overwrite_option
def weights(
    instances: str,
    output: str,
    level: str | None,
    channel: int | None,
    axes: str | None,
    per_section: bool | None,
    cluster: ClusterOptions,
    part: Part | None,
    **chosen: Any,
) -> int:
    """Compute the loss weight of every voxel of INSTANCES, and store it as OUTPUT.

    Weight of the class (voxels / (2 x voxels of the class)) plus, in the background,
    w0 exp(-(d1 + d2)^2 / (2 sigma^2)), with the distances to the two nearest instances
    (Ronneberger et al. 2015). Distances are physical where voxels are not cubes.
    """
    source = VolumeReference(instances, level=level, channel=channel, axes=axes)
    names = {field.name for field in dataclasses.fields(WeightOptions)}
    options = WeightOptions(**{name: chosen.pop(name) for name in names})
    volume = open_input(source)
    per_section = labelled_per_section(volume) if per_section is None else per_section
    rule = WeightRule(
        **chosen, per_section=per_section, voxel_size=volume.voxel_size or (1.0, 1.0, 1.0)
    )
    for note in notes(volume, rule):
        click.echo(note, err=True)
    summary = run_weights(source, output, rule, options=options, cluster=cluster, part=part)
    return summary.finish()


def labelled_per_section(volume: Volume) -> bool:
    """Tell whether ``tilenet label`` made instances of every section alone."""
    rule = volume.attributes.get("rule")
    if volume.attributes.get("kind") != "instances" or not isinstance(rule, Mapping):
        return False
    return bool(rule.get("per_section"))


def notes(volume: Volume, rule: WeightRule) -> list[str]:
    """Say what a user should know before the work begins."""
    said = []
    if volume.voxel_size is None:
        assumed = "pixels are taken as squares" if rule.per_section else "voxels are taken as cubes"
        cure = "state it with 'tilenet ingest --voxel-size' where they are not"
        said.append(f"{volume.location}: voxel size not stated, so {assumed}; {cure}")
    if rule.cut_off > CUT_OFF * rule.w0:
        said.append(
            f"Warning: a radius of {rule.radius:g} with sigma {rule.sigma:g} leaves out border "
            f"terms of up to {rule.cut_off:.2g} (w0 = {rule.w0:g}); "
            f"--radius {math.ceil(5.3 * rule.sigma)} leaves less than {CUT_OFF:g} of w0"
        )
    return said


def run_weights(
    source: VolumeReference,
    output: str,
    rule: WeightRule,
    *,
    options: WeightOptions,
    cluster: ClusterOptions,
    part: Part | None = None,
) -> Summary:
    """Compute a weight map, or go on with one that was begun; the first pass is part 1's."""
    cluster = resolve(cluster)
    job = _check(source, output, rule, options=options, cluster=cluster)
    # Every part has to mean the same blocks, whatever memory its machine has: shards.
    blocks = job.grid if part is None else BlockGrid(job.volume.shape, job.new.shard)
    run = OutputRun(
        command="weights", output=output, begun=job.begun, grid=blocks, part=part,
        overwrite=options.overwrite,
    )  # fmt: skip
    run.check(first_pass=True)

    def prepare(runner: Runner) -> tuple[NewVolume, Callable[[OutputReference], Task]]:
        if job.begun is None:
            counts = _count(job, runner)
        else:
            counts = ClassCounts(**dict(Weights.from_attributes(job.begun.attributes).counts))
        stated = {**job.new.attributes, "counts": dataclasses.asdict(counts)}
        attributes = Weights.from_attributes(stated).to_attributes()
        new = dataclasses.replace(job.new, attributes=attributes)
        return new, functools.partial(_task, job, runner.name, counts)

    small = len(job.grid if job.begun is None else run.missing) <= 1
    return run.store(cluster, prepare, small=small)


def _task(job: _Job, run: str, counts: ClassCounts, written: OutputReference) -> WeightTask:
    return WeightTask(source=job.source, output=written, rule=job.rule, counts=counts, run=run)


def _check(
    source: VolumeReference,
    output: str,
    rule: WeightRule,
    *,
    options: WeightOptions,
    cluster: ClusterOptions,
) -> _Job:
    check_apart(output, source.location)
    compressors(options.codec)
    volume = source.open()
    _check_labels(volume, rule)
    check_whole(volume, Box.of_shape(volume.shape))
    begun = find_begun(output, "weights", overwrite=options.overwrite)
    margins = zyx(a + b for a, b in zip(*rule.margins, strict=True))
    voxel = volume.dtype.itemsize * LABEL_COPIES + VOXEL_BYTES

    def needed(block: ZYX) -> int:
        read = zip(block, margins, volume.shape, strict=True)
        return voxel * math.prod(min(n + m, size) for n, m, size in read)

    def fits(block: ZYX) -> bool:
        return needed(block) <= task_bytes(cluster)

    chunk, shard = options.shapes(
        volume, begun, itemsize=WEIGHT_BYTES, flat=rule.per_section, fits=fits
    )
    # Without the counts of the classes, which the first pass finds.
    record = Derived.of("weights", volume, _rule(volume, rule))
    if begun is not None:
        check_conditions(begun, record, voxel_size=volume.voxel_size, shard=shard)
    check_block_memory(cluster, shard, needed, "A shard")
    least = BLOCKS_PER_SLOT * cluster.workers * cluster.slots
    block = grow_block(shard, volume.shape, margins, fits=fits, least=least)
    grid = BlockGrid(volume.shape, block)
    new = NewVolume(
        shape=volume.shape,
        dtype="float32",
        chunk=chunk,
        shard=shard,
        voxel_size=volume.voxel_size,
        translation=volume.layout.translation,
        codec=options.codec,
        attributes=record.to_attributes(),
    )
    return _Job(source, volume, output, rule, begun, new, grid, options)


def _check_labels(volume: Volume, rule: WeightRule) -> None:
    what = f"Instances {volume.location}"
    check_one_channel(volume)
    if volume.dtype.kind not in "ui":
        problem = f"are of type {volume.dtype}, not whole numbers"
        cure = "Make instances of a mask with 'tilenet label'."
        if volume.dtype.kind == "f":
            cure += " Store instances as integers with 'tilenet ingest --dtype uint32'."
        raise InvalidData(what, problem, cure)
    limits = np.iinfo(volume.dtype)
    if rule.ignore is not None and not limits.min <= rule.ignore <= limits.max:
        problem = f"cannot occur: {volume.location} holds {limits.min} to {limits.max}"
        raise InvalidData(f"--ignore {rule.ignore}", problem, "Give a value that it holds.")
    if labelled_per_section(volume) and not rule.per_section:
        problem = "were labelled section by section: one cell is another instance in each"
        raise InvalidData(what, problem, "Take --per-section, or label them in 3-D.")


def _rule(volume: Volume, rule: WeightRule) -> dict[str, Any]:
    first = 1 if rule.per_section else 0
    values = dataclasses.asdict(rule)
    del values["voxel_size"]
    # What sigma and radius count in, and what distances are made of.
    unit = None if volume.voxel_size is None else min(volume.voxel_size[first:])
    return {**values, "unit_nm": unit, "squared_steps": rule.squared_steps[first:]}


def _count(job: _Job, runner: Runner) -> ClassCounts:
    task = CountTask(source=job.source, rule=job.rule, run=runner.name)
    counts: ClassCounts = runner.fold(
        "Count", task, job.grid, lambda _, found: sum(found, ClassCounts())
    )
    _check_counts(job, counts)
    voxels = counts.background + counts.foreground
    if job.rule.ignore is not None and voxels == math.prod(job.volume.shape):
        text = f"No voxel is {job.rule.ignore} (--ignore); instances are {counts.lowest} to "
        say_notes(job.volume.location, (f"{text}{counts.highest}.",))
    return counts


def _check_counts(job: _Job, counts: ClassCounts) -> None:
    what = f"Instances {job.volume.location}"
    for name, voxels in (("background", counts.background), ("instance", counts.foreground)):
        if not voxels:
            problem = f"have no {name} voxel{' after the gap was made' if job.rule.gap else ''}"
            cure = "Weights balance two classes; give labels that have both."
            raise InvalidData(what, problem, cure)
    if counts.lowest is not None and counts.lowest < 0:
        problem = f"hold the negative label {counts.lowest}"
        cure = f"Say --ignore {counts.lowest} if it marks what was not labelled."
        raise InvalidData(what, problem, cure)
    # A mask has one value too, and would get a map without any border: hours later it would show
    # in merged cells. What our own command labelled is no mask.
    ours = job.volume.attributes.get("kind") == "instances"
    if counts.lowest == counts.highest and not (ours or job.options.single_instance):
        problem = f"hold one value beside 0, {counts.lowest}, as a mask does; borders need two"
        cure = "Make instances with 'tilenet label', or say --single-instance if there is but one."
        raise InvalidData(what, problem, cure)
