"""Invariant 6: a task's peak memory stays within what the plan said."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support.oracles import random_network, save_softmax
from tests.support.runs import environment, run_tilenet, tilenet_command
from tilenet.geometry import ZYX, BlockGrid, Box
from tilenet.networks import UNetArchitecture
from tilenet.volumes import NewVolume, create_volume, open_volume, reopen_for_writing

pytestmark = pytest.mark.cluster


def sparse_volume(
    path: Path, shape: ZYX, dtype: str = "uint8", *, chunk: ZYX = (16, 256, 256)
) -> None:
    """A volume of which one chunk is stored; the rest reads as zeros, at no cost of disk."""
    new = NewVolume(shape=shape, dtype=dtype, chunk=chunk, shard=chunk, attributes={})
    create_volume(str(path), new)
    noise = np.random.default_rng(0).integers(0, 255, new.chunk).astype(dtype)
    reopen_for_writing(str(path)).write(Box((0, 0, 0), new.chunk), noise)


class Watch(threading.Thread):
    """Remembers the largest resident memory of each child of a process."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root = psutil.Process(pid)
        self.peaks: dict[int, int] = {}

    def run(self) -> None:
        while self.root.is_running() and self.root.status() != psutil.STATUS_ZOMBIE:
            for child in self.root.children(recursive=True):
                try:
                    rss = child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
                self.peaks[child.pid] = max(rss, self.peaks.get(child.pid, 0))
            time.sleep(0.05)


def predict(folder: Path, *more: str) -> tuple[int, int]:
    """Predict with one worker; return its peak memory and the plan's figure."""
    options = ("--model", "model.safetensors", "--workers", "1", *more)
    planned = run_tilenet("plan", "em.zarr", *options, "--json", "--no-calibration", cwd=folder)
    assert planned.returncode == 0, planned.stderr
    process = subprocess.Popen(
        tilenet_command("predict", "em.zarr", "out.zarr", *options),
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = Watch(process.pid)
    watch.start()
    _, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    return max(watch.peaks.values()), json.loads(planned.stdout)["worker_bytes"]


@pytest.mark.parametrize(
    ("network", "shape", "region"),
    [
        (UNetArchitecture.planar(16, 2, dropout=0.0), (4, 1024, 1024), "0:1,0:1024,0:1024"),
        (UNetArchitecture.planar(2, 2, dropout=0.0), (64, 2048, 2048), "0:16,0:1024,0:1024"),
        (UNetArchitecture.volumetric(8, 2, dropout=0.0), (128, 128, 128), "0:1,0:1,0:1"),
        # Convolutions of few channels are unfolded into memory.
        (UNetArchitecture.volumetric(2, 2, dropout=0.0), (48, 96, 96), "0:48,0:96,0:96"),
    ],
    ids=["wide", "deep blocks", "volumetric", "few channels"],
)
def test_peak_memory_stays_under_the_plans_figure(
    tmp_path: Path, network: UNetArchitecture, shape: tuple[int, int, int], region: str
) -> None:
    sparse_volume(tmp_path / "em.zarr", shape)
    save_softmax(tmp_path / "model.safetensors", random_network(network))
    peak, promised = predict(tmp_path, "--memory", "1400MB", "--region", region)
    assert 0.4 * promised < peak < promised, f"{peak / 2**20:.0f} of {promised / 2**20:.0f} MiB"


def test_averaging_orientations_stays_under_it_too(tmp_path: Path) -> None:
    sparse_volume(tmp_path / "em.zarr", (4, 1024, 1024), "float32")
    network = random_network(UNetArchitecture.planar(16, 2, dropout=0.0))
    save_softmax(tmp_path / "model.safetensors", network)
    one = ("--region", "0:1,0:1024,0:1024", "--block", "1,1024,1024")
    peak, promised = predict(tmp_path, "--memory", "1400MB", "--flips", *one)
    assert 0.4 * promised < peak < promised, f"{peak / 2**20:.0f} of {promised / 2**20:.0f} MiB"


def test_a_volume_that_is_one_large_chunk_stays_under_it_too(tmp_path: Path) -> None:
    shape = (64, 1024, 2048)  # 128 MiB
    sparse_volume(tmp_path / "em.zarr", shape, chunk=shape)
    network = random_network(UNetArchitecture.planar(2, 2, dropout=0.0))
    save_softmax(tmp_path / "model.safetensors", network)
    one = ("--region", "0:2,0:64,0:64", "--block", "1,64,64")
    peak, promised = predict(tmp_path, "--memory", "1100MB", *one)
    assert promised > 700 * 2**20
    assert 0.4 * promised < peak < promised, f"{peak / 2**20:.0f} of {promised / 2**20:.0f} MiB"


def test_a_volume_larger_than_the_memory_goes_through(tmp_path: Path) -> None:
    # 805 MB of float32 voxels, 700 MB for everything.
    shape = (12, 4096, 4096)
    sparse_volume(tmp_path / "em.zarr", shape, "float32")
    network = UNetArchitecture.planar(1, 1, convolutions=1, dropout=0.0)
    save_softmax(tmp_path / "model.safetensors", random_network(network))
    peak, promised = predict(tmp_path, "--memory", "700MB")
    assert peak < promised <= 700e6 < np.prod(shape) * 4
    output = open_volume(str(tmp_path / "out.zarr"))
    assert output.shape == shape
    assert not output.missing(BlockGrid(shape, output.write_shape))
