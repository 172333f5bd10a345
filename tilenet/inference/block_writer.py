"""What a block's evaluation returns, plane by plane, becomes rows of whole shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tilenet.geometry import ZYX, BlockGrid, Box
from tilenet.planning import QUEUED_ROWS

Array = npt.NDArray[Any]


class Rows:
    """Collects the planes of a block; threads write rows while the next one is computed.

    A row is all shards of the block at one position along an axis. Memory holds the one that is
    collected, and those that are written or wait for it, at most ``queued``. Leaving the context
    waits until all is written; when it is left by an error, what is being written is finished, and
    the rest dropped. ``write`` takes a shard's box and voxels, in ``threads`` threads at once; the
    block starts at a multiple of ``shard``; ``wait`` waits for a Future and gives its result.
    """

    def __init__(
        self,
        write: Callable[[Box, Array], None],
        block: Box,
        *,
        axis: int,
        shard: ZYX,
        threads: int,
        queued: int = QUEUED_ROWS,
        wait: Callable[[Future[None]], None] = Future.result,
    ) -> None:
        self._write, self._wait, self._queued = write, wait, queued
        self._axis, self._shard = axis, shard
        self._rows = deque(block.cut(axis, shard[axis]))
        self._row: Array | None = None
        self._filled = 0
        self._writers = ThreadPoolExecutor(threads, thread_name_prefix="tilenet-write")
        self._queue: deque[list[Future[None]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._wait_until(0)
                assert not self._rows, "every plane of the block was added"
        finally:
            self._writers.shutdown(cancel_futures=True)

    def add(self, values: Array) -> None:
        """Take the next planes, whole in the other axes; they must not be changed afterwards."""
        dimension = self._axis - 3
        while values.shape[dimension]:
            depth = self._rows[0].shape[self._axis]
            count = min(depth - self._filled, values.shape[dimension])
            planes, values = values[self._planes(0, count)], values[self._planes(count, None)]
            if count == depth:
                self._row = planes
            else:
                self._fill(planes, self._filled + count)
            self._filled += count
            if self._filled == depth:
                self._finish()

    def _fill(self, planes: Array, stop: int) -> None:
        if self._row is None:
            self._row = np.empty((*planes.shape[:-3], *self._rows[0].shape), planes.dtype)
        self._row[self._planes(self._filled, stop)] = planes

    def _finish(self) -> None:
        self._wait_until(self._queued - 1)
        assert self._row is not None
        row, values = self._rows.popleft(), self._row
        self._queue.append(
            [
                self._writers.submit(
                    self._write, shard, values[(..., *shard.relative_to(row.start).slices)]
                )
                for shard in BlockGrid(row.stop, self._shard, row)
            ]
        )
        self._row, self._filled = None, 0

    def _wait_until(self, rows: int) -> None:
        # Until no more than so many are left: the oldest first, so that its error is the one told.
        while len(self._queue) > rows:
            for written in self._queue.popleft():
                self._wait(written)

    def _planes(self, start: int, stop: int | None) -> tuple[Any, ...]:
        planes = slice(start, stop)
        return (..., *(planes if n == self._axis else slice(None) for n in range(3)))
