"""Processes that measure: started once, idle between measurements, all with one environment."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from threading import Barrier
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# glibc hands every large tensor back to the system and faults its pages in anew, which costs up
# to half of an evaluation's time. These settings keep the memory. The baselines and the bare
# passes get them too, so that no ratio is owed to them.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**40),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
}

#: Seconds that a process may lag behind the others before a measurement is given up.
PATIENCE = 300

_barrier: Barrier | None = None


class Pool:
    """Processes that run a function all at once.

    ``threads`` of numerical libraries in each: its environment says so, PyTorch's too.
    """

    def __init__(self, count: int, threads: int) -> None:
        self.count = count
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(
            count, context, initializer=_begin, initargs=(context.Barrier(count),)
        )
        with _environment(threads):
            self.everywhere(os.getpid)  # starts them all: none can take two calls

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown(cancel_futures=True)

    def everywhere(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """Call a function in every process, all starting together."""
        submit: Callable[..., Future[T]] = self._executor.submit
        futures = [submit(_together, function, *args, **kwargs) for _ in range(self.count)]
        return [future.result() for future in futures]

    def alone(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a pool of one process."""
        (result,) = self.everywhere(function, *args, **kwargs)
        return result


def _begin(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _together(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    assert _barrier is not None
    _barrier.wait(PATIENCE)
    return function(*args, **kwargs)


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = dict(os.environ)
    os.environ.update({**ALLOCATOR, **dict.fromkeys(names, str(threads))})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
