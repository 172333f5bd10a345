"""How an output is stored: chunks and shards that suit its voxels, blocks that fit a worker."""

from __future__ import annotations

import math
from collections.abc import Callable

from pipelines.cluster import ClusterOptions
from tilenet.errors import NotEnoughMemory
from tilenet.geometry import ZYX, check_multiple, round_up, zyx
from tilenet.planning import PROCESS_BYTES

#: Sections that differ in size from their pixels by this factor are stored in flatter chunks.
ANISOTROPY = 4

#: Chunks of about a megabyte: small enough to read with halo, large enough to compress and to list.
CHUNK = {"isotropic": (64, 128, 128), "anisotropic": (16, 256, 256)}

#: Shards of up to 64 MiB in uint8: a tenth of the objects' number, and written in one piece.
SHARD = {"isotropic": (256, 512, 512), "anisotropic": (64, 1024, 1024)}

#: Bytes of a shard that is chosen here, before compression.
SHARD_BYTES = 64 * 2**20

#: Blocks of several shards are taken only while this much more than the block has to be read.
READ_AMPLIFICATION = 1.5


def storage_shapes(
    shape: ZYX,
    voxel_size: tuple[float, float, float] | None,
    *,
    chunk: ZYX | None = None,
    shard: ZYX | None = None,
    flat: bool = False,
    fits: Callable[[ZYX], bool] = lambda shard: True,
) -> tuple[ZYX, ZYX]:
    """Choose chunks and shards that suit the voxels' proportions.

    Parameters
    ----------
    shape : tuple of int
        Of the volume, (z, y, x).
    voxel_size : tuple of float or None
        Nanometres, (z, y, x).
    chunk, shard : tuple of int or None
        What the user chose, (z, y, x); the shard has to be whole chunks.
    flat : bool
        Take flat shapes whatever the voxels are: sections are computed one by one.
    fits : callable
        Tells whether a shard is small enough. One that is chosen here is halved until it is, as
        long as whole chunks remain.

    Returns
    -------
    tuple of tuple of int
        Chunk and shard, voxels, (z, y, x).
    """
    flat = flat or (voxel_size is not None and voxel_size[0] >= ANISOTROPY * max(voxel_size[1:]))
    kind = "anisotropic" if flat or shape[0] < 16 else "isotropic"
    chunk = chunk or _fit(CHUNK[kind], shape, (1, 1, 1))
    if shard is not None:
        check_multiple("A shard", shard, chunk, "whole chunks")
        return chunk, shard
    shard = _fit(SHARD[kind], shape, chunk)
    while not fits(shard):
        counts = [s // c for s, c in zip(shard, chunk, strict=True)]
        axis = counts.index(max(counts))
        if counts[axis] == 1:
            break
        counts[axis] = -(-counts[axis] // 2)
        shard = zyx(n * c for n, c in zip(counts, chunk, strict=True))
    return chunk, shard


def _fit(wanted: ZYX, shape: ZYX, step: ZYX) -> ZYX:
    # No larger than the volume, and whole chunks.
    return zyx(
        max(s, min(round_up(w, s), round_up(n, s)))
        for w, n, s in zip(wanted, shape, step, strict=True)
    )


def grow_block(
    shard: ZYX, shape: ZYX, margins: ZYX, *, fits: Callable[[ZYX], bool], least: int
) -> ZYX:
    """Choose blocks of whole shards that read little beside themselves.

    Parameters
    ----------
    shard, shape, margins : tuple of int
        The smallest block, the volume, and what a block reads more, both sides together, (z, y, x).
    fits : callable
        Tells whether a block fits the memory.
    least : int
        Blocks that there should be at least, to keep every worker busy.

    Returns
    -------
    tuple of int
        Voxels, (z, y, x).
    """

    def amplification(block: ZYX) -> float:
        return math.prod((n + m) / n for n, m in zip(block, margins, strict=True))

    def blocks(block: ZYX) -> int:
        return math.prod(-(-n // b) for n, b in zip(shape, block, strict=True))

    block = shard
    while amplification(block) > READ_AMPLIFICATION:
        doubled = [
            zyx(b * 2 if i == axis else b for i, b in enumerate(block))
            for axis in range(3)
            if block[axis] < shape[axis]
        ]
        larger = [b for b in doubled if fits(b) and blocks(b) >= least]
        if not larger:
            break
        block = min(larger, key=amplification)
    return block


def check_block_memory(
    cluster: ClusterOptions, block: ZYX, needed: Callable[[ZYX], int], what: str
) -> None:
    """Refuse a block that all slots of a worker together have no memory for.

    Parameters
    ----------
    cluster : ClusterOptions
    block : tuple of int
        Voxels, (z, y, x).
    needed : callable
        Bytes that a task needs for a block.
    what : str
        What the block is, for the message.
    """
    total = needed(block) * cluster.slots + PROCESS_BYTES
    if total > cluster.memory:
        raise NotEnoughMemory(total, cluster.memory, f"{what} of {block}", "a smaller --shard")


def task_bytes(cluster: ClusterOptions) -> int:
    """Give the memory that a task may use.

    Parameters
    ----------
    cluster : ClusterOptions

    Returns
    -------
    int
        Bytes.
    """
    return (cluster.memory - PROCESS_BYTES) // cluster.slots
