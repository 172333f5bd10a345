"""``tilenet ingest``: images of any kind in, OME-Zarr out, block by block."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import click

from pipelines.cluster import ClusterOptions, resolve
from pipelines.derive.storage_options import StorageOptions, overwrite_option, storage_options
from pipelines.options import VOXEL_SIZE, cluster_options, input_options
from pipelines.outputs import (
    Ingested,
    OutputRun,
    Summary,
    check_apart,
    check_conditions,
    check_whole,
    find_begun,
    say_notes,
    storage_shapes,
)
from tilenet.errors import NotEnoughMemory
from tilenet.formats import IngestTask, Source, ZarrSource, open_source
from tilenet.geometry import ZYX, BlockGrid, Box, round_up, zyx
from tilenet.planning import PROCESS_BYTES
from tilenet.volumes import (
    NewVolume,
    OutputReference,
    compressors,
)
from tilenet.volumes.stores import is_remote

#: Copies of a block in memory while it is read, cut and encoded.
BLOCK_COPIES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestOptions(StorageOptions):
    voxel_size: tuple[float, float, float] | None = None  # nanometres, (z, y, x)


@click.command()
@click.argument("source")
@click.argument("output")
@click.option("--voxel-size", type=VOXEL_SIZE, help="nm, z,y,x: 50,4,4 or z=50,y=4,x=4.")
@storage_options
@input_options
@cluster_options
@overwrite_option
def ingest(
    source: str,
    output: str,
    level: str | None,
    channel: int | None,
    axes: str | None,
    cluster: ClusterOptions,
    **options: Any,
) -> int:
    """Convert SOURCE to the OME-Zarr volume OUTPUT.

    SOURCE is a TIFF stack, a folder or a quoted pattern of TIFF or PNG sections, an HDF5 dataset
    (file.h5:/path), a NumPy file or a Zarr. It is streamed, never held in memory as a whole.
    """
    chosen = IngestOptions(**options)
    opened = open_source(source, axes=axes, channel=channel, level=level)
    say_notes(opened.location, opened.notes)
    click.echo(describe_source(opened, chosen), err=True)
    return run_ingest(opened, output, chosen, cluster).finish()


def describe_source(source: Source, options: IngestOptions) -> str:
    size = options.voxel_size or source.voxel_size
    stated = "voxel size not stated (--voxel-size)"
    if size is not None:
        named = ", ".join(f"{axis} {nm:g}" for axis, nm in zip("zyx", size, strict=True))
        stated = f"voxels of {named} nm"
    shape = " x ".join(str(n) for n in source.shape)
    return f"{source.location}: {shape} (z, y, x) {source.dtype}, {stated}"


def run_ingest(
    source: Source, output: str, options: IngestOptions, cluster: ClusterOptions
) -> Summary:
    """Copy a source into a new volume, or go on with one that was begun."""
    if isinstance(source, ZarrSource):
        check_whole(source.volume, Box.of_shape(source.shape))
    inside = source.location
    check_apart(output, inside if is_remote(inside) else inside.split(":/")[0])
    new = new_volume(source, options)
    compressors(options.codec)
    begun = find_begun(output, "volume", overwrite=options.overwrite)
    if begun is not None:
        record = Ingested.from_attributes(new.attributes)
        check_conditions(begun, record, voxel_size=new.voxel_size, shard=new.shard)
    cluster = resolve(cluster)
    grid = BlockGrid(source.shape, block_shape(source, new, cluster))
    run = OutputRun(
        command="ingest", output=output, begun=begun, grid=grid, overwrite=options.overwrite
    )
    run.check()
    return run.store(
        cluster,
        lambda runner: (new, functools.partial(_task, source, runner.name)),
        small=len(run.missing) <= 1,
    )


def _task(source: Source, run: str, written: OutputReference) -> IngestTask:
    return IngestTask(source=source, output=written, run=run)


def new_volume(source: Source, options: IngestOptions) -> NewVolume:
    size = options.voxel_size or source.voxel_size
    chunk, shard = storage_shapes(source.shape, size, chunk=options.chunk, shard=options.shard)
    return NewVolume(
        shape=source.shape,
        dtype=str(source.dtype),
        chunk=chunk,
        shard=shard,
        voxel_size=size,
        codec=options.codec,
        attributes=Ingested(kind="volume", source=source.identity()).to_attributes(),
    )


def block_shape(source: Source, new: NewVolume, cluster: ClusterOptions) -> ZYX:
    """Choose blocks of whole shards that decode no piece of the source twice, if memory allows."""
    allowed = (cluster.memory - PROCESS_BYTES) / cluster.slots / BLOCK_COPIES
    voxel = source.dtype.itemsize
    block = new.shard
    needed = math.prod(block) * voxel * BLOCK_COPIES * cluster.slots + PROCESS_BYTES
    if needed > cluster.memory:
        what = f"A shard of {new.shard}"
        raise NotEnoughMemory(needed, cluster.memory, what, "a smaller --shard")
    whole = zyx(
        round_up(min(max(p, s), n), s)
        for p, s, n in zip(source.piece_shape, new.shard, source.shape, strict=True)
    )
    return whole if math.prod(whole) * voxel <= allowed else block
