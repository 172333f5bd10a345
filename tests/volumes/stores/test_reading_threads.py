"""What is read is decoded in as many threads as a process was given, counted by the system."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pipelines.cluster import ClusterOptions, open_client
from tests.support.runs import environment, store_volume
from tilenet.geometry import Box
from tilenet.volumes import open_volume
from tilenet.volumes.stores import VARIABLE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")

#: More than any machine has by itself.
MANY = (os.cpu_count() or 1) + 2


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def volume(tmp_path: Path) -> str:
    values = np.random.default_rng(0).integers(0, 256, (16, 64, 64), dtype=np.uint8)
    return store_volume(tmp_path / "em.zarr", values, chunk=(2, 16, 16))


def native() -> int:
    """Threads of this process that are not Python's."""
    ours = {thread.native_id for thread in threading.enumerate()}
    return len({int(path.name) for path in Path("/proc/self/task").iterdir()} - ours)


def threads_that_a_read_starts(location: str) -> int:
    before = native()
    opened = open_volume(location)
    opened.read(Box.of_shape(opened.shape))
    return native() - before


@pytest.mark.cluster
@pytest.mark.parametrize("threads", [1, MANY])
def test_a_worker_decodes_in_its_threads(volume: str, threads: int) -> None:
    options = ClusterOptions(workers=1, slots=2, threads=threads, dashboard="127.0.0.1:0")
    with open_client(options) as client:
        (started,) = client.run(threads_that_a_read_starts, volume).values()
    assert started == threads


@pytest.mark.cluster
def test_a_worker_with_a_gpu_decodes_in_its_share_of_the_cores(volume: str) -> None:
    options = ClusterOptions(workers=1, gpus=2, dashboard="127.0.0.1:0")
    with open_client(options) as client:
        (started,) = client.run(threads_that_a_read_starts, volume).values()
    assert started == max(1, len(os.sched_getaffinity(0)) // 2)


COMMAND = """\
import sys
from pipelines.cli import main
from tests.volumes.stores.test_reading_threads import native
try:
    main()
except SystemExit as end:
    print("ended", end.code or 0, "with", native(), "threads")
"""


def threads_of(*arguments: str | int | Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        env={**environment(), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    words = done.stdout.splitlines()[-1].split()
    assert words[:2] == ["ended", "0"], done.stderr
    return int(words[3])


def test_what_a_command_does_itself_is_bound_too(volume: str, tmp_path: Path) -> None:
    # One block, so no worker is started.
    few, many = (
        threads_of(
            "label", volume, tmp_path / f"{n}.zarr", "--threads", n, "--raw-threshold", "127"
        )
        for n in (1, MANY)
    )
    assert many - few == MANY - 1


def test_a_training_is_bound_too(volume: str, tmp_path: Path) -> None:
    labels = store_volume(tmp_path / "labels.zarr", np.eye(64, dtype=np.uint8)[None].repeat(16, 0))
    few, many = (
        threads_of(
            "train", volume, labels, "--output", tmp_path / "model.safetensors",
            "--preview", tmp_path / f"{n}.png", "--patch", "1,4,4", "--threads", n,
        )
        for n in (1, MANY)
    )  # fmt: skip
    assert many - few == MANY - 1
