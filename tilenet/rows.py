"""What a block's evaluation returns, plane by plane, becomes rows of whole shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tilenet.geometry import Box

Array = npt.NDArray[Any]


class Rows:
    """Collects the planes of a block; a thread writes a row while the next one is computed.

    A row is all shards of the block at one position along an axis. Leaving the context waits until
    all is written; when it is left by an error, rows that are not complete are dropped.

    Parameters
    ----------
    write : callable
        Takes a box and its voxels.
    block : Box
        The block, inside the volume.
    axis : int
        Axis along which planes come: 0, 1 or 2 for z, y or x.
    depth : int
        Planes of a shard; the block starts at a multiple of it.
    """

    def __init__(
        self, write: Callable[[Box, Array], None], block: Box, *, axis: int, depth: int
    ) -> None:
        self._write, self._axis = write, axis
        self._rows = deque(block.cut(axis, depth))
        self._row: Array | None = None
        self._filled = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tilenet-write")
        self._written: Future[None] | None = None

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
                self._wait()
                assert not self._rows, "every plane of the block was added"
        finally:
            self._writer.shutdown()

    def add(self, values: Array) -> None:
        """Take the next planes.

        Parameters
        ----------
        values : ndarray, shape (z, y, x) or (c, z, y, x), the stored dtype
            All of the block in the other axes. They must not be changed afterwards.

        Raises
        ------
        TilenetError, OSError
            When an earlier row could not be written.
        """
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
        # One row is written at a time, so that memory holds two: that one and the next.
        self._wait()
        assert self._row is not None
        self._written = self._writer.submit(self._write, self._rows.popleft(), self._row)
        self._row, self._filled = None, 0

    def _wait(self) -> None:
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def _planes(self, start: int, stop: int | None) -> tuple[Any, ...]:
        planes = slice(start, stop)
        return (..., *(planes if n == self._axis else slice(None) for n in range(3)))
