"""What reading in groups of chunks costs in time, and wins in memory."""

from __future__ import annotations

import contextlib
import shutil
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

import tilenet.volumes.volume
from benchmarks.io_cases import CUBE_BLOCK, CUBE_HALO, divided, image
from benchmarks.io_measure import Timing
from benchmarks.io_pipelines import create, limit_cores
from benchmarks.memory import peak_bytes
from tilenet.geometry import ZYX, Box
from tilenet.volumes import open_volume, reopen_for_writing

#: Bytes of chunks at once; the last is no limit at all.
GROUPS = {"16 MiB (tilenet)": 16 * 2**20, "64 MiB": 64 * 2**20, "all": 2**62}

#: Chunks, and whether they lie in shards.
LAYOUTS: dict[str, tuple[ZYX, bool]] = {
    "chunks of 1 MiB in shards": ((64, 128, 128), True),
    "chunks of 1 MiB": ((64, 128, 128), False),
    "chunks of 8 MiB": ((128, 256, 256), False),
    "chunks of 64 MiB": ((256, 512, 512), False),
}


@dataclass(frozen=True)
class Memory:
    """One way to read one box."""

    # case, method: the chunks, and how many bytes of them at once.
    case: str
    method: str
    cores: int  # cores, and threads of zarrs
    # Bytes by which the process grew when it read the box first; the box itself included.
    grown: int
    box: int  # bytes of the box
    # wall, cpu: seconds, per repeat.
    wall: list[float]
    cpu: list[float]

    @property
    def seconds(self) -> tuple[float, float]:
        """Median seconds, of the clock and of the processor."""
        return statistics.median(self.wall), statistics.median(self.cpu)


def measure_memory(folder: Path, cores: int, *, repeats: int, k: int) -> list[Memory]:
    """Read a block with halo from every layout, in processes that take turns."""
    raw = image("cube", k)
    start, stop = 128 - CUBE_HALO, 128 + CUBE_BLOCK + CUBE_HALO
    box = Box((start // k,) * 3, (stop // k,) * 3)
    found = []
    for name, (chunk, sharded) in [*LAYOUTS.items()][: None if k == 1 else 1]:
        path = folder / "layout.zarr"
        _write(path, raw, divided(chunk, "cube", k), sharded=sharded)
        found += _compare(name, str(path), box, cores=cores, repeats=repeats)
    return found


def _write(path: Path, raw: Any, chunk: ZYX, *, sharded: bool) -> None:
    if sharded:
        create(path, raw.shape, chunk=chunk, shard=raw.shape)
        reopen_for_writing(str(path)).write(Box.of_shape(raw.shape), raw)
    else:
        shutil.rmtree(path, ignore_errors=True)
        codec = ZstdCodec(level=1, checksum=True)
        zarr.create_array(path, data=raw, chunks=chunk, compressors=codec)


def _compare(name: str, path: str, box: Box, *, cores: int, repeats: int) -> list[Memory]:
    with contextlib.ExitStack() as stack:
        runs: dict[str, Callable[..., Any]] = {}
        for method, group in GROUPS.items():
            start = (cores, path, group)
            pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, start)
            stack.enter_context(pool)
            runs[method] = lambda *args, pool=pool: pool.submit(*args).result()
        grown = {method: run(_growth, box) for method, run in runs.items()}
        times: dict[str, list[tuple[float, float]]] = {method: [] for method in runs}
        for _ in range(repeats):
            for method, run in runs.items():
                times[method].append(run(_seconds, box))
    return [
        Memory(name, method, cores, grown[method], box.size, *map(list, zip(*pairs, strict=True)))
        for method, pairs in times.items()
    ]


_volume: tilenet.volumes.volume.Volume | None = None


def _begin(cores: int, path: str, group: int) -> None:
    global _volume
    limit_cores(cores)
    tilenet.volumes.volume.READ_BYTES = group
    _volume = open_volume(path, axes=None if (Path(path) / "0").exists() else "zyx")
    _volume.read(Box((0, 0, 0), (1, 1, 1)))


def _growth(box: Box) -> int:
    before = peak_bytes()
    _read(box)
    return peak_bytes() - before


def _seconds(box: Box) -> tuple[float, float]:
    timing = Timing("memory", "", "", 0, box.size / 1e6)
    timing.time(lambda: _read(box))
    return timing.wall[0], timing.cpu[0]


def _read(box: Box) -> None:
    assert _volume is not None
    assert np.any(_volume.read(box))
