"""Measuring time on a device, whose work is queued, and on the host that queues it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True, slots=True)
class Rate:
    """Seconds of one piece of work, and the share of them that the host took to queue it."""

    seconds: float
    host_share: float


def measure(work: Callable[[], Any], device: torch.device, seconds: float) -> Rate:
    """Repeat some work for about so long, and give the mean; it was done once before."""
    _repeat(work, 1, device)
    once = _repeat(work, 1, device)
    return (
        once if once.seconds > seconds else _repeat(work, math.ceil(seconds / once.seconds), device)
    )


def _repeat(work: Callable[[], Any], count: int, device: torch.device) -> Rate:
    start = time.perf_counter()
    for _ in range(count):
        work()
    queued = time.perf_counter() - start
    synchronize(device)
    total = time.perf_counter() - start
    return Rate(total / count, queued / total)


@dataclass
class Stopwatch:
    """Adds up the seconds that the host spends on something."""

    seconds: float = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count what is inside."""
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start


@dataclass
class Busy:
    """Adds up the seconds that a device spends between the kernels that are queued inside.

    What the device waits for there, because the host queues too slowly, counts as busy; the share
    of the time that the host needs for queueing tells whether that may be so.
    """

    device: torch.device
    host: Stopwatch = field(default_factory=Stopwatch)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Count the kernels that are queued inside on the current stream."""
        with self.host.running():
            if self.device.type == "cuda":
                before, after = (torch.Event(self.device, enable_timing=True) for _ in range(2))
                before.record()
                yield
                after.record()
                self.pairs.append((before, after))
            else:
                yield

    def seconds(self) -> float:
        """Give the sum; waits for the device."""
        if self.device.type != "cuda":
            return self.host.seconds
        synchronize(self.device)
        return float(sum(before.elapsed_time(after) for before, after in self.pairs)) / 1e3
