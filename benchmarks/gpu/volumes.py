"""Volumes in Zarr, read and written row of shards by row of shards while the device computes."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from benchmarks.gpu.cases import Case
from benchmarks.gpu.clocks import Stopwatch
from tilenet.geometry import ZYX, BlockGrid, Box, mirrored_index, read_box_of, zyx
from tilenet.inference import mirror
from tilenet.planning import Plan
from tilenet.volumes import compressors
from tilenet.volumes.stores import DurableStore

Grey = npt.NDArray[np.uint8]

#: Rows of shards that are read before they are needed, and that may wait to be written.
READ_AHEAD, WRITE_BEHIND = 2, 2


def create(path: Path, case: Case, layers: int) -> Any:
    """Make an array as tilenet makes them: sharded, zstd, synced to the disk."""
    return zarr.create_array(
        DurableStore(path),
        shape=case.shape(layers),
        dtype="uint8",
        chunks=case.chunk,
        shards=case.shard,
        compressors=compressors("zstd"),
        fill_value=0,
        config={"write_empty_chunks": True},
    )


def synthetic(shape: ZYX) -> Grey:
    """Grey values that compress about as badly as electron micrographs: blobs and much noise."""
    rng = np.random.default_rng(0)
    waves = [np.sin(np.arange(n, dtype=np.float32) / 9) for n in shape]
    blobs = waves[0][:, None, None] + waves[1][:, None] * waves[2]
    noise = rng.integers(0, 64, shape, np.uint8)
    grey: Grey = (20 * blobs + 90).astype(np.uint8) + noise
    return grey


class Writer:
    """Collects results into rows of shards, and writes each shard once, in threads."""

    def __init__(self, array: Any, case: Case, threads: int) -> None:
        self._array, self._case = array, case
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="write")
        self._layers: dict[int, Grey] = {}
        self._missing: dict[int, int] = {}
        self._written: deque[list[Future[None]]] = deque()
        #: Seconds that the caller waited, because writing was behind.
        self.waited = Stopwatch()

    def put(self, box: Box, values: Grey) -> None:
        """Take the results of a box of the volume."""
        depth = self._case.layer[0]
        for n in range(box.start[0] // depth, -(-box.stop[0] // depth)):
            layer = self._box(n)
            part = box.intersect(layer)
            buffer = self._buffer(n)
            cut = values[part.relative_to(box.start).slices]
            buffer[part.relative_to(layer.start).slices] = cut
            self._missing[n] -= part.size
            if not self._missing[n]:
                self._submit(n)

    def _box(self, n: int) -> Box:
        depth, height, width = self._case.layer
        return Box((n * depth, 0, 0), ((n + 1) * depth, height, width))

    def _buffer(self, n: int) -> Grey:
        if n not in self._layers:
            with self.waited.running():
                while len(self._written) >= WRITE_BEHIND:
                    _finish(self._written.popleft())
            self._layers[n] = np.empty(self._case.layer, np.uint8)
            self._missing[n] = self._layers[n].size
        return self._layers[n]

    def _submit(self, n: int) -> None:
        buffer, start = self._layers.pop(n), self._box(n).start
        origin = zyx(-a for a in start)

        def write(box: Box) -> None:
            self._array[box.relative_to(origin).slices] = buffer[box.slices]

        shards = BlockGrid(self._case.layer, self._case.shard)
        self._written.append([self._pool.submit(write, box) for box in shards])

    def close(self) -> None:
        """Wait until all is written."""
        with self.waited.running():
            while self._written:
                _finish(self._written.popleft())
        self._pool.shutdown()


def _finish(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()


class Reader:
    """Gives rows of shards with mirrored margins along y and x, read ahead in threads."""

    def __init__(self, array: Any, plan: Plan, case: Case, threads: int) -> None:
        self._array, self._case = array, case
        self._shape, halo, legal = plan.request.volume_shape, plan.request.architecture.halo, plan
        self._halo = halo
        # In z only a stream along z leaves the volume; it takes its planes from the rows.
        self._padded = Box(
            (0, -halo[1], -halo[2]),
            (0, legal.tile_input[1] - halo[1], legal.tile_input[2] - halo[2]),
        )
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._layers: dict[int, tuple[Grey, list[Future[None]]]] = {}
        # A mirrored plane may come from as many rows before the latest one.
        self._kept = 2 + -(-max(plan.reach[0], halo[0]) // case.layer[0])
        self._count = self._shape[0] // case.layer[0]
        #: Seconds that the caller waited, because reading was behind.
        self.waited = Stopwatch()

    def planes(self, start: int, stop: int) -> Grey:
        """Sections in a range of the mirror-padded volume, with their margins."""
        found = [mirrored_index(z, self._shape[0]) for z in range(start, stop)]
        first, depth = found[0], self._case.layer[0]
        n, offset = divmod(first, depth)
        if found == list(range(first, first + len(found))) and offset + len(found) <= depth:
            return self._layer(n)[offset : offset + len(found)]
        return np.stack([self._layer(z // depth)[z % depth] for z in found])

    def _layer(self, n: int) -> Grey:
        for ahead in range(n, min(n + 1 + READ_AHEAD, self._count)):
            if ahead not in self._layers:
                self._layers[ahead] = self._request(ahead)
        for old in [m for m in self._layers if m < n - self._kept]:
            del self._layers[old]
        buffer, futures = self._layers[n]
        with self.waited.running():
            _finish(futures)
        return buffer

    def _request(self, n: int) -> tuple[Grey, list[Future[None]]]:
        (depth, height, _), (_, rows, columns) = self._case.layer, self._padded.shape
        buffer = np.empty((depth, rows, columns), np.uint8)
        step = self._case.shard[1]
        cuts = [(y, min(y + step, height)) for y in range(0, height, step)]
        return buffer, [self._pool.submit(self._read, n, cut, buffer) for cut in cuts]

    def _read(self, n: int, cut: tuple[int, int], buffer: Grey) -> None:
        # Some rows of the image, mirrored along x, to every row of the buffer that shows them.
        (depth, height, width), (low, high) = self._case.layer, cut
        start, stop = n * depth, (n + 1) * depth
        stored = Box((start, low, 0), (stop, high, width))
        wide = Box(
            (start, low, self._padded.start[2]), (stop, high, self._padded.stop[2])
        )  # fmt: skip
        values: Any = self._array[stored.slices]
        read_box = read_box_of(wide, self._shape)
        assert read_box == stored, "a margin is mirrored from its own rows"
        values = mirror(values, stored, input_box=wide, volume_shape=self._shape)
        halo = self._halo[1]
        buffer[:, low + halo : high + halo] = values
        margins = (*range(halo), *range(halo + height, buffer.shape[1]))
        for row in margins:
            source = mirrored_index(row - halo, height)
            if low <= source < high:
                buffer[:, row] = values[:, source - low]

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)
