"""Kills in the middle of ``tilenet label`` and ``tilenet weights``: nothing lost, nothing false."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.test_scheduler import Processes, wait_for
from tests.labels.test_components import slow_label
from tests.support.faults import Case
from tests.support.runs import (
    environment,
    interrupt,
    kill,
    run_tilenet,
    store_volume,
    tilenet_command,
)
from tilenet.geometry import Box
from tilenet.labels import LabelRule, WeightRule, border_weights
from tilenet.synthetic import synthetic_em
from tilenet.volumes import FOLDER, open_volume

pytestmark = pytest.mark.cluster

STORAGE = ("--chunk", "1,16,16", "--shard", "1,32,32", "--workers", "2", "--memory", "4GB")
COMMANDS = {
    "label": ("label", "masks.zarr", "label.zarr", "--connectivity", "26", *STORAGE),
    "weights": ("weights", "instances.zarr", "weights.zarr", "--gap", "1", *STORAGE),
}
SHARDS = 4 * 6 * 6


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks and instances, and what the commands should make of them."""
    folder = tmp_path_factory.mktemp("label-faults")
    em = synthetic_em((4, 192, 192), seed=3)
    store_volume(folder / "masks.zarr", em.cells)
    instances = np.asarray(em.instances).astype(np.uint16)
    store_volume(folder / "instances.zarr", instances)
    rule = WeightRule(gap=1, voxel_size=(50, 4, 4))
    np.save(folder / "weights.npy", border_weights(instances, rule))
    np.save(folder / "label.npy", slow_label(em.cells, LabelRule(connectivity=26)))
    return folder


def start(folder: Path, command: str) -> subprocess.Popen[str]:
    """Begin a command, and come back when its first blocks are stored."""
    process = subprocess.Popen(
        tilenet_command(*COMMANDS[command]),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while stored(folder / f"{command}.zarr") < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def stored(output: Path) -> int:
    """Count the shards of an output, without those that are being written."""
    shards = (output / "0" / "c").rglob("*")
    return sum(path.is_file() and path.suffix != ".partial" for path in shards)


def finish(folder: Path, command: str, kept: int) -> None:
    """Run the same command again, and compare with the whole computed at once."""
    again = run_tilenet(*COMMANDS[command], cwd=folder)
    assert again.returncode == 0, again.stderr
    done, total, now = (int(n) for n in re.findall(r"\d+", again.stdout)[:3])
    assert 0 < now <= done == total
    if command == "label":  # a block of weights may be several shards
        assert (total, now) == (SHARDS, SHARDS - kept)
    # Neither pass over the whole volume is made again.
    assert "Components" not in again.stderr
    assert "Count" not in again.stderr
    output = open_volume(str(folder / f"{command}.zarr"))
    found = output.read(Box.of_shape(output.shape))
    np.testing.assert_array_equal(found, np.load(folder / f"{command}.npy"))
    assert not (folder / f"{command}.zarr" / FOLDER).exists()
    assert not list((folder / f"{command}.zarr").rglob("*.partial"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_is_continued_by_the_same_one(case: Path, command: str) -> None:
    process = start(case, command)
    kill(process)
    kept = stored(case / f"{command}.zarr")
    assert 0 < kept < SHARDS
    finish(case, command, kept)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stopped_command_is_continued_by_the_same_one(case: Path, command: str) -> None:
    shutil.rmtree(case / f"{command}.zarr", ignore_errors=True)
    process = start(case, command)
    interrupt(process, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Run the same command again to go on" in err
    kept = stored(case / f"{command}.zarr")
    assert 0 < kept < SHARDS
    finish(case, command, kept)


def test_a_label_run_that_broke_off_tells_why_and_announces_no_instances(
    case: Path, tmp_path: Path
) -> None:
    output, kept = case / "label.zarr", case / "kept.zarr"
    shutil.rmtree(output, ignore_errors=True)
    with Processes(tmp_path) as dask:
        # It computes nothing while the output is away, which is all that it could say then.
        worker = dask.worker("only", 1, "4GB", **Case(case).gate("label.zarr", 4))
        process = subprocess.Popen(
            [*tilenet_command(*COMMANDS["label"][:-4]), "--scheduler", dask.address],
            cwd=case, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for(lambda: stored(output) >= 4)
        worker.send_signal(signal.SIGSTOP)
        output.rename(kept)
        dask.scheduler.kill()
        out, err = process.communicate(timeout=120)
    kept.rename(output)
    assert process.returncode == 1, err
    assert f"Error: Scheduler {dask.address}: the connection to it was lost. Blocks that" in err
    assert " instances" not in err
    assert f"of {SHARDS} blocks stored" in out
    assert "Report: " in err
    finish(case, "label", stored(output))
