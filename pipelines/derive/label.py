"""``tilenet label``: masks in, instances out, over a whole volume."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import click

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
    Instances,
    OutputRun,
    Part,
    Summary,
    Threshold,
    check_apart,
    check_block_memory,
    check_conditions,
    check_whole,
    find_begun,
    open_input,
    part_option,
    prediction_behind,
    sampled_range,
    task_bytes,
)
from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, BlockGrid, Box
from tilenet.labels import (
    PLANAR,
    ComponentsTask,
    JoinTable,
    LabelRule,
    LabelTask,
    SizeRule,
    id_dtype,
    join,
)
from tilenet.volumes import (
    NewVolume,
    OutputReference,
    Volume,
    VolumeReference,
    check_label_image,
    compressors,
    has_join,
    image_of,
    list_label_image,
    open_volume,
    refuse_if_different,
    remove_join,
    write_join,
)

#: Bytes per voxel that a task holds beside the stored values: the foreground, cc3d's labels and
#: union-find, ours, the ids, and what is encoded.
VOXEL_BYTES = 32


_SIZE = click.IntRange(min=1)


@dataclasses.dataclass(frozen=True)
class _Job:
    # What fits together; nothing is written before all of it is known.
    source: VolumeReference
    volume: Volume
    output: str
    rule: LabelRule
    threshold: Threshold | None
    sizes: SizeRule
    begun: Volume | None
    chunk: ZYX
    shard: ZYX
    options: StorageOptions

    @property
    def grid(self) -> BlockGrid:
        return BlockGrid(self.volume.shape, self.shard)


@click.command()
@click.argument("masks")
@click.argument("output")
@click.option("--per-section", is_flag=True, help="Sections are images of their own.")
@click.option(
    "--connectivity", type=click.Choice(["4", "8", "6", "18", "26"]),
    help="Neighbours that count as adjacent: 4 (default) or 8 per section; 6 (default), 18 or 26.",
)  # fmt: skip
@click.option(
    "--threshold", type=float,
    help="Probabilities above it are foreground, 0.5 of predictions; masks: not 0.",
)  # fmt: skip
@click.option("--raw-threshold", type=float, help="Stored values above it are foreground.")
@click.option(
    "--invert",
    is_flag=True,
    help="Masks of membranes: voxels not above it instead; where 1 - p is.",
)
@click.option("--by-value", is_flag=True, help="Join voxels of equal value that is not 0.")
@click.option("--min-size", type=_SIZE, help="Leave out instances of fewer voxels.")
@click.option("--max-size", type=_SIZE, help="Leave out instances of more voxels.")
@click.option("--largest", type=_SIZE, help="Keep only so many, the largest of the volume.")
@storage_options
@input_options
@cluster_options
@part_option
@overwrite_option
def label(
    masks: str,
    output: str,
    per_section: bool,
    connectivity: str | None,
    threshold: float | None,
    raw_threshold: float | None,
    invert: bool,
    by_value: bool,
    min_size: int | None,
    max_size: int | None,
    largest: int | None,
    level: str | None,
    channel: int | None,
    axes: str | None,
    cluster: ClusterOptions,
    part: Part | None,
    **options: Any,
) -> int:
    """Label the connected components of MASKS, and store them as the instances OUTPUT.

    Ids are consecutive from 1, in the order of the instances' first voxels (z, y, x): the result
    depends on the masks alone. Two passes over the volume; a run that was stopped in the second
    goes on where it stopped. OUTPUT may be IMAGE/labels/NAME within an OME-Zarr 0.5 image: it is
    then a label image of that, and listed there.
    """
    contradicting = {
        "--threshold": threshold is not None,
        "--raw-threshold": raw_threshold is not None,
        "--invert": invert,
    }
    for name in (name for name, is_given in contradicting.items() if by_value and is_given):
        problem = "contradicts --by-value, which joins equal values whatever they are"
        raise InvalidData(name, problem, "Leave out one of the two.")
    rule = label_rule(per_section, connectivity, invert=invert, by_value=by_value)
    summary = run_label(
        VolumeReference(masks, level=level, channel=channel, axes=axes),
        output,
        rule,
        options=StorageOptions(**options),
        cluster=cluster,
        part=part,
        threshold=None
        if by_value
        else Threshold(probability=threshold, raw=raw_threshold, invert=invert),
        sizes=SizeRule(min_size=min_size, max_size=max_size, largest=largest),
    )
    code = summary.finish()
    if part is None and summary.outcome.complete:
        click.echo(f"{output}: {open_volume(output).attributes['instances']:,} instances", err=True)
    return code


def label_rule(
    per_section: bool, connectivity: str | None, *, invert: bool, by_value: bool
) -> LabelRule:
    number = int(connectivity or (4 if per_section else 6))
    if per_section != (number in PLANAR):
        problem = f"{number} is within a section" if number in PLANAR else f"{number} is in 3-D"
        cure = (
            "Add --per-section, or choose 6, 18 or 26."
            if number in PLANAR
            else "Leave out --per-section, or choose 4 or 8."
        )
        raise InvalidData("--connectivity", problem, cure)
    return LabelRule(connectivity=number, threshold=None if by_value else 0.0, invert=invert)


def run_label(
    source: VolumeReference,
    output: str,
    rule: LabelRule,
    *,
    options: StorageOptions,
    cluster: ClusterOptions,
    part: Part | None = None,
    threshold: Threshold | None = None,
    sizes: SizeRule = SizeRule(),  # noqa: B008 - it cannot be changed
) -> Summary:
    """Label a volume, or go on with an output that was begun; the first pass is part 1's.

    ``threshold`` takes the place of the rule's own, by what the masks are.
    """
    cluster = resolve(cluster)
    job = _check(
        source, output, rule, options=options, cluster=cluster, threshold=threshold, sizes=sizes
    )
    run = OutputRun(
        command="label", output=output, begun=job.begun, grid=job.grid, part=part,
        overwrite=options.overwrite,
    )  # fmt: skip
    joined = job.begun is not None and (not run.missing or has_join(output))
    run.check(first_pass=True, ready=joined)

    def prepare(runner: Runner) -> tuple[NewVolume | None, Callable[[OutputReference], Task]]:
        table = None if joined else _join(job, runner)
        new = None if table is None or job.begun else _new_volume(job, table)
        return new, functools.partial(_task, job, runner.name, table)

    small = len(run.missing if joined else job.grid) <= 1
    summary = run.store(cluster, prepare, small=small)
    if part is None and summary.outcome.complete:
        remove_join(output)
        list_label_image(output)  # again, for a store that has no conditional writes
    return summary


def _task(job: _Job, run: str, table: JoinTable | None, written: OutputReference) -> LabelTask:
    list_label_image(written.location)
    if table is not None:
        write_join(written.location, table.ids, table.offsets)
    return LabelTask(source=job.source, output=written, block=job.shard, rule=job.rule, run=run)


def _check(
    source: VolumeReference,
    output: str,
    rule: LabelRule,
    *,
    options: StorageOptions,
    cluster: ClusterOptions,
    threshold: Threshold | None,
    sizes: SizeRule,
) -> _Job:
    check_apart(output, source.location, check_label_image(output))
    compressors(options.codec)
    volume = open_input(source)
    _check_masks(volume, rule)
    stored = None if threshold is None else threshold.stored(volume)
    check_whole(volume, Box.of_shape(volume.shape))
    begun = find_begun(output, "instances", overwrite=options.overwrite)
    if threshold is not None:
        before = _begun_threshold(begun, volume, threshold)
        rule = dataclasses.replace(rule, threshold=stored if before is None else before)
    if threshold is not None and begun is None:  # what was begun goes on
        threshold.check(volume, sampled_range(volume), sampled=True)
    voxel = volume.dtype.itemsize + VOXEL_BYTES

    def needed(block: ZYX) -> int:
        return voxel * math.prod(n + m for n, m in zip(block, rule.reach, strict=True))

    chunk, shard = options.shapes(
        volume, begun, itemsize=id_dtype(0).itemsize, flat=rule.per_section,
        fits=lambda shard: needed(shard) <= task_bytes(cluster),
    )  # fmt: skip
    if begun is not None:
        record = _record(volume, rule, sizes)
        check_conditions(begun, record, voxel_size=volume.voxel_size, shard=shard)
    check_block_memory(cluster, shard, needed, "A shard")
    return _Job(source, volume, output, rule, threshold, sizes, begun, chunk, shard, options)


def _begun_threshold(begun: Volume | None, volume: Volume, threshold: Threshold) -> float | None:
    # Version 0.1.0 took the number itself for a stored value; of floats it is a probability too.
    rule = {} if begun is None else begun.attributes.get("rule", {})
    before = rule.get("threshold") if isinstance(rule, Mapping) else None
    goes_on = volume.dtype.kind in "bf" and before is not None and before == threshold.probability
    return float(before) if goes_on and before is not None else None


def _check_masks(volume: Volume, rule: LabelRule) -> None:
    check_one_channel(volume)
    if rule.threshold is None and volume.dtype.kind not in "uib":
        problem = f"are of type {volume.dtype}, and equal values mean little there"
        cure = "Give a --threshold, or whole numbers: 'tilenet ingest --dtype uint32' stores them."
        raise InvalidData(f"Masks {volume.location}", problem, cure)


def _record(volume: Volume, rule: LabelRule, sizes: SizeRule) -> Derived:
    # Without the number of instances, which the first pass counts.
    chosen = dataclasses.asdict(sizes) if sizes.chooses else {}
    stated = {**dataclasses.asdict(rule), "per_section": rule.per_section, **chosen}
    return Derived.of("instances", volume, stated)


def _join(job: _Job, runner: Runner) -> JoinTable:
    # The first pass. The output is created only now that the number of its ids is known.
    task = ComponentsTask(source=job.source, rule=job.rule, run=runner.name)
    table: JoinTable = runner.fold(
        "Components", task, job.grid, lambda _, blocks: join(blocks, job.sizes)
    )
    if job.threshold is not None and job.begun is None:
        job.threshold.check(job.volume, table.values)
    if table.left_out:
        click.echo(f"By their sizes {table.left_out:,} instances are left out.", err=True)
    if job.begun is not None:
        before = {"instances": Instances.from_attributes(job.begun.attributes).instances}
        refuse_if_different(job.output, before, {"instances": table.count})
    return table


def _new_volume(job: _Job, table: JoinTable) -> NewVolume:
    stated = {**_record(job.volume, job.rule, job.sizes).to_attributes(), "instances": table.count}
    if made_of := prediction_behind(job.volume):
        stated["made_of"] = made_of
    return NewVolume(
        shape=job.volume.shape,
        dtype=str(id_dtype(table.count)),
        chunk=job.chunk,
        shard=job.shard,
        voxel_size=job.volume.voxel_size,
        translation=job.volume.layout.translation,
        codec=job.options.codec,
        label_image=image_of(job.output) is not None,
        attributes=Instances.from_attributes(stated).to_attributes(),
    )
