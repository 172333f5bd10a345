"""Kills in the middle of a real command: nothing lost, nothing false."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.oracles import random_network, save_softmax
from tests.runs import environment, interrupt, kill, run_tilenet, store_volume, tilenet_command
from tilenet.architecture import UNetArchitecture
from tilenet.geometry import Box
from tilenet.synthetic import synthetic_em
from tilenet.volume import open_volume

pytestmark = pytest.mark.cluster

ARGUMENTS = ("--model", "model.safetensors", "--block", "1,64,64", "--memory", "6GB", "--json")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, a model that takes its time, and an undisturbed prediction."""
    folder = tmp_path_factory.mktemp("faults")
    store_volume(folder / "em.zarr", synthetic_em((6, 192, 192), seed=3).raw, chunk=(2, 64, 64))
    network = random_network(UNetArchitecture.planar(32, 3, dropout=0.0))
    save_softmax(folder / "model.safetensors", network)
    done = run_tilenet("predict", "em.zarr", "good.zarr", *ARGUMENTS, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["computed"] == 54
    return folder


def start(folder: Path, output: str) -> subprocess.Popen[str]:
    """Begin a prediction, and come back when its first blocks are stored."""
    process = subprocess.Popen(
        tilenet_command("predict", "em.zarr", output, *ARGUMENTS),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while stored(folder / output) < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def stored(output: Path) -> int:
    """Count the shards of an output, without those that are being written."""
    shards = (output / "0" / "c").rglob("*")
    return sum(path.is_file() and path.suffix != ".partial" for path in shards)


def same(folder: Path, output: str) -> bool:
    first, second = open_volume(str(folder / "good.zarr")), open_volume(str(folder / output))
    whole = Box.of_shape(first.shape)
    return np.array_equal(first.read(whole), second.read(whole))


def test_a_killed_worker_costs_nothing_but_time(case: Path) -> None:
    process = start(case, "worker.zarr")
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.memory_info().rss > 150 * 2**20  # PyTorch is loaded: a worker, not a helper
    ]
    workers[0].kill()
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert (summary["computed"], summary["failed"]) == (54, [])
    assert same(case, "worker.zarr")


def test_a_killed_client_is_continued_by_the_same_command(case: Path) -> None:
    process = start(case, "client.zarr")
    kill(process)
    kept = stored(case / "client.zarr")
    assert 0 < kept < 54
    again = run_tilenet("predict", "em.zarr", "client.zarr", *ARGUMENTS, cwd=case)
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert (summary["done_before"], summary["computed"]) == (kept, 54 - kept)
    assert same(case, "client.zarr")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_says_how_to_go_on(case: Path, number: int, code: int) -> None:
    output = f"stopped{code}.zarr"
    process = start(case, output)
    interrupt(process, number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Run the same command again to go on" in err
    summary = json.loads(out)
    assert summary["stopped_by"] == number
    # A block that began while the others were cancelled may be stored without being counted.
    assert summary["computed"] <= stored(case / output) < 54
    again = run_tilenet("predict", "em.zarr", output, *ARGUMENTS, "--workers", "1", cwd=case)
    assert again.returncode == 0, again.stderr
    assert same(case, output)
