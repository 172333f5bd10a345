"""What a plan costs, against counting block by block in the dumb way."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.test_plan import PAPER, request, requests, tile_grids
from tilenet.geometry import Box, zyx
from tilenet.networks import TileGrid, UNetArchitecture
from tilenet.planning import ASSUMED_START, Costs, Plan, Rates, Request, make_plan
from tilenet.planning.costs import SCHEDULED_BLOCKS
from tilenet.volumes import NewVolume, create_volume, reopen_for_writing

#: Seconds of everything are of the same order: none hides behind another.
RATES = Rates(compute=1e6, read=1e3, write=2e2, start=7.0)


@st.composite
def rated_requests(draw: st.DrawFn) -> Request:
    """Any small request with rates, from a volume in chunks, on any device."""
    chunk = zyx(draw(st.integers(1, 20)) for _ in range(3))
    device = draw(st.sampled_from(["cpu", "cuda"]))
    wanted = replace(draw(requests()), chunk_shape=chunk, device=device)
    return replace(wanted, rates=RATES)


def decoded(wanted: Request, box: Box) -> int:
    """The dumb way: voxels of every chunk that a box touches."""
    sides = []
    for start, stop, chunk, size in zip(
        box.start, box.stop, wanted.chunk_shape, wanted.volume_shape, strict=True
    ):
        touched = {n // chunk for n in range(start, stop)}
        sides.append(sum(n // chunk in touched for n in range(size)))
    return math.prod(sides)


def seconds(plan: Plan, tiles: TileGrid) -> tuple[float, float]:
    """The dumb way: what a block computes, and what it reads and writes."""
    wanted = plan.request
    operations = sum(
        wanted.architecture.evaluation(tiles.seen(tile, orientation).input.shape).operations
        for tile in tiles
        for orientation in wanted.orientations
    )
    read = decoded(wanted, tiles.read_box) * wanted.input_bytes / RATES.read
    return operations / RATES.compute, read + tiles.block.size * wanted.output_bytes / RATES.write


def together(wanted: Request, compute: float, transfer: float) -> float:
    return compute + transfer if wanted.device == "cpu" else max(compute, transfer)


@settings(max_examples=40)
@given(rated_requests())
def test_bytes_are_those_of_all_chunks_that_all_blocks_touch(wanted: Request) -> None:
    plan = make_plan(wanted)
    costs, grids = Costs(plan), tile_grids(plan)
    read = sum(decoded(wanted, tiles.read_box) for tiles in grids) * wanted.input_bytes
    written = sum(tiles.block.size for tiles in grids) * wanted.output_bytes
    assert (costs.bytes_read, costs.bytes_written) == (read, written)
    once = plan.grid.covered.size * wanted.input_bytes
    assert costs.read_amplification == pytest.approx(read / once)
    assert costs.read_amplification >= 1


@settings(max_examples=40)
@given(rated_requests())
def test_the_time_is_that_of_giving_each_block_to_the_first_free_worker(wanted: Request) -> None:
    plan = make_plan(wanted)
    costs, free = Costs(plan), [0.0] * wanted.workers
    for tiles in tile_grids(plan):
        first = free.index(min(free))
        free[first] += together(wanted, *seconds(plan, tiles))
    edges = 1 if wanted.slots > 1 else -(-len(plan.grid) // wanted.workers)
    expected = RATES.start + max(free) + edges * costs.edge_seconds
    assert costs.wall_seconds == pytest.approx(expected)
    assert costs.hours == pytest.approx(expected * wanted.workers / 3600)


@settings(max_examples=40)
@given(rated_requests())
def test_no_block_takes_longer_than_a_whole_one(wanted: Request) -> None:
    plan = make_plan(replace(wanted, region=Box.of_shape(wanted.volume_shape)))
    costs = Costs(plan)
    found = [seconds(plan, tiles) for tiles in tile_grids(plan)]
    assert costs.compute_seconds == pytest.approx(max(compute for compute, _ in found))
    slowest = max(together(wanted, *block) for block in found)
    assert costs.block_seconds >= slowest - 1e-9


@settings(max_examples=40)
@given(rated_requests())
def test_on_a_gpu_the_first_read_and_the_last_write_are_waited_for(wanted: Request) -> None:
    costs = Costs(make_plan(replace(wanted, device="cuda")))
    assert 0 < costs.edge_seconds <= costs.read_seconds + costs.write_seconds + 1e-9
    assert Costs(make_plan(replace(wanted, device="cpu"))).edge_seconds == 0


def test_the_first_read_and_the_last_write_follow_the_reading_order() -> None:
    # Planes of the stream axis, or of z, are waited for; as a whole a block comes all at once.
    wanted = request((1, 64, 256), UNetArchitecture.planar(2, 2), device="cuda", block=(1, 64, 256))
    wanted = replace(wanted, chunk_shape=(1, 64, 16), rates=RATES)
    stream = replace(make_plan(wanted), tile=(1, 64, 256), shard=(1, 64, 64), axis=2, slab=20)
    sections = replace(stream, tile=(1, 64, 128), shard=(1, 64, 256))
    deep = replace(wanted, architecture=UNetArchitecture.volumetric(2, 2))
    deep = replace(deep, volume_shape=(8, 64, 256), region=Box.of_shape((8, 64, 256)))
    whole = replace(stream, request=deep, block=(8, 64, 256), shard=(8, 64, 64), tile=(8, 64, 128))
    shares = {stream: (32 / 256, 1 / 4), sections: (1, 1), whole: (1, 1)}
    for plan, (read, written) in shares.items():
        costs = Costs(plan)
        edges = read * costs.read_seconds + written * costs.write_seconds
        assert costs.edge_seconds == pytest.approx(edges), plan.order


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_many_blocks_take_their_rounds_of_the_mean(device: str) -> None:
    wanted = request((70, 1000, 1000), block=(1, 96, 112), device=device, rates=RATES)
    plan = make_plan(replace(wanted, workers=3, memory=2**40))
    assert len(plan.grid) > SCHEDULED_BLOCKS
    exact = make_plan(
        replace(wanted, workers=3, memory=2**40, region=Box.of_shape((20, 1000, 1000)))
    )
    assert len(exact.grid) <= SCHEDULED_BLOCKS
    rates = Costs(plan).wall_seconds - RATES.start, Costs(exact).wall_seconds - RATES.start
    assert rates[0] / 70 == pytest.approx(rates[1] / 20, rel=0.01)


def test_reading_that_is_slower_than_computing_decides_on_a_gpu() -> None:
    wanted = request((64, 2048, 2048), PAPER, device="cuda", block=(8, 1024, 1024), memory=2**36)
    fast = Rates(compute=1e15, read=1e6, write=1e9, start=1.0)
    costs = Costs(make_plan(replace(wanted, rates=fast)))
    assert costs.block_seconds == costs.read_seconds + costs.write_seconds
    slow = replace(fast, compute=1e10, read=1e12)
    costs = Costs(make_plan(replace(wanted, rates=slow)))
    assert costs.block_seconds == costs.compute_seconds


def test_a_price_is_of_gpu_hours_and_on_cpus_of_core_hours() -> None:
    on_gpus = Costs(make_plan(request(device="cuda", workers=8, memory=2**36)), price=2.5)
    assert on_gpus.hours == pytest.approx(8 * on_gpus.wall_seconds / 3600)
    assert on_gpus.cost == pytest.approx(2.5 * on_gpus.hours)
    on_cores = Costs(make_plan(request(workers=8, threads=4)), price=0.5)
    assert on_cores.hours == pytest.approx(32 * on_cores.wall_seconds / 3600)
    assert on_cores.cost == pytest.approx(0.5 * on_cores.hours)
    assert Costs(on_cores.plan).cost is None


def test_a_preempted_worker_costs_its_block_and_a_start() -> None:
    told = Costs(make_plan(request())).to_dict()["seconds"]
    assert told["lost_per_preemption"] == told["block"] > 0
    assert told["rewarm"] == ASSUMED_START
    assert told["wall"] > ASSUMED_START


@pytest.mark.parametrize("channels", [None, ("a", "b", "c")])
def test_inodes_are_those_that_a_file_system_has(
    tmp_path: Path, channels: tuple[str, ...] | None
) -> None:
    wanted = request((3, 40, 70), block=(1, 16, 32), output_channels=len(channels or "1"))
    plan = make_plan(wanted)
    path = tmp_path / "out.zarr"
    new = NewVolume(
        shape=wanted.volume_shape,
        dtype="uint8",
        chunk=plan.chunk,
        shard=plan.shard,
        channels=channels,
        attributes={},
    )
    create_volume(str(path), new)
    leading = () if channels is None else (len(channels),)
    whole = Box.of_shape(wanted.volume_shape)
    reopen_for_writing(str(path)).write(whole, np.ones((*leading, *whole.shape), np.uint8))
    found = list(itertools.chain([path], path.rglob("*")))
    assert Costs(plan).inodes == len(found)
    files = [name for name in found if name.is_file() and name.name != "zarr.json"]
    assert plan.objects == len(files)


@settings(max_examples=30)
@given(rated_requests())
def test_costs_are_told_as_json(wanted: Request) -> None:
    costs = Costs(make_plan(wanted), price=1.0)
    told = json.loads(json.dumps(costs.to_dict()))
    assert told["seconds"]["wall"] == costs.wall_seconds
    assert told["rates"]["source"] == "assumed"
    assert ("gpu_hours" in told) == (wanted.device == "cuda")
    assert ("price_per_core_hour" in told) == (wanted.device == "cpu")
