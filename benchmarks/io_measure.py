"""The measurements of ``bench_io``, for one number of cores."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.io_cases import (
    BLOCK,
    CHUNKS,
    SHARD,
    Pattern,
    divided,
    image,
    patterns,
    probabilities,
)
from benchmarks.io_pipelines import Reader, Writer, create, limit_cores, readers, writers
from tilenet.geometry import ZYX, Box, zyx
from tilenet.volumes import open_volume, reopen_for_writing

Array = npt.NDArray[Any]

#: Shards of a block of ``BLOCK`` that are compared: one, four, many, and every chunk a file.
SHARDS = (BLOCK, (64, 512, 512), (16, 512, 512), (16, 256, 256))

CODECS = ("zstd-1", "zstd-3", "blosc-zstd", "blosc-lz4", "none")


@dataclass
class Timing:
    """One way to read or write, timed."""

    # table, case, method: what is compared, with which data, by which pipeline or with which
    # shapes.
    table: str
    case: str
    method: str
    cores: int  # cores, and threads of the pipeline
    megabytes: float  # wanted or written, 10^6 bytes before compression
    facts: dict[str, float] = field(default_factory=dict)  # what else is known of it
    # wall, cpu: seconds, per repeat; those of the processor are summed over all threads.
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Megabytes per second, median."""
        return self.megabytes / statistics.median(self.wall)

    @property
    def cpu_rate(self) -> float:
        """Megabytes per second of processor time, median."""
        return self.megabytes / statistics.median(self.cpu)

    def read(self, read: Reader, pattern: Pattern) -> None:
        """Read all boxes once more."""
        self.time(lambda: [read(box) for box in pattern.boxes])

    def time(self, work: Callable[[], Any]) -> None:
        """Run it once more."""
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    folder: Path  # where volumes are written
    # cores, repeats: cores, and how often everything is repeated.
    cores: int
    repeats: int
    k: int  # divisor of all sizes

    def divided(self, shape: ZYX, kind: str) -> ZYX:
        """Make a shape smaller with ``--quick``."""
        return divided(shape, kind, self.k)

    def volume(self, name: str, raw: Array, kind: str, chunk: ZYX) -> Path:
        """Create a volume with the shards of ``ingest``, and write it."""
        path, shape = self.folder / f"{name}.zarr", zyx(raw.shape)
        chunk, shard = self.divided(chunk, kind), self.divided(SHARD[kind], kind)
        create(path, shape, chunk=chunk, shard=shard, codec="zstd-1")
        reopen_for_writing(str(path)).write(Box.of_shape(shape), raw)
        return path


def stored_bytes(path: Path) -> int:
    """Add up the files of a volume."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def measure_all(folder: str, cores: int, *, repeats: int, k: int) -> list[Timing]:
    """Measure everything with some cores; what does not depend on them, with one core only."""
    limit_cores(cores)
    bench = Bench(Path(folder), cores, repeats, k)
    steps: list[Callable[[Bench, dict[str, Array]], list[Timing]]] = [reading, writing]
    if cores == 1:
        steps += [codecs, shards, chunks]
    images = {kind: image(kind, k) for kind in SHARD}
    timings: list[Timing] = []
    for step in steps:
        print(f"{step.__name__}, {cores} cores", file=sys.stderr, flush=True)
        timings += step(bench, images)
    return timings


def reading(bench: Bench, images: dict[str, Array]) -> list[Timing]:
    """Compare pipelines on volumes as ``ingest`` writes them."""
    timings: list[Timing] = []
    for kind, raw in images.items():
        chunk = bench.divided(CHUNKS[kind][0], kind)
        path = bench.volume("read", raw, kind, CHUNKS[kind][0])
        found = readers(path, bench.cores)
        for pattern in _patterns(bench, kind, chunk):
            timings += _read(bench, pattern, found, raw, chunk)
    return timings


def _patterns(bench: Bench, kind: str, chunk: ZYX) -> list[Pattern]:
    found = patterns({**{name: shapes[0] for name, shapes in CHUNKS.items()}, kind: chunk}, bench.k)
    chosen = [pattern for pattern in found if pattern.kind == kind]
    return chosen if bench.k == 1 else chosen[:2]


def _read(
    bench: Bench, pattern: Pattern, found: dict[str, Callable[[], Reader]], raw: Array, chunk: ZYX
) -> list[Timing]:
    facts = {"decoded / wanted": pattern.amplification(chunk)}
    megabytes = pattern.voxels / 1e6
    timings = [
        Timing("reading", pattern.name, method, bench.cores, megabytes, facts) for method in found
    ]
    for opened in found.values():
        _check(opened(), pattern, raw)
    for _ in range(bench.repeats):
        for timing, opened in zip(timings, found.values(), strict=True):
            timing.read(opened(), pattern)
    return timings


def _check(read: Reader, pattern: Pattern, raw: Array) -> None:
    # Warms the page cache too.
    for box in pattern.boxes:
        assert np.array_equal(read(box), raw[box.slices]), f"{pattern.name}, {box}: other voxels"


def writing(bench: Bench, images: dict[str, Array]) -> list[Timing]:
    """Compare pipelines that write one shard."""
    shape = bench.divided(BLOCK, "sections")
    raw = np.ascontiguousarray(images["sections"][Box.of_shape(shape).slices])
    timings: list[Timing] = []
    for case, values in {"raw": raw, "probabilities": probabilities(raw)}.items():
        path = bench.folder / "written.zarr"
        methods = {
            method: Timing("writing", case, method, bench.cores, values.size / 1e6)
            for method in writers(path, bench.cores)
        }
        for _ in range(bench.repeats):
            for method, timing in methods.items():
                chunk = bench.divided(CHUNKS["sections"][0], "sections")
                create(path, shape, chunk=chunk, shard=shape, codec="zstd-1")
                _time_write(timing, writers(path, bench.cores)[method](), values, path)
        timings += methods.values()
    return timings


def _time_write(timing: Timing, write: Writer, values: Array, path: Path) -> None:
    os.sync()  # what others left to be written would be paid for by our own sync
    timing.time(lambda: write(values))
    if len(timing.wall) == 1:
        whole = open_volume(str(path)).read(Box.of_shape(zyx(values.shape)))
        assert np.array_equal(whole, values), f"{timing.case}, {timing.method}: other voxels"
    timing.facts["stored / raw"] = stored_bytes(path) / values.nbytes


def codecs(bench: Bench, images: dict[str, Array]) -> list[Timing]:
    """Compare compressors, written and read by tilenet."""
    shape = bench.divided(BLOCK, "sections")
    raw = np.ascontiguousarray(images["sections"][Box.of_shape(shape).slices])
    timings = []
    for case, values in {"raw": raw, "probabilities": probabilities(raw)}.items():
        volumes = {codec: NewShapes(CHUNKS["sections"][0], BLOCK, codec) for codec in CODECS}
        timings += _both(bench, "codecs", case, values=values, volumes=volumes)
    return timings


def shards(bench: Bench, images: dict[str, Array]) -> list[Timing]:
    """Compare shards that a block is cut into, written and read by tilenet."""
    shape = bench.divided(BLOCK, "sections")
    values = np.ascontiguousarray(images["sections"][Box.of_shape(shape).slices])
    volumes = {_name(shard): NewShapes(CHUNKS["sections"][0], shard, "zstd-1") for shard in SHARDS}
    return _both(bench, "shards", "raw", values=values, volumes=volumes)


@dataclass(frozen=True)
class NewShapes:
    """How a block is stored: chunk and shard before they are divided, and the compressor."""

    chunk: ZYX
    shard: ZYX
    codec: str


def _both(
    bench: Bench, table: str, case: str, *, values: Array, volumes: dict[str, NewShapes]
) -> list[Timing]:
    # Write a block and read it without its rim, stored in several ways that take turns.
    path, shape = bench.folder / f"{table}.zarr", zyx(values.shape)
    rim = zyx((0, *(n // 16 for n in shape[1:])))
    inner = Box(rim, zyx(n - r for n, r in zip(shape, rim, strict=True)))
    written, read = (
        {
            name: Timing(table, f"{case}, {what}", name, bench.cores, voxels / 1e6)
            for name in volumes
        }
        for what, voxels in (("written", values.size), ("read", inner.size))
    )
    for _ in range(bench.repeats):
        for name, new in volumes.items():
            chunk, shard = (bench.divided(s, "sections") for s in (new.chunk, new.shard))
            create(path, shape, chunk=chunk, shard=shard, codec=new.codec)
            _time_write(written[name], writers(path, bench.cores)["tilenet"](), values, path)
            read[name].read(open_volume(str(path)).read, Pattern("inner", "sections", (inner,)))
    return [*written.values(), *read.values()]


def chunks(bench: Bench, images: dict[str, Array]) -> list[Timing]:
    """Compare inner chunks, written and read by tilenet."""
    timings = []
    for kind, raw in images.items():
        shapes = CHUNKS[kind] if bench.k == 1 else CHUNKS[kind][:2]
        paths, written = _write_chunks(bench, kind, raw, shapes)
        timings += written
        ways = {chunk: _patterns(bench, kind, bench.divided(chunk, kind)) for chunk in shapes}
        for n in range(len(ways[shapes[0]])):
            patterns_of = {chunk: way[n] for chunk, way in ways.items()}
            if "planes each" not in patterns_of[shapes[0]].name:
                timings += _read_chunks(bench, kind, raw, paths=paths, patterns_of=patterns_of)
        for path in paths.values():
            shutil.rmtree(path)
    return timings


def _name(chunk: ZYX) -> str:
    return " x ".join(str(n) for n in chunk)


def _write_chunks(
    bench: Bench, kind: str, raw: Array, shapes: Sequence[ZYX]
) -> tuple[dict[ZYX, Path], list[Timing]]:
    timings = [
        Timing(f"chunks, {kind}", "written", _name(chunk), bench.cores, raw.size / 1e6)
        for chunk in shapes
    ]
    paths: dict[ZYX, Path] = {}
    for _ in range(bench.repeats):
        for chunk, timing in zip(shapes, timings, strict=True):
            os.sync()
            timing.time(partial(bench.volume, _name(chunk), raw, kind, chunk))
            paths[chunk] = bench.folder / f"{_name(chunk)}.zarr"
            timing.facts["stored / raw"] = stored_bytes(paths[chunk]) / raw.nbytes
    return paths, timings


def _read_chunks(
    bench: Bench,
    kind: str,
    raw: Array,
    *,
    paths: dict[ZYX, Path],
    patterns_of: dict[ZYX, Pattern],
) -> list[Timing]:
    timings = []
    for chunk, pattern in patterns_of.items():
        facts = {"decoded / wanted": pattern.amplification(bench.divided(chunk, kind))}
        size, table = pattern.voxels / 1e6, f"chunks, {kind}"
        timings.append(Timing(table, pattern.name, _name(chunk), bench.cores, size, facts))
        _check(open_volume(str(paths[chunk])).read, pattern, raw)
    for _ in range(bench.repeats):
        for timing, (chunk, pattern) in zip(timings, patterns_of.items(), strict=True):
            timing.read(open_volume(str(paths[chunk])).read, pattern)
    return timings
