"""What a resume costs on an output of many shards: all stored, and half of them."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

from benchmarks.cases import Case, prepare
from benchmarks.memory import peak_bytes
from pipelines.cluster import ClusterOptions
from pipelines.predict import Choices, run_prediction
from tilenet.geometry import ZYX, BlockGrid, zyx
from tilenet.networks import UNetArchitecture
from tilenet.volumes import VolumeReference, open_volume

P = ParamSpec("P")
T = TypeVar("T")

#: A block, which is one shard.
BLOCK = (1, 16, 16)

#: Names that one file is given: file systems allow some 65,000.
LINKS = 50_000

#: Free bytes that an output needs per shard, for its names and folders, and free inodes in all.
BYTES_PER_SHARD, INODES = 200, 100_000


@dataclass(frozen=True)
class Resume:
    """What finding out cost."""

    # shards, stored: of the output, and those that are there.
    shards: int
    stored: int
    caches: str  # "cold" where the system had dropped its caches before
    # listing, listing_cpu: seconds until it was known which blocks are missing, and of processor
    # time.
    listing: float
    listing_cpu: float
    # command, command_cpu: the same of the whole ``predict``, cluster and planning included, where
    # nothing was left to do; the processor time is that of the client.
    command: float | None
    command_cpu: float | None
    # before, peak: bytes resident before, and the most in the process's life.
    before: int
    peak: int


@dataclass(frozen=True)
class Output:
    """An output of many shards."""

    folder: Path  # where everything lies
    lattice: ZYX  # its shards along (z, y, x)
    # source, model: volume and model file.
    source: str
    model: str

    @property
    def location(self) -> Path:
        return self.folder / "output.zarr"

    @property
    def shape(self) -> ZYX:
        """Voxels, (z, y, x)."""
        return zyx(n * size for n, size in zip(self.lattice, BLOCK, strict=True))

    @property
    def shards(self) -> int:
        """How many there can be."""
        return math.prod(self.lattice)

    def paths(self) -> Iterator[Path]:
        """Name all shards, and make their folders."""
        depth, height, width = self.lattice
        for z, y in itertools.product(range(depth), range(height)):
            row = self.location / "0" / "c" / str(z) / str(y)
            row.mkdir(parents=True, exist_ok=True)
            for x in range(width):
                yield row / str(x)


def measure(folder: Path, shards: int, *, drop_caches: bool) -> list[Resume]:
    """Make an output, and resume it; each time in a fresh process."""
    output = make(folder, shards)
    found = [_fresh(resume, output, output.shards, "warm")]
    if drop_caches:
        _drop_caches()
        found.append(_fresh(resume, output, output.shards, "cold"))
    for path in itertools.islice(output.paths(), 1, None, 2):
        path.unlink()
    return [*found, _fresh(resume, output, output.shards - output.shards // 2, "warm")]


def _fresh(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    # Memory once taken is seldom given back.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(function, *args, **kwargs).result()


def make(folder: Path, shards: int) -> Output:
    """Predict one block, and give copies of its shard the names of all others."""
    edge = round(shards ** (1 / 3))
    lattice = (shards // edge**2, edge, edge)
    _check_room(folder, math.prod(lattice))
    shape = zyx(n * size for n, size in zip(lattice, BLOCK, strict=True))
    network = UNetArchitecture.planar(2, 2, dropout=0.0)
    inputs = prepare(Case("scale", network, shape, (1, 1, 1), (1, 1, 1)), folder)
    output = Output(folder, lattice, inputs.source, inputs.model)
    assert _predict(output, region=[(0, size) for size in BLOCK]) == 1
    done = source = next(output.paths())
    for i, path in enumerate(output.paths()):
        if i % LINKS == 0:
            source = Path(shutil.copyfile(done, folder / f"copy-{i}"))
        if path != done:
            os.link(source, path)
    return output


def resume(output: Output, stored: int, caches: str) -> Resume:
    """Ask what is missing; where nothing is, run the command too."""
    import psutil

    before, grid = psutil.Process().memory_info().rss, BlockGrid(output.shape, BLOCK)
    listing = _Stopwatch()
    missing = open_volume(str(output.location)).missing(grid)
    spent = listing.read()
    assert len(missing) == output.shards - stored, f"{len(missing)} blocks are missing"
    shards = (output.shards, stored, caches)
    if missing:
        return Resume(*shards, *spent, None, None, before, peak_bytes())
    command = _Stopwatch()
    assert _predict(output) == 0, "nothing was left to be computed"
    return Resume(*shards, *spent, *command.read(), before, peak_bytes())


class _Stopwatch:
    # Seconds, and seconds of this process's processor time, which other work does not stretch.

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        wall, cpu = self._start
        return time.perf_counter() - wall, time.process_time() - cpu


def _predict(output: Output, region: list[tuple[int, int]] | None = None) -> int:
    with contextlib.redirect_stderr(io.StringIO()):
        summary = run_prediction(
            VolumeReference(output.source),
            str(output.location),
            model=output.model,
            cluster=ClusterOptions(workers=1, slots=1, memory=2 * 2**30),
            region=region,
            choices=Choices(block=BLOCK, shard=BLOCK),
        )
    assert not summary.outcome.failed, summary.outcome.failed[:3]
    return summary.outcome.computed


def _check_room(folder: Path, shards: int) -> None:
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    # Some file systems make inodes as they need them, and say that 0 are left.
    if free < shards * BYTES_PER_SHARD or 0 < room.f_favail < INODES:
        raise SystemExit(f"{folder}: {shards:,} shards do not fit; set TMPDIR to a larger disk")


def _drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
