"""The plan: its figures against counting one by one, and its promises."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.networks.test_unet_architecture import architectures, square
from tests.whole.test_imports import modules_after
from tilenet.errors import InvalidData, NotEnoughMemory, UnalignedBlock
from tilenet.geometry import AXES, ZYX, Box, zyx
from tilenet.networks import (
    IDENTITY,
    TileGrid,
    UNetArchitecture,
    kept_values,
    live_values,
    stream_axis,
)
from tilenet.networks.orientations import FLIPS, ORIENTATIONS
from tilenet.planning import (
    PROCESS_BYTES,
    Costs,
    Plan,
    Request,
    check_plan_memory,
    make_plan,
)
from tilenet.planning.choose import SLAB_BYTES

PAPER = UNetArchitecture.planar()
VOLUMETRIC = UNetArchitecture.volumetric()


def request(
    shape: ZYX = (30, 512, 512), architecture: UNetArchitecture = PAPER, **others: Any
) -> Request:
    values: dict[str, Any] = {
        "volume_shape": shape,
        "region": Box.of_shape(shape),
        "architecture": architecture,
        "input_bytes": 1,
        "output_bytes": 1,
        **others,
    }
    return Request(**values)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Any small request: any network, volume, region, and now and then a block of the user's."""
    architecture = draw(architectures())
    orientations = draw(st.sampled_from([(IDENTITY,), FLIPS, ORIENTATIONS[:7]]))
    if len(orientations) == 7:
        architecture = square(architecture)
    shape = zyx(draw(st.integers(1, 60)) for _ in range(3))
    start = zyx(draw(st.integers(0, n - 1)) for n in shape)
    stop = zyx(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    block = shard = None
    if draw(st.booleans()):
        block = zyx(a * draw(st.integers(1, 4)) for a in architecture.alignment)
        divisors = ([d for d in range(1, n + 1) if n % d == 0] for n in block)
        shard = zyx(draw(st.sampled_from(d)) for d in divisors)
    elif draw(st.booleans()):
        shard = zyx(draw(st.integers(1, 30)) for _ in range(3))
    return request(
        shape,
        architecture,
        region=Box(start, stop),
        workers=draw(st.integers(1, 4)),
        slots=draw(st.integers(1, 3)),
        input_bytes=draw(st.integers(1, 4)),
        chunk_bytes=draw(st.sampled_from((0, 2**20))),
        output_bytes=draw(st.integers(1, 4)),
        block=block,
        shard=shard,
        orientations=orientations,
    )


def tile_grids(plan: Plan) -> list[TileGrid]:
    """The dumb way: the tiles of every single block."""
    wanted = plan.request
    return [
        TileGrid(block, plan.tile, wanted.architecture, wanted.volume_shape, wanted.orientations)
        for block in plan.grid
    ]


@settings(max_examples=60)
@given(requests())
def test_every_figure_is_what_counting_one_by_one_gives(wanted: Request) -> None:
    plan = make_plan(wanted)
    architecture, covered = wanted.architecture, plan.grid.covered
    tiles = [tile for grid in tile_grids(plan) for tile in grid]
    costs = [
        architecture.evaluation(grid.seen(tile, orientation).input.shape).operations
        for grid in tile_grids(plan)
        for tile in grid
        for orientation in wanted.orientations
    ]
    assert plan.tiles == len(tiles)
    assert plan.operations == sum(costs)
    assert {tile.input.shape for tile in tiles} == {plan.tile_input}
    assert {tile.output.shape for tile in tiles} == {plan.tile_output}
    assert covered.size == sum(tile.kept.size for tile in tiles)

    whole = architecture.input_for(architecture.output_for(covered.shape))
    passes = len(wanted.orientations) * architecture.evaluation(whole).operations
    assert plan.operation_efficiency == pytest.approx(passes / sum(costs))
    ideal = architecture.operations_per_voxel * covered.size
    assert plan.overhead == pytest.approx(sum(costs) / ideal)

    lattice = [range(0, n, s) for n, s in zip(wanted.volume_shape, plan.shard, strict=True)]
    assert plan.objects == len(lattice[0]) * len(lattice[1]) * len(lattice[2])


@settings(max_examples=40)
@given(requests())
def test_tiles_are_aligned_and_chunks_fill_shards_and_shards_fill_blocks(wanted: Request) -> None:
    plan = make_plan(wanted)
    alignment = wanted.architecture.alignment
    for tile, step, block, shard, chunk in zip(
        plan.tile, alignment, plan.block, plan.shard, plan.chunk, strict=True
    ):
        assert min(tile, block, shard, chunk) >= 1
        assert tile % step == 0
        assert block % step == 0
        assert block % shard == 0
        assert shard % chunk == 0
    assert wanted.block in (None, plan.block)
    assert wanted.shard in (None, plan.shard)


@settings(max_examples=40)
@given(requests())
def test_a_region_is_covered_and_no_block_lies_beside_it(wanted: Request) -> None:
    plan = make_plan(wanted)
    assert plan.grid.covered.contains(wanted.region)
    assert all(block.intersect(wanted.region).size > 0 for block in plan.grid)


# -- memory ------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(requests(), st.integers(0, 2**22))
def test_a_plan_stays_within_the_memory(wanted: Request, spare: int) -> None:
    memory = least_memory(wanted) + spare
    assert make_plan(replace(wanted, memory=memory)).worker_bytes <= memory


def least_memory(wanted: Request) -> int:
    """What the error says is needed."""
    with pytest.raises(NotEnoughMemory) as caught:
        make_plan(replace(wanted, memory=1))
    assert caught.value.available == 1
    return caught.value.needed


@settings(max_examples=40)
@given(requests())
def test_the_memory_that_is_said_to_be_needed_is_enough_and_no_less_is(wanted: Request) -> None:
    needed = least_memory(wanted)
    assert make_plan(replace(wanted, memory=needed)).worker_bytes == needed
    with pytest.raises(NotEnoughMemory):
        make_plan(replace(wanted, memory=needed - 1))


def test_too_little_memory_is_refused_with_what_is_needed() -> None:
    with pytest.raises(NotEnoughMemory, match=r"smallest tile needs .* MiB .* but 256 MiB"):
        make_plan(request(memory=2**28))


def test_a_plan_taken_up_again_is_checked_against_the_memory_of_now() -> None:
    plan = make_plan(request(slots=1))
    check_plan_memory(plan, "The plan")
    less = replace(plan, request=replace(plan.request, memory=plan.host_bytes(1, 1) - 1))
    with pytest.raises(NotEnoughMemory, match="The plan needs"):
        check_plan_memory(less, "The plan")


def test_a_workers_memory_holds_an_evaluation_and_the_buffers_of_every_slot() -> None:
    plan = make_plan(request(slots=3))
    assert plan.worker_bytes == PROCESS_BYTES + plan.evaluation_bytes + 3 * plan.buffer_bytes
    on_gpu = make_plan(request(slots=3, device="cuda", device_memory=10**10))
    assert on_gpu.worker_bytes == PROCESS_BYTES + 3 * on_gpu.buffer_bytes


def test_a_task_that_waits_keeps_its_evaluation_where_the_memory_is_enough() -> None:
    one, two, three = (make_plan(request(slots=n)) for n in (1, 2, 3))
    assert (one.streams, two.streams, three.streams) == (1, 2, 2)
    kept = kept_values(PAPER, one.tile_input, axis=one.axis, slab=one.slab)
    # As much again as is kept, for what the allocator keeps: float32.
    assert two.evaluation_bytes == one.evaluation_bytes + 2 * 4 * kept
    assert three.evaluation_bytes == two.evaluation_bytes
    # Else it waits with the device, and the plan is none the smaller.
    short = replace(two, request=replace(two.request, memory=two.worker_bytes - 1))
    assert (short.streams, short.evaluation_bytes) == (1, one.evaluation_bytes)
    on_gpu = replace(two, request=replace(two.request, device="cuda", device_memory=10**10))
    assert on_gpu.streams == 2
    small = replace(on_gpu.request, device_memory=on_gpu.evaluation_bytes - 1)
    assert replace(on_gpu, request=small).streams == 1


@settings(max_examples=40)
@given(requests(), st.integers(0, 2**22))
def test_no_tile_is_smaller_for_the_sake_of_tasks_that_wait(wanted: Request, spare: int) -> None:
    memory = least_memory(wanted) + spare
    plan = make_plan(replace(wanted, memory=memory))
    assert plan.host_bytes(1, 1) <= plan.worker_bytes <= memory
    assert plan.streams == 1 or plan.host_bytes(plan.streams, plan.queued_rows) <= memory


@settings(max_examples=40)
@given(requests())
def test_what_version_0_1_0_planned_for_is_enough_to_go_on(wanted: Request) -> None:
    plan = make_plan(wanted)
    least = plan.host_bytes(1, 1)
    short = replace(plan, request=replace(plan.request, memory=least))
    assert short.worker_bytes <= least, "it goes on, however little is written at once"
    if plan.order.way != "whole":  # as it counted rows: one that is written, and the next
        block, rows = plan.tiles_of_largest_block.block, plan.order.axis
        shard = math.prod(min(n, s) for n, s in zip(block.shape, plan.shard, strict=True))
        kept = min(block.shape[rows], 2 * plan.shard[rows]) * (block.size // block.shape[rows])
        one = replace(short, request=replace(short.request, output_bytes=wanted.output_bytes + 1))
        assert one._buffer_bytes(1) - short._buffer_bytes(1) == kept + 2 * shard


@settings(max_examples=40)
@given(requests(), st.integers(0, 2**28))
def test_rows_are_queued_wherever_memory_is_enough_for_any_such_plan(
    wanted: Request, spare: int
) -> None:
    plan = make_plan(wanted)
    memory = plan.host_bytes(1, 1) + spare
    short = make_plan(replace(wanted, memory=memory))
    assert short.worker_bytes <= memory
    if plan.host_bytes(1, 2) <= memory:
        assert short.queued_rows == 2


def test_rows_that_are_queued_and_shards_that_are_written_at_once_are_counted() -> None:
    wanted = request((64, 512, 512), VOLUMETRIC, memory=2**34, slots=1)
    wanted = replace(wanted, block=(64, 256, 256), output_bytes=4)
    plans = {s: make_plan(replace(wanted, shard=s)) for s in ((8, 256, 256), (8, 64, 256))}
    whole, quarters = plans.values()
    assert {plan.axis for plan in plans.values()} == {1}
    # Along y: 1 and 4 rows of 8 shards; 4 shards are written at once, of 2 and 0.5 MiB.
    assert (whole.shards_written, quarters.shards_written) == (4, 4)
    slab = min(whole.slab, whole.tile_input[1])
    block = 64 * 256 * 256
    rows = {256: 256, 64: min(256, 3 * max(64, slab))}
    for plan in plans.values():
        collected = (rows[plan.shard[1]] + slab) * (block // 256)
        encoded = 2 * 4 * math.prod(plan.shard)
        # Of voxels of four bytes, three times as much more than of one.
        one = replace(plan, request=replace(plan.request, output_bytes=1))
        assert plan.buffer_bytes - one.buffer_bytes == 3 * (collected + encoded)


def test_every_slot_decodes_a_whole_chunk_of_the_input_however_little_it_reads() -> None:
    plan = make_plan(request(slots=3))
    large = replace(plan, request=replace(plan.request, chunk_bytes=2**28))
    assert large.buffer_bytes == plan.buffer_bytes + 2 * 2**28
    assert large.worker_bytes == plan.worker_bytes + 3 * 2 * 2**28
    with pytest.raises(NotEnoughMemory):
        make_plan(request(memory=2**31, slots=4, chunk_bytes=2**28))


def test_an_evaluations_memory_holds_at_least_what_is_alive_at_once() -> None:
    plan = make_plan(request())
    alive = live_values(PAPER, plan.tile_input, axis=plan.axis, slab=plan.slab)
    assert plan.evaluation_bytes > 4 * (alive + PAPER.parameter_count)


@settings(max_examples=40)
@given(requests())
def test_evaluations_are_fed_along_their_longest_axis_by_whole_alignments(wanted: Request) -> None:
    plan = make_plan(wanted)
    assert plan.axis == stream_axis(wanted.architecture, plan.tile_input)
    assert plan.slab % wanted.architecture.alignment[plan.axis] == 0


def test_half_the_precision_takes_half_the_memory() -> None:
    plan = make_plan(request())
    half = replace(plan, request=replace(plan.request, precision="bfloat16"))
    assert half.evaluation_bytes == pytest.approx(plan.evaluation_bytes / 2)


@pytest.mark.parametrize("width", [1024, 4096, 16384])
def test_slabs_are_as_large_as_is_fast_and_smaller_where_memory_is_short(width: int) -> None:
    wanted = request((64, 8192, width), UNetArchitecture.planar(16), memory=2**34)
    plan = make_plan(wanted)
    plane = 4 * 16 * plan.tile_input[1] * plan.tile_input[2] // plan.tile_input[plan.axis]
    assert SLAB_BYTES["cpu"] / 2 < plan.slab * plane <= SLAB_BYTES["cpu"]
    needed = least_memory(wanted)
    assert make_plan(replace(wanted, memory=needed)).slab == 16


def test_memory_does_not_depend_on_the_length_that_is_streamed() -> None:
    short, long = (
        make_plan(request((1, height, 1024), UNetArchitecture.planar(16), block=(1, height, 1024)))
        for height in (2048, 16384)
    )
    assert short.tile == (1, 2048, 1024)
    assert long.tile == (1, 16384, 1024)
    assert short.evaluation_bytes == long.evaluation_bytes


def test_a_mask_takes_memory_for_every_shard_that_is_written_at_once() -> None:
    whole = make_plan(request((64, 4096, 4096), PAPER, memory=2**34))
    masked = replace(whole, request=replace(whole.request, masked=True))
    # A bool, the mask's own value, and a copy of the bool on its way.
    assert whole.shards_written == 2
    more = whole.request.slots * 2 * 3 * math.prod(whole.shard)
    assert masked.worker_bytes - whole.worker_bytes == more


def test_sections_of_25_000_pixels_overlap_by_few_per_cent() -> None:
    wanted = request(
        (100, 25000, 25000), PAPER, device="cuda", precision="bfloat16", memory=2**36
    )  # and the memory of the paper's GPU
    plan = make_plan(wanted)
    assert plan.evaluation_bytes <= 6 * 10**9
    assert plan.slab >= 64
    assert plan.operation_efficiency > 0.95


@pytest.mark.parametrize("device_memory", [10**9, 8 * 10**9, 80 * 10**9])
def test_evaluations_on_a_gpu_fit_its_memory(device_memory: int) -> None:
    wanted = request((2000, 5120, 5120), VOLUMETRIC, device="cuda", memory=2**36)
    plan = make_plan(replace(wanted, device_memory=device_memory))
    assert plan.evaluation_bytes <= device_memory


def test_a_gpu_too_small_for_the_smallest_tile_is_refused() -> None:
    with pytest.raises(NotEnoughMemory, match="on the device"):
        make_plan(request(device="cuda", device_memory=2**20))


# -- blocks and shards of the user's -----------------------------------------------------------


@settings(max_examples=40)
@given(requests(), st.sampled_from(range(3)), st.integers(1, 200))
def test_an_unaligned_block_is_refused_with_the_nearest_that_is_aligned(
    wanted: Request, axis: int, size: int
) -> None:
    step = wanted.architecture.alignment[axis]
    assume(size % step != 0)
    block = zyx(size if i == axis else a for i, a in enumerate(wanted.architecture.alignment))
    with pytest.raises(UnalignedBlock, match="alignment") as caught:
        make_plan(replace(wanted, block=block, shard=None))
    error = caught.value
    assert (error.axis, error.value, error.step) == (AXES[axis], size, step)
    for nearest in error.nearest:
        assert abs(nearest - size) < step
        aligned = zyx(nearest if i == axis else n for i, n in enumerate(block))
        assert make_plan(replace(wanted, block=aligned, shard=None)).block == aligned


def test_a_block_of_parts_of_shards_is_refused() -> None:
    with pytest.raises(
        UnalignedBlock, match=r"A block of 10 along z is not a multiple of 4 .*shards.*8 and 12"
    ):
        make_plan(request(block=(10, 512, 512), shard=(4, 256, 256)))


@pytest.mark.parametrize("depth", [1, 13, 17, 31])
def test_a_planar_network_takes_blocks_of_any_depth(depth: int) -> None:
    plan = make_plan(request(block=(depth, 64, 64)))
    assert (plan.block, plan.shard[0]) == ((depth, 64, 64), depth)
    assert depth % plan.chunk[0] == 0


def test_chunks_that_would_be_crumbs_are_refused_by_the_name_of_what_was_given() -> None:
    wanted = request((99, 999, 999), UNetArchitecture.volumetric(2, 1))
    with pytest.raises(UnalignedBlock, match="A block of 134 along z is not a multiple of 16"):
        make_plan(replace(wanted, block=(134, 64, 64)))
    with pytest.raises(UnalignedBlock, match="A shard of 67 along z is not a multiple of 16"):
        make_plan(replace(wanted, block=(134, 64, 64), shard=(67, 64, 64)))


def test_shards_alone_lead_to_blocks_of_whole_shards() -> None:
    plan = make_plan(request((64, 4096, 4096), shard=(10, 500, 300)))
    assert plan.shard == (10, 500, 300)
    assert [b % s for b, s in zip(plan.block, plan.shard, strict=True)] == [0, 0, 0]


@pytest.mark.parametrize("block", [(10, 512, 512), (5, 1008, 1008), (7, 2 * 1008, 112)])
def test_chunks_are_neither_crumbs_nor_lumps(block: ZYX) -> None:
    plan = make_plan(request((64, 4096, 4096), block=block))
    assert plan.chunk[0] >= min(5, block[0])
    assert all(100 <= n <= 256 for n in plan.chunk[1:])


# -- orientations ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [7, 8])
def test_orientations_multiply_the_operations_and_little_else(count: int) -> None:
    once = make_plan(request(block=(10, 256, 256)))
    often = make_plan(request(block=(10, 256, 256), orientations=ORIENTATIONS[:count]))
    assert often.operations == count * once.operations
    assert often.overhead == pytest.approx(count * once.overhead)
    assert often.operation_efficiency == pytest.approx(once.operation_efficiency)
    assert often.tile == once.tile == (1, 256, 256)
    # A turned input; one result and the sum, float32, two channels; 4 voxels more on the low side.
    assert often.averaging_bytes == 444 * 444 + 2 * 260 * 260 * 2 * 4
    assert often.evaluation_bytes == once.evaluation_bytes
    # Two sections are held, of each chunk one; of one there are two copies.
    more = 4 * (448 * 448 - 444 * 444)
    assert often.buffer_bytes == once.buffer_bytes + more
    spare = often.averaging_bytes + often.request.slots * more
    assert often.worker_bytes == once.worker_bytes + spare


@settings(max_examples=20)
@given(requests())
def test_tiles_that_are_turned_by_quarters_are_square(wanted: Request) -> None:
    wanted = replace(wanted, orientations=ORIENTATIONS, block=None, memory=2**40)
    plan = make_plan(replace(wanted, architecture=square(wanted.architecture)))
    assert plan.tile[1] == plan.tile[2]
    assert plan.tile_input[1] == plan.tile_input[2]


def test_a_block_that_is_not_square_is_tiled_by_squares() -> None:
    plan = make_plan(request(block=(4, 256, 1024), orientations=ORIENTATIONS))
    assert plan.block == (4, 256, 1024)
    assert plan.tile[1] == plan.tile[2]
    assert make_plan(request(block=(4, 256, 1024), orientations=FLIPS)).tile[1:] == (256, 512)


def test_a_network_that_is_not_square_is_refused_before_planning() -> None:
    oblong = replace(PAPER, kernels=((1, 3, 5),) * 5)
    with pytest.raises(InvalidData, match=r"along y and \[5, 5, 5, 5, 5\] along x.*--flips"):
        make_plan(request(architecture=oblong, orientations=ORIENTATIONS))
    make_plan(request(architecture=oblong, orientations=FLIPS))


# -- the whole ---------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [PAPER, VOLUMETRIC])
def test_a_volume_of_200_terabytes_is_planned_at_once(architecture: UNetArchitecture) -> None:
    start = time.perf_counter()
    plan = make_plan(request((20_000, 100_000, 100_000), architecture, workers=64))
    figures = plan.to_dict() | Costs(plan).to_dict()
    assert time.perf_counter() - start < 4  # about one second; the margin is for a busy machine
    assert figures["bytes_written"] == 2 * 10**14
    assert figures["blocks"] == len(plan.grid) > 64


def test_more_workers_get_no_fewer_blocks() -> None:
    counts = [len(make_plan(request(workers=n)).grid) for n in (1, 2, 4, 8, 16)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


@settings(max_examples=40)
@given(requests())
def test_a_plan_is_told_as_json(wanted: Request) -> None:
    plan = make_plan(wanted)
    told = json.loads(json.dumps(plan.to_dict()))
    assert told["blocks"] == len(plan.grid)
    assert told["region"] == str(plan.grid.covered)
    for name in ("block", "shard", "chunk", "tile", "tile_input", "tile_output"):
        assert tuple(told[name]) == getattr(plan, name)
    for name in ("axis", "slab", "tiles", "operations", "worker_bytes", "objects"):
        assert told[name] == getattr(plan, name)


def test_planning_loads_the_standard_library_only() -> None:
    loaded = {name.split(".")[0] for name in modules_after("import tilenet.planning.plan")}
    before = {name.split(".")[0] for name in modules_after("pass")}
    assert loaded - before - set(sys.stdlib_module_names) == {"lazy_loader", "tilenet"}
