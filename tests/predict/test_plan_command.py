"""``tilenet plan``: volumes on paper, GPUs elsewhere, prices, alternatives, wrong usage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import cli
from pipelines.cluster import ClusterOptions, default_workers
from pipelines.outputs import storage_shapes
from pipelines.predict import (
    Choices,
    IntensityRule,
    check_job,
    plan_job,
    provenance,
    request_for,
)
from tests.support.oracles import random_network, save_softmax
from tests.support.runs import store_volume
from tilenet.geometry import Box
from tilenet.networks import UNetArchitecture
from tilenet.volumes import VolumeReference

#: The example of the README: 200 TB on 64 GPUs.
PAPER = ("--shape", "20000,100000,100000", "--gpus", "64")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run ``tilenet plan`` without measuring: exit code, stdout and stderr."""
    code = cli.run(["plan", *arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    values: dict[str, Any] = json.loads(out)
    return values


def rows(out: str) -> dict[str, str]:
    """The lines of the table by their names."""
    lines = out.split("\n\n")[0].splitlines()[1:]
    return {line[:12].strip(): line[12:].strip() for line in lines if line[:12].strip()}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("plan")
    network = random_network(UNetArchitecture.planar(2, 2, dropout=0.0))
    model = save_softmax(folder / "model.safetensors", network)
    volume = np.zeros((8, 96, 128), np.uint16)
    chunk, _ = storage_shapes((8, 96, 128), None, flat=True)
    return store_volume(folder / "em.zarr", volume, chunk=chunk), str(model)


# -- on paper ----------------------------------------------------------------------------------


def test_a_volume_on_paper_costs_gpu_hours(capsys: pytest.CaptureFixture[str]) -> None:
    values = told(capsys, *PAPER, "--price-per-gpu-hour", "2.5")
    assert values["volume_shape"] == [20_000, 100_000, 100_000]
    assert values["bytes_written"] == 2 * 10**14
    assert values["bytes_read"] >= 2 * 10**14
    assert (values["workers"], values["threads"]) == (64, 1)
    assert values["rates"]["source"] == "assumed"
    assert values["network"] == "2-D, depth 4, 64 channels: taken for want of a --model"
    assert values["gpu_hours"] == pytest.approx(64 * values["seconds"]["wall"] / 3600)
    assert values["cost"] == pytest.approx(2.5 * values["gpu_hours"])
    assert values["operations"] > 1.47e6 * 2e14, "1.47 MFLOP per pixel"


def test_the_table_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *PAPER, "--price-per-gpu-hour", "2.5")
    assert code == 0
    table = rows(out)
    assert table["network"] == "2-D, depth 4, 64 channels: taken for want of a --model"
    assert table["workers"].startswith("64 x 1 threads on cuda")
    assert table["rates"].endswith("per worker: assumed")
    assert "GPU-hours; costs" in table["time"]
    assert "what a preemption loses at most" in table["a block"]
    alternatives = out.split("\n\n")[1].splitlines()
    assert alternatives[0] == "Alternatives"
    assert "why not" in alternatives[1]
    assert "this plan" in alternatives[2]
    assert len(alternatives) >= 6


@pytest.mark.parametrize("memory", ["1GB", "3GB", "6GB"])
def test_the_memory_of_the_device_is_obeyed(
    capsys: pytest.CaptureFixture[str], memory: str
) -> None:
    arguments = (*PAPER, "--network", "volumetric", "--device-memory", memory)
    values = told(capsys, *arguments)
    allowed = int(memory.removesuffix("GB")) * 10**9
    assert allowed / 4 < values["evaluation_bytes"] <= allowed
    for alternative in values["alternatives"]:
        refused = " on the device, " in alternative["reason"]
        assert refused == (alternative["evaluation_bytes"] > allowed)


def test_the_papers_card_is_what_is_planned_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, *PAPER) == told(capsys, *PAPER, "--device-memory", "6GB")


def test_a_device_too_small_for_anything_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--shape", "9,999,999", "--gpus", "1", "--device-memory", "100MB")
    assert (code, out) == (1, "")
    assert "Even the smallest tile, on the device, needs" in err
    assert "but 95 MiB are allowed" in err


def test_more_gpus_take_less_time_and_no_fewer_hours(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ("--shape", "200,20000,20000")
    few, many = (told(capsys, *shape, "--gpus", n) for n in ("4", "32"))
    assert few["seconds"]["wall"] > 4 * many["seconds"]["wall"]
    assert few["gpu_hours"] < 1.01 * many["gpu_hours"]


def test_memory_of_all_gpu_workers_together_is_shared_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told(capsys, *PAPER)["memory_per_worker"] == 32 * 2**30
    given = told(capsys, *PAPER, "--memory", "640GB")
    assert given["memory_per_worker"] == 10**10


def test_a_model_and_a_region_of_a_volume_on_paper(
    case: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--shape", "8,96,128", "--dtype-of-input", "uint16", "--workers", "2")
    paper = told(capsys, *arguments, "--model", case[1], "--no-calibration")
    real = told(capsys, case[0], "--model", case[1], "--workers", "2", "--no-calibration")
    assert paper["network"] == real["network"] == "2-D, depth 2, 2 channels"
    differing = {"memory_per_worker", "alternatives"}  # what is free now
    assert {k: v for k, v in paper.items() if k not in differing} == {
        k: v for k, v in real.items() if k not in differing
    }
    region = told(capsys, *arguments, "--region", "0:1,0:96,0:128", "--no-calibration")
    assert region["bytes_written"] < paper["bytes_written"]


def test_cores_have_a_price_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--shape", "20,600,600", "--workers", "2", "--threads", "3", "--no-calibration")
    values = told(capsys, *arguments, "--price-per-core-hour", "0.1")
    assert values["core_hours"] == pytest.approx(6 * values["seconds"]["wall"] / 3600)
    assert values["cost"] == pytest.approx(0.1 * values["core_hours"])
    assert told(capsys, *arguments)["cost"] is None


def test_workers_and_threads_are_alternatives_unless_they_are_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def splits(*more: str) -> list[str]:
        values = told(capsys, "--shape", "20,600,600", "--no-calibration", *more)
        return [a["what"] for a in values["alternatives"] if "threads" in a["what"]]

    assert splits("--workers", "1") == splits("--threads", "1") == []
    assert bool(splits()) == (default_workers(1) > 1)


def test_the_network_on_paper_is_the_papers_or_a_cube(capsys: pytest.CaptureFixture[str]) -> None:
    flat = told(capsys, *PAPER, "--network", "planar")
    cube = told(capsys, *PAPER, "--network", "volumetric")
    assert flat == told(capsys, *PAPER)
    assert cube["network"] == "3-D, depth 3, 16 channels: taken for want of a --model"


def test_an_output_begun_with_several_threads_is_continued_by_as_many_fewer_workers(
    case: tuple[str, str],
) -> None:
    source = VolumeReference(case[0])
    job = check_job(source, case[1], mask=None, choices=Choices(dtype="uint8"))
    whole = Box.of_shape(job.volume.shape)
    plan = plan_job(job, whole, ClusterOptions(workers=1, memory=2**30, threads=4))
    grey = IntensityRule("model").stated(job.header.intensity)
    stored = provenance(job, plan, intensity=grey, facts={}, dtype="uint8")
    begun = replace(source.open(), attributes=stored.to_attributes())
    cluster = ClusterOptions(workers=9, memory=2**30, cores=9)
    wanted = request_for(job, whole, cluster, begun)
    assert (wanted.workers, wanted.threads, wanted.memory) == (2, 4, 9 * 2**30 // 2)
    chosen = replace(cluster, cores=None)
    assert request_for(job, whole, chosen, begun).workers == 9


# -- wrong usage -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("either SOURCE or --shape, not neither", ()),
        ("either SOURCE or --shape, not neither", ("--model", "m")),
        ("either SOURCE or --shape, not both", ("em.zarr", "--shape", "1,1,1", "--model", "m")),
        ("Missing option '--model'", ("em.zarr",)),
        ("not a positive whole number", ("--shape", "0,1,1")),
        ("not three values", ("--shape", "1,1")),
        ("--gpus", (*PAPER[:2], "--gpus", "0")),
        ("--gpus does not go with --workers", (*PAPER, "--workers", "2")),
        ("--gpus does not go with --scheduler", (*PAPER, "--scheduler", "tcp://a:1")),
        ("--gpus does not go with --device", (*PAPER, "--device", "cpu")),
        ("--gpus does not go with --calibrate", (*PAPER, "--calibrate")),
        ("--shape does not go with --mask", (*PAPER, "--mask", "low.zarr")),
        ("--shape does not go with --channel", (*PAPER, "--channel", "1")),
        ("SOURCE does not go with --network", ("a", "--model", "m", "--network", "planar")),
        (
            "SOURCE does not go with --dtype-of-input",
            ("a", "--model", "m", "--dtype-of-input", "uint8"),
        ),
        ("--model does not go with --network", (*PAPER, "--model", "m", "--network", "planar")),
        ("--dtype-of-input", (*PAPER, "--dtype-of-input", "complex64")),
        ("-1.0 is not a price", (*PAPER, "--price-per-gpu-hour", "-1")),
        ("nan is not a price", (*PAPER, "--price-per-gpu-hour", "nan")),
        ("not a valid float", (*PAPER, "--price-per-gpu-hour", "cheap")),
        (
            "this plan is for GPUs. Give --price-per-gpu-hour",
            (*PAPER, "--price-per-core-hour", "1"),
        ),
        (
            "this plan is for CPUs. Give --price-per-core-hour",
            ("--shape", "9,99,99", "--price-per-gpu-hour", "1"),
        ),
        ("not a size", (*PAPER, "--device-memory", "lots")),
    ],
)
def test_wrong_usage_exits_with_2(
    capsys: pytest.CaptureFixture[str], words: str, arguments: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in " ".join(err.split())


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("not a file", (*PAPER, "--model", "none.safetensors")),
        ("Codec 'nothing'", (*PAPER, "--codec", "nothing")),
        ("leaves the volume", (*PAPER, "--region", "0:1,0:1,0:100001")),
        ("not a multiple of 16", (*PAPER, "--block", "1,100,112")),
        ("MiB are allowed", ("--shape", "9,999,999", "--memory", "64MB")),
    ],
)
def test_what_cannot_be_planned_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], words: str, arguments: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert words in err
    assert "Measuring" not in err


def test_nothing_is_left_behind(case: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(case[0]).parent
    before = sorted(folder.rglob("*"))
    assert run(capsys, case[0], "--model", case[1], "--no-calibration")[0] == 0
    assert sorted(folder.rglob("*")) == before
