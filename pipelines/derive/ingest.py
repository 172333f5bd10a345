"""``tilenet ingest``: images of any kind in, OME-Zarr out, block by block."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import click
import numpy as np

from pipelines.cluster import ClusterOptions, resolve
from pipelines.derive.storage_options import StorageOptions, overwrite_option, storage_options
from pipelines.options import (
    REGION,
    VOXEL_SIZE,
    Region,
    cluster_options,
    input_options,
    region_box,
)
from pipelines.outputs import (
    Ingested,
    OutputRun,
    Summary,
    check_apart,
    check_conditions,
    check_whole,
    find_begun,
    say_notes,
    say_stored,
    storage_shapes,
)
from tilenet.errors import NotEnoughMemory, ResumeRefused
from tilenet.formats import (
    IngestTask,
    Selection,
    Source,
    ZarrSource,
    open_source,
    translated,
)
from tilenet.geometry import ZYX, BlockGrid, round_up, zyx
from tilenet.planning import PROCESS_BYTES
from tilenet.volumes import (
    NewVolume,
    OutputReference,
    Volume,
    compressors,
)
from tilenet.volumes.stores import is_remote

#: Types that can be stored.
TYPES = (
    *(f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64"),
)

#: Copies of a block in memory while it is read, cut and encoded.
BLOCK_COPIES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestOptions(StorageOptions):
    voxel_size: tuple[float, float, float] | None = None  # nanometres, (z, y, x)
    region: Region | None = None  # start and stop along (z, y, x) of what is converted
    dtype: str | None = None  # of the stored values; None: the source's


@click.command()
@click.argument("source")
@click.argument("output")
@click.option("--voxel-size", type=VOXEL_SIZE, help="nm, z,y,x: 50,4,4 or z=50,y=4,x=4.")
@click.option("--region", type=REGION, help="Convert only start:stop along z,y,x, or z=0:10.")
@click.option("--dtype", type=click.Choice(TYPES),
              help="Type to store; a value that it cannot hold exactly is refused.")  # fmt: skip
@storage_options
@input_options
@click.option("--series", type=click.IntRange(0), help="Image to read of several in a TIFF file.")
@click.option("--missing", type=click.Choice(["skip", "repeat", "blank"]),
              help="What stands for sections whose numbers are missing in a folder: nothing, "
              "the section before, or zeros.")  # fmt: skip
@cluster_options
@overwrite_option
def ingest(
    source: str,
    output: str,
    level: str | None,
    channel: int | None,
    axes: str | None,
    series: int | None,
    missing: str | None,
    cluster: ClusterOptions,
    **options: Any,
) -> int:
    """Convert SOURCE to the OME-Zarr volume OUTPUT.

    SOURCE is a TIFF stack, a folder or a quoted pattern of TIFF or PNG sections, an HDF5 dataset
    (file.h5:/path; also of Imaris, MATLAB 7.3 and BigDataViewer), a NumPy file or a Zarr. It is
    streamed, never held in memory as a whole.
    Without --channel all channels are stored. The samples of a colour image are no channels, but
    with --axes yxc.
    """
    chosen = IngestOptions(**options)
    opened = open_source(
        source, axes=axes, channel=channel, level=level, series=series, missing=missing
    )
    say_notes(opened.location, opened.notes)
    click.echo(describe_source(select(opened, chosen), chosen), err=True)
    return run_ingest(opened, output, chosen, cluster).finish()


def describe_source(source: Source, options: IngestOptions) -> str:
    size = options.voxel_size or source.voxel_size
    stated = "voxel size not stated (--voxel-size)"
    if size is not None:
        named = ", ".join(f"{axis} {nm:g}" for axis, nm in zip("zyx", size, strict=True))
        stated = f"voxels of {named} nm"
    shape = " x ".join(str(n) for n in source.shape)
    named = "" if source.channels is None else f" of {len(source.channels)} channels"
    return f"{source.location}: {shape} (z, y, x){named} {source.dtype}, {stated}"


def select(source: Source, options: IngestOptions) -> Selection:
    region = region_box(options.region, source.shape)
    return Selection(source, region, np.dtype(options.dtype or source.dtype))


def run_ingest(
    source: Source, output: str, options: IngestOptions, cluster: ClusterOptions
) -> Summary:
    """Copy a source into a new volume, or go on with one that was begun."""
    selected = select(source, options)
    if isinstance(source, ZarrSource):
        say_stored(source.volume)
        check_whole(source.volume, selected.region)
    inside = source.location
    check_apart(output, inside if is_remote(inside) else inside.split(":/")[0])
    new = new_volume(selected, options)
    compressors(options.codec)
    begun = find_begun(output, "volume", overwrite=options.overwrite)
    if begun is not None:
        record = Ingested.from_attributes(new.attributes)
        check_conditions(begun, record, voxel_size=new.voxel_size, shard=new.shard)
        _check_position(begun, new)
    elif new.translation is None and (source.translation or any(selected.region.start)):
        say_notes(output, ["Its position is not stored, as no --voxel-size is stated."])
    cluster = resolve(cluster)
    grid = BlockGrid(new.shape, block_shape(selected, new, cluster))
    run = OutputRun(
        command="ingest", output=output, begun=begun, grid=grid, overwrite=options.overwrite
    )
    run.check()
    return run.store(
        cluster,
        lambda runner: (new, functools.partial(_task, selected, runner.name)),
        small=len(run.missing) <= 1,
    )


def _task(source: Selection, run: str, written: OutputReference) -> IngestTask:
    return IngestTask(source=source, output=written, run=run)


def _check_position(begun: Volume, new: NewVolume) -> None:
    wanted = new.translation or (0.0, 0.0, 0.0)
    stored = begun.translation or (0.0, 0.0, 0.0)
    if any(stored) and not np.allclose(stored, wanted, rtol=1e-9, atol=1e-9):
        raise ResumeRefused(begun.location, {"translation": (stored, wanted)})
    if any(wanted) and not any(stored):  # older versions stored no position
        at = ", ".join(f"{axis} {nm:g}" for axis, nm in zip("zyx", wanted, strict=True))
        note = f"It was begun without the position of its source, {at} nm. --overwrite stores it."
        say_notes(begun.location, [note])


def new_volume(selected: Selection, options: IngestOptions) -> NewVolume:
    size, source = options.voxel_size or selected.voxel_size, selected.source
    chunk, shard = storage_shapes(selected.shape, size, chunk=options.chunk, shard=options.shard)
    changed: dict[str, Any] = {}
    if selected.shape != source.shape:
        region = selected.region
        changed["region"] = list(zip(region.start, region.stop, strict=True))
    if selected.dtype != source.dtype:
        changed["dtype"] = str(selected.dtype)
    record = Ingested(kind="volume", source=source.identity(), **changed)
    return NewVolume(
        shape=selected.shape,
        dtype=str(selected.dtype),
        chunk=chunk,
        shard=shard,
        voxel_size=size,
        # Without a voxel size the stored axes have no unit.
        translation=size and translated(source.translation, selected.region.start, size),
        channels=source.channels,
        codec=options.codec,
        attributes=record.to_attributes(),
    )


def block_shape(selected: Selection, new: NewVolume, cluster: ClusterOptions) -> ZYX:
    """Choose blocks of whole shards that decode no piece of the source twice, if memory allows."""
    allowed = (cluster.memory - PROCESS_BYTES) / cluster.slots / BLOCK_COPIES
    voxel = max(selected.source.dtype.itemsize, selected.dtype.itemsize)
    voxel *= len(selected.channels or " ")
    block = new.shard
    needed = math.prod(block) * voxel * BLOCK_COPIES * cluster.slots + PROCESS_BYTES
    if needed > cluster.memory:
        what = f"A shard of {new.shard}"
        raise NotEnoughMemory(needed, cluster.memory, what, "a smaller --shard")
    whole = zyx(
        round_up(min(max(p, s), n), s)
        for p, s, n in zip(selected.piece_shape, new.shard, new.shape, strict=True)
    )
    return whole if math.prod(whole) * voxel <= allowed else block
