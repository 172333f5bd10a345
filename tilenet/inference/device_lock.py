"""Which task of a worker computes on its device: one at a time, and none while it waits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType


class DeviceLock:
    """Held by the task that computes; the others of its worker read and write meanwhile.

    A task that has to wait for what it reads or writes lets another one compute, and keeps what its
    network holds from slab to slab. So that this is bounded, only ``streams`` tasks may have begun,
    as the plan counts: where memory is for one alone, the others wait with it.
    """

    def __init__(self, streams: int) -> None:
        self._begun = threading.BoundedSemaphore(streams)
        self._lock = threading.Lock()
        self._holder: int | None = None

    def __enter__(self) -> None:
        self._begun.acquire()
        self._take()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # In this order: one that has begun, and holds memory, comes before one that has not.
        self._give()
        self._begun.release()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Let another task compute for as long as this one waits.

        Whoever did not hold the lock does not hold it afterwards either.
        """
        if self._holder != threading.get_ident():
            yield
            return
        self._give()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        self._lock.acquire()
        self._holder = threading.get_ident()

    def _give(self) -> None:
        self._holder = None
        self._lock.release()
