"""Choosing tile, slab, block, shard and chunk. Pure: standard library only.

The tile (what one evaluation keeps) is the cheapest that fits the memory, by operations, bytes
decoded and idle workers; fed slab by slab it can be as large as a block. The block (what one task
writes) follows from what a shard should hold, what a task may last, and how many workers there are
to feed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Never

from tilenet.errors import NotEnoughMemory, UnalignedBlock
from tilenet.geometry import (
    ALIGNMENT_REASON,
    AXES,
    ZYX,
    BlockGrid,
    Box,
    check_multiple,
    nearest_multiples,
    round_up,
    zyx,
)
from tilenet.networks import VALUE_BYTES, check_quarter_turns, slab_for, stream_axis
from tilenet.planning.plan import Plan
from tilenet.planning.reading_order import QUEUED_ROWS
from tilenet.planning.request import Request
from tilenet.planning.speeds import operations_per_byte, voxels_within

#: Blocks per worker to aim at: enough that the last ones do not leave workers idle for long.
BLOCKS_PER_WORKER = 4

#: Bytes of a slab of features at full resolution: on a CPU what its caches hold, on a GPU what
#: occupies it. Measured on a CPU, with 16 and 64 channels: half as much costs 4 to 5 % with 64,
#: twice as much gains 1 to 2 %.
SLAB_BYTES = {"cpu": 32 * 2**20, "cuda": 512 * 2**20}

#: Tiles along an axis of the volume or the block that are tried; and voxels that are tried as well.
_PARTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128)
_SIDES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

#: Voxels of a shard along an axis, at most: few objects, and no more of it than is encoded at once.
_SHARD = {"planar": (64, 2048, 2048), "volumetric": (512, 512, 512)}

#: Voxels of a chunk along an axis, at most and at least.
_CHUNK = {
    "planar": ((16, 256, 256), (1, 32, 32)),
    "volumetric": ((64, 256, 256), (8, 32, 32)),
}


def make_plan(request: Request) -> Plan:
    """Choose tile, block, shard and chunk.

    Parameters
    ----------
    request : Request

    Returns
    -------
    Plan
        The cheapest plan whose memory fits: by operations, and bytes decoded.

    Raises
    ------
    NotEnoughMemory
        When even the smallest tile does not fit.
    """
    check_quarter_turns(request.orientations, request.architecture)
    if request.block is not None:
        alignment = request.architecture.alignment
        check_multiple("A block", request.block, alignment, ALIGNMENT_REASON)
    # For the whole volume, whatever the region: a later run may extend the same output.
    whole = dataclasses.replace(request, region=Box.of_shape(request.volume_shape))
    return dataclasses.replace(_cheapest(whole), request=request)


def _cheapest(request: Request) -> Plan:
    tiles = sorted((_least(request, tile), tile) for tile in _tiles(request))
    # One whose rows are queued, so that writing overlaps computing, where memory is enough for any.
    for rows in (QUEUED_ROWS, 1):
        best: Plan | None = None
        fits = functools.partial(Plan.fits, streams=1, queued=rows)
        for least, tile in tiles:
            if best is not None and least > _cost(best)[0]:
                break
            # Larger slabs take no less memory.
            fitting = itertools.takewhile(fits, _streams(request, tile, fits))
            best = min([*fitting, *([] if best is None else [best])], key=_cost, default=None)
        if best is not None:
            return best
    return _refuse([next(_streams(request, tile, fits)) for _, tile in tiles])


def _least(request: Request, tile: ZYX) -> float:
    # No block of this tile costs less: every voxel is read once at least.
    architecture = request.architecture
    evaluation = architecture.evaluation(architecture.input_for(architecture.output_for(tile)))
    counts = (-(-n // t) for n, t in zip(request.volume_shape, tile, strict=True))
    operations = math.prod(counts) * evaluation.operations * len(request.orientations)
    stored = math.prod(request.volume_shape) * request.input_bytes
    return operations + stored * operations_per_byte(request)


def _refuse(plans: Sequence[Plan]) -> Never:
    request = plans[0].request
    on_host = [plan for plan in plans if plan.worker_bytes <= request.memory]
    if not on_host:
        smallest = min(plan.worker_bytes for plan in plans)
        raise NotEnoughMemory(smallest, request.memory, "Even the smallest tile")
    smallest = min(plan.evaluation_bytes for plan in on_host)
    what = "Even the smallest tile, on the device,"
    raise NotEnoughMemory(smallest, request.device_memory, what)


def _cost(plan: Plan) -> tuple[float, bool, int, int]:
    # When the last worker ends, times the workers: those that are idle by then are not free.
    blocks, workers = len(plan.grid), plan.request.workers
    reading = _decoded(plan) * operations_per_byte(plan.request)
    largest = len(plan.tiles_of_largest_block) * plan.operations / plan.tiles + reading
    total = plan.operations + blocks * reading
    # Rounds of blocks as large as the largest; or, of many, Graham's bound for tasks in any order.
    rounds = -(-blocks // workers) * workers * largest
    work = min(rounds, total + (workers - 1) * largest)
    return work, plan.order.way == "whole", -plan.slab, plan.evaluations_bytes(1)


def _decoded(plan: Plan) -> int:
    # Bytes of the chunks that a block cuts; those that it cuts in part are decoded as a whole.
    request, voxels = plan.request, 1
    sizes = zip(plan.block, plan.reach, request.chunk_shape, request.volume_shape, strict=True)
    for block, reach, chunk, size in sizes:
        whole = reach == 0 and block % chunk == 0
        voxels *= min(size, block + 2 * reach + (0 if whole else chunk - 1))
    return voxels * request.input_bytes


def _tiles(request: Request) -> Iterator[ZYX]:
    limit, architecture = request.block or request.volume_shape, request.architecture
    steps = architecture.alignment
    if request.block is None:
        # 16 voxels at least, so that chunks of a power of two divide the tile.
        planar = architecture.is_planar
        steps = zyx(math.lcm(a, 1 if planar and n == 0 else 16) for n, a in enumerate(steps))
    turned = any(orientation.transposed for orientation in request.orientations)
    if turned:
        # Square, so that turned by a quarter an evaluation has the same shape. May overhang.
        limit = zyx((limit[0], max(limit[1:]), max(limit[1:])))
        steps = zyx((steps[0], *(math.lcm(*steps[1:]),) * 2))
    units = zip(steps, limit, request.shard or (1, 1, 1), _SHARD[_kind(request)], strict=True)
    sides = [_sides(step, n, shard, most) for step, n, shard, most in units]
    if architecture.is_planar:
        sides[0] = {1}
    most = max(_block_voxels(request), math.prod(min(n) for n in sides))
    for tile in itertools.product(*sides):
        if math.prod(tile) <= most and (tile[1] == tile[2] or not turned):
            yield zyx(tile)


def _kind(request: Request) -> str:
    return "planar" if request.architecture.is_planar else "volumetric"


def _sides(step: int, limit: int, shard: int, most: int) -> set[int]:
    # Whole tiles of the axis, so that none overhangs it much; and sides that suit any volume.
    wanted = {-(-limit // n) for n in _PARTS} | {n for n in _SIDES if n <= limit}
    # Of so many equal shards, if the user wants none of a certain size.
    parts = ((n, -(-n // most)) for n in wanted)
    sides = {count * round_up(-(-n // count), step) for n, count in parts}
    whole = math.lcm(step, shard)
    return sides | ({round_up(n, whole) for n in wanted} if shard > 1 else set())


def _block_voxels(request: Request) -> float:
    # Half as many operations again as one infinite tile needs.
    operations = request.architecture.operations_per_voxel * 1.5 * len(request.orientations)
    return voxels_within(request, request.block_seconds, operations)


def _streams(request: Request, tile: ZYX, fits: Callable[[Plan], bool]) -> Iterator[Plan]:
    # Fed by slabs of the size that is fastest, and before that by smaller ones, which take less.
    architecture = request.architecture
    given = architecture.input_for(architecture.output_for(tile))
    axis = stream_axis(architecture, given)
    values = SLAB_BYTES[request.device] // VALUE_BYTES[request.precision]
    slabs = {slab_for(architecture, given, axis, values >> halved) for halved in range(12)}
    for slab in sorted(slabs):
        make = functools.partial(_with_block, request, tile=tile, axis=axis, slab=slab)
        blocks = [request.block] if request.block else _blocks(request, tile, make, fits)
        yield from map(make, blocks)


def _with_block(request: Request, block: ZYX, *, tile: ZYX, axis: int, slab: int) -> Plan:
    shard = request.shard or zyx(
        _part(n, most) for n, most in zip(block, _SHARD[_kind(request)], strict=True)
    )
    check_multiple("A block", block, shard, "whole shards, one writer for each")
    # Sections of a planar network may be chunks of their own, whatever number of them is a block.
    most, least = _CHUNK[_kind(request)]
    chunk = zyx(_divisor(n, top) for n, top in zip(shard, most, strict=True))
    for name, size, enough, part in zip(AXES, shard, least, chunk, strict=True):
        if part < min(size, enough):
            what = "A block" if request.shard is None else "A shard"
            reason = "chunks of a reasonable size must divide it"
            raise UnalignedBlock(what, name, size, 16, reason, nearest_multiples(size, 16))
    return Plan(
        request=request, block=block, shard=shard, chunk=chunk, tile=tile, axis=axis, slab=slab
    )


def _part(size: int, most: int) -> int:
    # No crumbs: a block of a prime number of sections is one shard.
    part = _divisor(size, most)
    return part if 4 * part >= min(size, most) else size


@functools.lru_cache(maxsize=4096)  # asked for again and again
def _divisor(size: int, most: int) -> int:
    return max(n for n in range(1, most + 1) if size % n == 0)


def _blocks(
    request: Request, tile: ZYX, make: Callable[[ZYX], Plan], fits: Callable[[Plan], bool]
) -> Iterator[ZYX]:
    # Whole shards of the user's and whole alignments, which doubling keeps.
    units = zip(tile, request.architecture.alignment, request.shard or (1, 1, 1), strict=True)
    block = zyx(round_up(size, math.lcm(step, shard)) for size, step, shard in units)
    if not request.architecture.is_planar:
        yield block  # a longer one is a longer tile
        return

    def fit(block: ZYX) -> bool:
        return fits(make(block))

    # Sections cost a planar network no further overlap, and shards of many are few objects.
    voxels, enough = _block_voxels(request), BLOCKS_PER_WORKER * request.workers
    while block[0] < request.volume_shape[0] and fit(block):
        larger = zyx((2 * block[0], *block[1:]))
        few = len(BlockGrid(request.volume_shape, larger)) < enough
        if few or math.prod(larger) > voxels or not fit(larger):
            break
        block = larger
    yield block
    # As deep as chunks of the input, so that none is decoded for some of its sections only.
    chunk = min(request.chunk_shape[0], request.volume_shape[0])
    deep = zyx((round_up(block[0], math.lcm(chunk, (request.shard or block)[0])), *block[1:]))
    if deep != block and math.prod(deep) <= voxels and fit(deep):
        yield deep
