"""The input of a block: every voxel read once, forward along one axis, ahead of who computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tilenet.geometry import ZYX, Box, mirrored_index, read_box_of, zyx
from tilenet.inference.mirror_padding import mirror

Array = npt.NDArray[Any]


class Feed:
    """Planes of an input box, mirrored where it leaves the volume.

    A thread reads the next range of planes while the last one is used. What was read is kept until
    no plane that is still to come lies in it. ``read`` gives the stored voxels of a box inside the
    volume, (..., z, y, x); ``granule`` planes are read at once, from multiples of it on; ``wait``
    waits for a Future and gives its result.
    """

    def __init__(
        self,
        read: Callable[[Box], Array],
        input_box: Box,
        volume_shape: ZYX,
        *,
        axis: int,
        granule: int,
        wait: Callable[[Future[Array]], Array] = Future.result,
    ) -> None:
        self._read, self._axis, self._wait = read, axis, wait
        self._input_box, self._volume_shape = input_box, volume_shape
        self._stored = read_box_of(input_box, volume_shape)
        planes = range(input_box.start[axis], input_box.stop[axis])
        # The stored plane behind every plane of the input box, and the lowest still to come.
        self._source = np.array([mirrored_index(n, volume_shape[axis]) for n in planes])
        self._lowest = np.minimum.accumulate(self._source[::-1])[::-1]
        self._to_read = deque(self._stored.cut(axis, granule))
        self._held: deque[tuple[int, Array]] = deque()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="tilenet-read")
        self._ahead: Future[Array] = self._reader.submit(read, self._to_read[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reader.shutdown(cancel_futures=True)

    def planes(self, piece: slice) -> Array:
        """Give a range of planes, counted from the input box; in ascending order only."""
        while self._held and self._held_stop(0) <= self._lowest[piece.start]:
            self._held.popleft()
        source = self._source[piece]
        while not self._held or self._held_stop(-1) <= source.max():
            self._take()
        found, count = self._gather(source), len(source)
        # Along the axis of the planes nothing is left to be mirrored: they are counted from 0.
        shape = [*self._volume_shape]
        shape[self._axis] = count
        return mirror(
            found,
            self._stored.with_range(self._axis, 0, count),
            input_box=self._input_box.with_range(self._axis, 0, count),
            volume_shape=zyx(shape),
        )

    def _held_stop(self, index: int) -> int:
        start, values = self._held[index]
        return start + int(values.shape[self._axis - 3])

    def _take(self) -> None:
        box = self._to_read.popleft()
        self._held.append((box.start[self._axis], self._wait(self._ahead)))
        if self._to_read:
            self._ahead = self._reader.submit(self._read, self._to_read[0])

    def _gather(self, source: npt.NDArray[np.int_]) -> Array:
        dimension = self._axis - 3
        if len(self._held) == 1 and np.all(np.diff(source) == 1):
            start = int(source[0]) - self._held[0][0]
            whole: Array = self._held[0][1][self._along(slice(start, start + len(source)))]
            return whole
        first = self._held[0][1]
        shape = [*first.shape]
        shape[dimension] = len(source)
        found = np.empty(shape, first.dtype)
        for start, values in self._held:
            here = np.flatnonzero((source >= start) & (source < start + values.shape[dimension]))
            if len(here):
                taken = values[self._along(_as_slice(source[here] - start))]
                found[self._along(_as_slice(here))] = taken
        return found

    def _along(self, index: slice | npt.NDArray[np.int_]) -> tuple[Any, ...]:
        return (..., *(index if n == self._axis else slice(None) for n in range(3)))


def _as_slice(indices: npt.NDArray[np.int_]) -> slice | npt.NDArray[np.int_]:
    # Slices copy several times faster than lists of indices.
    first, last = int(indices[0]), int(indices[-1])
    return slice(first, last + 1) if np.all(np.diff(indices) == 1) else indices
