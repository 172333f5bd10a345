"""Measuring rates: the operations that are counted, what is left behind, and the command."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pipelines import cli
from pipelines.cluster import ClusterOptions, resolve
from pipelines.predict import Workplace
from pipelines.predict.measured_speeds import measured
from tests.networks.test_unet_architecture import architectures
from tests.planning.test_plan import PAPER, request
from tests.support.oracles import random_network, save_softmax
from tests.support.runs import run_tilenet, store_volume
from tilenet.geometry import zyx
from tilenet.inference import (
    compute_rate,
    compute_trial,
    gpu_name,
    machine_name,
    store_rates,
    store_trial,
)
from tilenet.inference.speed_test import (
    FILL_SECONDS,
    SHARD_BYTES,
    ComputeTrial,
    slab_operations,
    steady_stream,
)
from tilenet.networks import Execution, UNetArchitecture
from tilenet.planning import ASSUMED_START, make_plan

TINY = UNetArchitecture.planar(2, 2, dropout=0.0)

#: One worker with as much memory as there ever was, so that no plan depends on what is free now.
LOCAL = ("--workers", "1", "--memory", "1GB")


@settings(max_examples=30)
@given(architectures(), st.integers(0, 2), st.integers(1, 3))
def test_a_slab_gives_its_planes_for_the_operations_that_are_counted(
    architecture: UNetArchitecture, axis: int, units: int
) -> None:
    slab = units * architecture.alignment[axis]
    # float64: PyTorch's counter knows its own convolutions, not oneDNN's.
    fed = Execution(precision="float64", axis=axis, slab=slab)
    shape = architecture.input_for(architecture.smallest_output)
    if architecture.is_planar and axis == 0:
        return  # sections have nothing to do with one another: never streamed along z
    if math.prod(shape) > 1e6:
        return  # seconds, and nothing new
    trial = ComputeTrial(architecture, fed, shape)
    with torch.inference_mode():
        stream = steady_stream(trial)
        while next(stream) is None:
            pass
        with FlopCounterMode(display=False) as counter:
            scores = list(islice(stream, 2))
    assert counter.get_total_flops() == 2 * slab_operations(trial)
    for found in scores:
        assert found is not None
        assert found.shape[1 + axis] == slab


def test_a_wide_slab_is_measured_on_a_part_of_its_width() -> None:
    plan = replace(make_plan(request((4, 25_000, 25_000), PAPER)), tile=(1, 25_008, 25_008))
    trial = compute_trial(plan, "cpu")
    assert trial is not None
    assert (trial.execution.axis, trial.execution.slab) == (plan.axis, plan.slab)
    width, measured = plan.tile_input[3 - plan.axis], trial.input_shape[3 - plan.axis]
    assert measured < width / 4
    assert slab_operations(trial) / 4e10 < FILL_SECONDS
    assert plan.request.architecture.output_of(trial.input_shape)


def test_a_narrow_slab_is_measured_as_it_is() -> None:
    plan = make_plan(request((8, 96, 128), TINY))
    trial = compute_trial(plan, "cpu")
    assert trial is not None
    across = [n for n in range(1, 3) if n != plan.axis]
    assert [trial.input_shape[n] for n in across] == [plan.tile_input[n] for n in across]


def test_what_would_take_minutes_is_not_measured() -> None:
    wanted = request((512, 512, 512), UNetArchitecture.volumetric(64, 4), memory=2**36)
    assert compute_trial(make_plan(wanted), "cpu") is None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_rate_is_measured(precision: str) -> None:
    trial = compute_trial(make_plan(request((8, 96, 128), TINY, precision=precision)), "cpu")
    assert trial is not None
    rate = compute_rate(trial, seconds=0.1)
    assert 1e6 < rate < 1e13


def test_shards_are_written_and_read_and_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    plan = make_plan(request((8, 96, 128), TINY, output_bytes=8, output_channels=2))
    trial = store_trial(plan, "blosc-lz4")
    assert (trial.shard, trial.chunk, trial.dtype) == (plan.shard, plan.chunk, "float32")
    for rate in store_rates(trial, seconds=0.05):
        assert 1e3 < rate < 1e12
    assert list(tmp_path.iterdir()) == []


def test_a_large_shard_is_measured_in_part() -> None:
    plan = make_plan(request((64, 4096, 4096), UNetArchitecture.planar(8), memory=2**35))
    trial = store_trial(plan, "zstd")
    assert math.prod(plan.shard) > SHARD_BYTES >= math.prod(trial.shard)
    assert zyx(s % c for s, c in zip(trial.shard, trial.chunk, strict=True)) == (0, 0, 0)


# -- the command -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    save_softmax(folder / "model.safetensors", random_network(TINY))
    store_volume(folder / "em.zarr", np.zeros((8, 96, 128), np.uint8), chunk=(4, 32, 64))
    return folder


def plan_here(case: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    """What ``tilenet plan`` says on stdout and on stderr."""
    paths = (str(case / "em.zarr"), "--model", str(case / "model.safetensors"))
    assert cli.run(["plan", *paths, *more]) == 0
    out, err = capsys.readouterr()
    return out, err


@pytest.mark.cluster
def test_rates_are_measured_once_and_kept_and_measured_anew_when_asked(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TILENET_CACHE", str(tmp_path / "cache"))
    stored = tmp_path / "cache" / "calibration.json"

    def plan(*more: str) -> tuple[dict[str, Any], str]:
        out, err = plan_here(case, capsys, *LOCAL, "--json", *more)
        return json.loads(out), err

    first, said = plan()
    # Where the machine is busy, a second line says so.
    assert [line.split()[0] for line in said.splitlines()] in (
        ["Measuring"],
        ["Measuring", "Other"],
    )
    assert first["rates"]["source"].startswith("measured on ")
    assert f"torch {torch.__version__}" in first["rates"]["source"]
    assert plan() == (first, "")
    assert plan("--no-calibration") == (first, "")

    # Another rate in the file: it is believed, until it is measured anew.
    values = json.loads(stored.read_text())
    rates = values["measurements"][0]["rates"]
    # One that leads to the same plan: shapes follow from the nearest power of two.
    rates["compute"] = 2.0 ** round(math.log2(rates["compute"]))
    stored.write_text(json.dumps(values))
    believed, said = plan()
    assert (believed["rates"]["operations_per_second"], said) == (rates["compute"], "")
    fresh, said = plan("--calibrate")
    assert "Measuring" in said
    assert fresh["rates"]["operations_per_second"] > 1e6

    # A prediction plans by it, and measures nothing.
    before = stored.read_bytes()
    model = ("--model", "model.safetensors")
    done = run_tilenet("predict", "em.zarr", tmp_path / "out.zarr", *model, *LOCAL, cwd=case)
    assert done.returncode == 0, done.stderr
    assert "measured on" in done.stderr
    assert "Measuring" not in done.stderr
    assert stored.read_bytes() == before


def test_a_corrupt_file_is_one_line_on_stderr(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TILENET_CACHE", str(tmp_path))
    (tmp_path / "calibration.json").write_text("not JSON")
    out, err = plan_here(case, capsys, "--no-calibration")
    assert err == f"{tmp_path / 'calibration.json'} is no file of measured rates, and not used.\n"
    assert "per worker: assumed" in " ".join(out.split())


@pytest.mark.skipif(gpu_name() is not None, reason="there is a GPU here")
def test_a_gpu_that_is_not_here_is_planned_for_by_assumed_rates(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TILENET_CACHE", str(tmp_path))
    out, err = plan_here(case, capsys, "--device", "cuda", "--memory", "4GB")
    assert err == "There is no NVIDIA GPU here: rates are assumed.\n"
    assert "per worker: assumed" in " ".join(out.split())


def test_a_network_too_large_to_be_measured_is_planned_by_assumed_rates(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TILENET_CACHE", str(tmp_path))
    monkeypatch.setattr("tilenet.inference.speed_test.MOST_SECONDS", 0.0)
    out, err = plan_here(case, capsys, "--workers", "1")
    assert "too large to be measured quickly here: rates are assumed" in err
    assert "per worker: assumed" in " ".join(out.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.cluster
def test_the_workers_of_a_scheduler_are_measured(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = resolve(ClusterOptions(scheduler=client.scheduler.address))
    place = Workplace(cluster, "cpu", "zstd")
    assert place.machine == machine_name("cpu")
    found = measured(make_plan(request((8, 96, 128), TINY, workers=2)), place)
    assert found is not None
    assert min(found.compute, found.read, found.write) > 1e3
    assert found.start == ASSUMED_START, "its workers have started long ago"
    assert found.measured.startswith(f"{place.machine}, 20")
    assert "Measuring" in capsys.readouterr().err


@pytest.mark.cluster
@pytest.mark.skipif(gpu_name() is not None, reason="there is a GPU here")
def test_a_measurement_that_fails_says_why_and_is_done_without(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = ClusterOptions(scheduler=client.scheduler.address, workers=2)
    plan = make_plan(request((8, 96, 128), TINY, device="cuda", memory=2**34))
    assert measured(plan, Workplace(cluster, "cuda", "zstd")) is None
    said = capsys.readouterr().err
    assert "That failed, so rates are assumed: Device 'cuda': PyTorch finds no CUDA device" in said
