"""What a plan was chosen over: the figures are true, and so is the reason."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.test_plan import PAPER, VOLUMETRIC, request, requests
from tilenet.errors import NotEnoughMemory
from tilenet.geometry import AXES
from tilenet.networks import UNetArchitecture
from tilenet.planning import (
    Alternative,
    Costs,
    Rates,
    Request,
    alternatives,
    assumed_rates,
    choose_plan,
    make_plan,
)
from tilenet.planning.alternative_plans import SPLIT_GAIN, splits
from tilenet.planning.speeds import THREAD_EXPONENT

#: A network whose queues take gigabytes.
WIDE = UNetArchitecture.volumetric(64, 4)


def fits(costs: Costs) -> bool:
    plan, wanted = costs.plan, costs.plan.request
    on_device = wanted.device == "cpu" or plan.evaluation_bytes <= wanted.device_memory
    return on_device and plan.worker_bytes <= wanted.memory


def known(found: Alternative) -> Costs:
    assert found.costs is not None
    return found.costs


@settings(max_examples=40)
@given(requests(), st.sampled_from(["cpu", "cuda"]))
def test_an_alternative_differs_in_what_it_says_and_in_little_else(
    wanted: Request, device: str
) -> None:
    plan = make_plan(replace(wanted, device=device))
    for found in alternatives(Costs(plan)):
        other, kind = known(found).plan, found.what.split()[0]
        assert other.request == plan.request
        assert other.slab % other.request.architecture.alignment[other.axis] == 0
        if kind == "streamed":
            assert found.what == f"streamed along {AXES[other.axis]}"
            assert (other.tile, other.block) == (plan.tile, plan.block)
            assert other.axis != plan.axis
            assert not (other.axis == 0 and plan.request.architecture.is_planar)
        elif kind == "tile":
            assert found.what == f"tile {' x '.join(map(str, other.tile))}"
            assert other.axis == plan.axis
            assert other.tile != plan.tile
        elif kind == "blocks":
            assert found.what == f"blocks of {other.block[0]} sections"
            assert replace(other, block=plan.block, shard=plan.shard) == plan
            assert other.block[0] != plan.block[0]
        else:
            assert found.what == f"slabs of {other.slab} planes"
            assert replace(other, slab=plan.slab) == plan
            assert other.slab != plan.slab


@settings(max_examples=40)
@given(requests())
def test_tiles_of_an_alternative_are_legal_and_fill_its_blocks(wanted: Request) -> None:
    plan = make_plan(wanted)
    for found in alternatives(Costs(plan)):
        other = known(found).plan
        alignment = other.request.architecture.alignment
        assert all(t % a == 0 for t, a in zip(other.tile, alignment, strict=True))
        assert all(b % s == 0 for b, s in zip(other.block, other.shard, strict=True))
        assert plan.request.block in (None, other.block)


def test_what_does_not_fit_says_how_much_it_needs() -> None:
    wanted = request((512, 512, 512), WIDE, device="cuda", device_memory=6 * 10**9, memory=2**36)
    chosen = Costs(make_plan(wanted))
    assert fits(chosen)
    refused = [found for found in alternatives(chosen) if not fits(known(found))]
    assert refused
    for found in refused:
        needed = known(found).plan.evaluation_bytes / 2**30
        assert found.reason == f"needs {needed:.3g} GiB on the device, 5.59 GiB are allowed"


@pytest.mark.parametrize("architecture", [PAPER, VOLUMETRIC])
def test_smaller_tiles_take_more_operations_and_so_more_time(
    architecture: UNetArchitecture,
) -> None:
    chosen = Costs(make_plan(request((256, 1024, 1024), architecture)))
    slower = [found for found in alternatives(chosen) if "x the operations" in found.reason]
    assert slower
    for found in slower:
        costs = known(found)
        times, operations = map(float, re.findall(r"([\d.]+) x", found.reason))
        assert operations == pytest.approx(
            costs.plan.operations / chosen.plan.operations, abs=0.006
        )
        start = chosen.rates.start
        ratio = (costs.wall_seconds - start) / (chosen.wall_seconds - start)
        assert times == pytest.approx(ratio, abs=0.006)
        assert times > 1


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("cpu", "no faster, and 2.00 x the bytes read and 2.00 x the objects"),
        ("cuda", "2.00 x the bytes read"),
    ],
)
def test_flat_blocks_decode_deep_chunks_again_and_again(device: str, reason: str) -> None:
    wanted = request(
        (64, 2048, 2048), PAPER, chunk_shape=(16, 256, 256), shard=(16, 2048, 2048),
        device=device, precision="bfloat16", memory=2**36,
    )  # fmt: skip
    # Decoding takes longer than computing, on the GPU.
    slow = replace(assumed_rates(wanted), read=1e7) if device == "cuda" else None
    chosen = Costs(make_plan(replace(wanted, rates=slow)))
    assert chosen.plan.block[0] == 16
    found = next(a for a in alternatives(chosen) if a.what == "blocks of 8 sections")
    assert known(found).bytes_read == 2 * chosen.bytes_read
    assert known(found).plan.operations == chosen.plan.operations
    assert found.reason.endswith(reason)


def test_an_axis_whose_planes_are_larger_takes_more_memory() -> None:
    chosen = Costs(make_plan(request((256, 64, 64), VOLUMETRIC, block=(256, 64, 64))))
    assert chosen.plan.axis == 0
    for axis in ("y", "x"):
        found = next(a for a in alternatives(chosen) if a.what == f"streamed along {axis}")
        other = known(found).plan
        more = other.worker_bytes / chosen.plan.worker_bytes
        assert more > 1
        if other.slab < chosen.plan.slab:  # its planes are as large as that
            assert found.reason == "no faster, but every slab costs some time of its own"
        else:
            assert found.reason == f"no faster, and {more:.2f} x the memory"


def test_no_network_is_streamed_along_z_that_sees_single_sections() -> None:
    whats = {found.what for found in alternatives(Costs(make_plan(request())))}
    assert "streamed along x" in whats
    assert not {what for what in whats if what == "streamed along z"}


# -- workers and threads -----------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 8))
def test_splits_share_out_the_cores_and_all_the_memory(cores: int, threads: int) -> None:
    rates = Rates(1e11, 2e8, 1e8, 3.0, "here")
    workers = max(1, cores // threads)
    base = request(workers=workers, threads=threads, memory=2**30, rates=rates)
    found = list(splits(base, cores))
    pairs = {(other.workers, other.threads) for other in found}
    assert len(pairs) == len(found) <= 4
    assert (workers, threads) not in pairs
    assert any(other.threads == cores for other in found) or threads == cores
    for other in found:
        assert other.workers == cores // other.threads
        assert 0 <= workers * 2**30 - other.workers * other.memory < 2 * other.workers
        assert other.rates is not None
        faster = (other.threads / threads) ** THREAD_EXPONENT
        assert other.rates.compute == pytest.approx(1e11 * faster)
        assert other.workers * other.rates.read == pytest.approx(workers * 2e8)
        assert other.workers * other.rates.write == pytest.approx(workers * 1e8)
        assert (other.rates.start, other.rates.measured) == (3.0, "here")


def test_a_gpu_is_not_split() -> None:
    assert list(splits(request(device="cuda"), 16)) == []


def test_workers_of_one_thread_are_the_choice_where_blocks_are_many() -> None:
    plan = choose_plan(request((30, 2048, 2048), workers=2), cores=2)
    assert (plan.request.workers, plan.request.threads) == (2, 1)
    found = alternatives(Costs(plan), cores=2)[-1]
    assert found.what == "1 x 2 threads"
    assert "x the time: threads share an evaluation less well" in found.reason


def test_fewer_workers_share_the_memory_where_one_thread_each_leaves_too_little() -> None:
    wanted = request((512, 512, 512), WIDE, workers=16, memory=2**31)
    with pytest.raises(NotEnoughMemory):
        make_plan(wanted)
    plan = choose_plan(wanted, cores=16)
    assert (plan.request.workers, plan.request.threads) == (1, 16)
    assert plan.worker_bytes <= plan.request.memory == 16 * 2**31
    found = {a.what: a for a in alternatives(Costs(plan), cores=16)}
    assert found["16 x 1 threads"].costs is None
    reason = found["16 x 1 threads"].reason
    assert re.fullmatch(r"needs [\d.]+ GiB, 2 GiB are allowed", reason)
    assert found["4 x 4 threads"].reason.startswith("2.")


def test_the_split_that_is_chosen_is_the_fastest_or_nearly() -> None:
    for memory in (2**32, 2**34):
        wanted = request((512, 512, 512), WIDE, workers=8, memory=memory)
        chosen = Costs(choose_plan(wanted, cores=8)).wall_seconds
        for found in alternatives(Costs(choose_plan(wanted, cores=8)), cores=8):
            if "threads" in found.what and found.costs is not None:
                assert found.costs.wall_seconds > (1 - SPLIT_GAIN) * chosen


def test_what_fits_no_split_is_refused_with_the_memory_of_the_last() -> None:
    with pytest.raises(NotEnoughMemory) as caught:
        choose_plan(request((512, 512, 512), WIDE, workers=2, memory=2**28), cores=2)
    assert caught.value.available == 2**29


# -- the whole ---------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [PAPER, VOLUMETRIC])
def test_a_volume_of_200_terabytes_has_a_handful_of_alternatives(
    architecture: UNetArchitecture,
) -> None:
    wanted = request((20_000, 100_000, 100_000), architecture, workers=64)
    plan = choose_plan(wanted, cores=64)
    found = alternatives(Costs(plan), cores=64)
    assert 5 <= len(found) <= 16


@settings(max_examples=20)
@given(requests())
def test_alternatives_are_told_as_json(wanted: Request) -> None:
    for found in alternatives(Costs(make_plan(wanted)), cores=4):
        told = json.loads(json.dumps(found.to_dict()))
        assert (told["what"], told["reason"]) == (found.what, found.reason)
        assert told["reason"]
        if found.costs is None:
            assert told["operations"] is None
        else:
            assert told["operations"] == found.costs.plan.operations
            assert told["wall_seconds"] == found.costs.wall_seconds
            assert told["threads"] == found.costs.plan.request.threads
