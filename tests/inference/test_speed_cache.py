"""The file of measured rates: what counts for what, and files that are no such file."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.planning.test_plan import VOLUMETRIC, request
from tilenet.inference import RateCache, gpu_name, machine_name
from tilenet.inference.speed_cache import KEPT, cache_folder
from tilenet.networks import UNetArchitecture
from tilenet.planning import Plan, Rates, make_plan

RATES = Rates(compute=1.5e11, read=2e8, write=9e7, start=4.0, measured="a CPU, 2026-05-04")
PLAN = make_plan(request(workers=2))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILENET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def remembered(plan: Plan = PLAN) -> RateCache:
    """Load, add, and load again."""
    added = RateCache.load().add(plan, "here", "zstd", RATES)
    assert added.problem is None
    loaded = RateCache.load()
    assert loaded.problem is None
    return loaded


def test_what_was_measured_is_found_again(folder: Path) -> None:
    assert RateCache.load() == RateCache(folder / "calibration.json")
    assert remembered().find(PLAN, "here", "zstd") == RATES
    assert [path.name for path in folder.iterdir()] == ["calibration.json"]


def test_the_latest_measurement_of_the_same_replaces_the_one_before(folder: Path) -> None:
    cache = remembered().add(PLAN, "here", "zstd", replace(RATES, compute=3e11))
    assert len(cache.entries) == 1
    found = RateCache.load().find(PLAN, "here", "zstd")
    assert found is not None
    assert found.compute == 3e11


@pytest.mark.parametrize(
    "others",
    [
        {"workers": 3},
        {"threads": 2},
        {"precision": "bfloat16"},
        {"architecture": UNetArchitecture.planar(32)},
        {"architecture": UNetArchitecture.planar(64, convolutions=1)},
    ],
)
def test_it_counts_for_the_same_network_precision_threads_and_workers_only(
    folder: Path, others: dict[str, Any]
) -> None:
    cache = remembered()
    assert (
        cache.find(replace(PLAN, request=replace(PLAN.request, **others)), "here", "zstd") is None
    )
    assert cache.find(PLAN, "there", "zstd") is None
    assert cache.find(PLAN, "here", "gzip") is None


def test_it_counts_for_the_same_network_with_other_dropout(folder: Path) -> None:
    network = UNetArchitecture.planar(dropout=0.1)
    same = replace(PLAN, request=replace(PLAN.request, architecture=network))
    assert remembered().find(same, "here", "zstd") == RATES


def test_gpus_have_a_worker_each_so_their_number_does_not_count(folder: Path) -> None:
    one, many = (make_plan(request(device="cuda", workers=n, memory=2**35)) for n in (1, 64))
    assert remembered(one).find(many, "here", "zstd") == RATES


def test_it_counts_for_slabs_up_to_twice_as_thick_and_wide_and_along_the_same_axis(
    folder: Path,
) -> None:
    plan = make_plan(request((128, 128, 128), VOLUMETRIC, block=(128, 128, 128)))
    cache = remembered(plan)
    unit = VOLUMETRIC.alignment[plan.axis]
    for slab in range(unit, 6 * plan.slab, unit):
        near = plan.slab / 2 <= slab <= 2 * plan.slab
        assert (cache.find(replace(plan, slab=slab), "here", "zstd") == RATES) == near
    assert cache.find(replace(plan, axis=(plan.axis + 1) % 3), "here", "zstd") is None
    plane = plan.tile_input[1] * plan.tile_input[2]
    for side in range(8, 400, 8):
        other = replace(plan, tile=(128, side, 128))
        ratio = other.tile_input[1] * other.tile_input[2] / plane
        assert (cache.find(other, "here", "zstd") == RATES) == (0.5 <= ratio <= 2)


def test_the_slab_that_is_most_alike_stands_for_others(folder: Path) -> None:
    cache = RateCache.load()
    for slab, rate in ((16, 1e9), (64, 4e9)):
        plan = replace(PLAN, slab=slab)
        cache = cache.add(plan, "here", "zstd", replace(RATES, compute=rate))
    for slab, rate in ((16, 1e9), (24, 1e9), (40, 4e9), (100, 4e9)):
        found = cache.find(replace(PLAN, slab=slab), "here", "zstd")
        assert found is not None
        assert found.compute == rate


def test_sections_of_a_planar_network_are_fed_one_by_one(folder: Path) -> None:
    deep = make_plan(request((64, 512, 512), workers=2, block=(64, 512, 512)))
    flat = make_plan(request((64, 512, 512), workers=2, block=(1, 512, 512)))
    assert remembered(deep).find(flat, "here", "zstd") == RATES


def test_the_oldest_are_dropped_when_there_are_many(folder: Path) -> None:
    cache = RateCache.load()
    new = {**json.loads(json.dumps(remembered().entries[0])), "key": {"machine": "another"}}
    full = RateCache(cache.path, (new,) * KEPT).add(PLAN, "here", "zstd", RATES)
    assert len(full.entries) == len(RateCache.load().entries) == KEPT
    assert RateCache.load().find(PLAN, "here", "zstd") == RATES


# -- files that are no such file ---------------------------------------------------------------


def broken(entry: dict[str, Any]) -> str:
    return json.dumps({"format_version": 1, "measurements": [entry]})


ENTRY: dict[str, Any] = {
    "key": {"machine": "here"},
    "fed": {"axis": 1, "slab": 16, "plane": 600},
    "rates": {"compute": 1e9, "read": 1e8, "write": 1e8, "start": 1.0, "measured": "then"},
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        "{}",
        '{"format_version": 1}',
        '{"format_version": 1, "measurements": 3}',
        '{"format_version": 1, "measurements": [3]}',
        broken({**ENTRY, "key": None}),
        broken({**ENTRY, "fed": {"axis": 1}}),
        broken({**ENTRY, "fed": {**ENTRY["fed"], "slab": "thick"}}),
        broken({**ENTRY, "rates": {**ENTRY["rates"], "compute": 0}}),
        broken({**ENTRY, "rates": {**ENTRY["rates"], "read": float("nan")}}),
        broken({**ENTRY, "rates": {**ENTRY["rates"], "more": 1}}),
        "\x00\xff",
    ],
)
def test_a_corrupt_file_is_told_of_and_replaced(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "calibration.json").write_text(text)
    found = RateCache.load()
    assert found.entries == ()
    assert (
        found.problem == f"{folder / 'calibration.json'} is no file of measured rates, and not used"
    )
    assert remembered().find(PLAN, "here", "zstd") == RATES


def test_bytes_that_are_no_text_are_told_of(folder: Path) -> None:
    folder.mkdir()
    (folder / "calibration.json").write_bytes(b"\xff\xfe\x00{")
    assert "no file of measured rates" in str(RateCache.load().problem)


def test_an_entry_that_is_whole_is_read(folder: Path) -> None:
    folder.mkdir()
    (folder / "calibration.json").write_text(broken(ENTRY))
    found = RateCache.load()
    assert (found.problem, len(found.entries)) == (None, 1)


def test_a_file_of_another_version_is_told_of(folder: Path) -> None:
    folder.mkdir()
    (folder / "calibration.json").write_text('{"format_version": 99, "measurements": []}')
    found = RateCache.load()
    assert found.entries == ()
    assert "of another version of tilenet" in str(found.problem)


def test_a_folder_that_cannot_be_written_to_is_told_of(folder: Path) -> None:
    folder.write_text("a file where the folder should be")  # root may write anywhere else
    found = RateCache.load()
    assert "cannot be read: Not a directory" in str(found.problem)
    added = found.add(PLAN, "here", "zstd", RATES)
    assert re.search("cannot be written, so rates are not kept: .*", str(added.problem))
    assert added.find(PLAN, "here", "zstd") == RATES, "known for the rest of this command"
    assert folder.read_text() == "a file where the folder should be"


# -- where, and of what ------------------------------------------------------------------------


def test_the_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILENET_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tilenet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tilenet"
    monkeypatch.setenv("TILENET_CACHE", str(tmp_path / "chosen"))
    assert cache_folder() == tmp_path / "chosen"


def test_a_machine_is_its_device_and_its_pytorch() -> None:
    name = machine_name("cpu")
    assert name.endswith(f", torch {torch.__version__}")
    assert len(name.split(", torch")[0]) > 2
    gpu = machine_name("cuda:0")
    assert gpu.startswith(gpu_name() or "no GPU")
    assert gpu != name
