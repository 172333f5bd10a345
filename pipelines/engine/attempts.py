"""Blocks that are to be done: fresh ones, and those that are tried again, when and where not."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tilenet.errors import TilenetError
from tilenet.geometry import Box

#: Seconds before a block is tried again, by the tries that it had; the last for all further ones.
#: Three tries within milliseconds would end a block for what passes in a second.
RETRY_DELAYS = (1.0, 4.0)

#: By how much delays differ, so that blocks that failed together do not come back together.
JITTER = 0.25

#: Blocks that wait for their next try, at most; no fresh one is begun until some have had it.
MAX_WAITING = 1000

#: Blocks that one is drawn of by chance, to see whether any can be done.
PROBE_CANDIDATES = 64


@dataclass(frozen=True)
class Failure:
    why: str  # the error
    worker: str | None = None  # address of the worker that it was on; None where that is not known


@dataclass(frozen=True)
class Reassignment:
    """Why a block is taken from its worker, which counts as a failed try."""

    error: TilenetError  # what happened
    final: bool = False  # whether it is not to be tried again


@dataclass(eq=False)
class Work:
    """A block, and the tries that it had."""

    box: Box  # the block
    failures: list[Failure] = field(default_factory=list)  # its tries that count
    # Addresses of workers that it is not sent to again where there are others.
    avoided: set[str] = field(default_factory=set)
    # Addresses of the workers that it was sent to; empty where any may take it.
    sent_to: tuple[str, ...] = ()
    tried: bool = False  # whether it has failed before, whatever counts of that
    # Numbers of the outages that it was forgiven tries for.
    outages: set[int] = field(default_factory=set)

    def fail(self, failure: Failure) -> None:
        """Count a try that failed."""
        self.failures.append(failure)
        self.tried = True
        if failure.worker is not None:
            self.avoided.add(failure.worker)

    def forgive(self, worker: str) -> None:
        """Count no try that failed on a worker, for that was the worker's fault."""
        self.failures = [failure for failure in self.failures if failure.worker != worker]


class Backlog:
    """What is to be done and not in flight; fresh blocks are drawn as the work proceeds."""

    def __init__(self, blocks: Iterator[Box], clock: Callable[[], float] = time.monotonic) -> None:
        self._blocks, self._clock = blocks, clock
        self._waiting: list[tuple[float, Work]] = []  # seconds of the clock when it may begin
        self._all_drawn = False

    @property
    def empty(self) -> bool:
        """Whether nothing is left: no fresh block, and none that waits."""
        return self._all_drawn and not self._waiting

    @property
    def waiting(self) -> list[Work]:
        """Those that wait for their next try, or were taken back."""
        return [work for _, work in self._waiting]

    def retry_later(self, work: Work) -> None:
        """Have a block tried again after a while."""
        delay = RETRY_DELAYS[min(max(1, len(work.failures)), len(RETRY_DELAYS)) - 1]
        delay *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        self._waiting.append((self._clock() + delay, work))

    def requeue(self, work: Work) -> None:
        """Have a block done without a wait: it was not its own fault that it was not."""
        self._waiting.append((self._clock(), work))

    def take(self, count: int) -> list[Work]:
        """Give what is to be begun now, so many at most: those whose wait is over first."""
        now, taken, rest = self._clock(), list[Work](), list[tuple[float, Work]]()
        for due, work in self._waiting:
            if due <= now and len(taken) < count:
                taken.append(work)
            else:
                rest.append((due, work))
        self._waiting = rest
        return taken + self._fresh(min(count - len(taken), MAX_WAITING - len(rest)))

    def take_probe(self, *, untried: bool) -> list[Work]:
        """Give one by chance, whatever its wait, to see whether any can be done.

        Rather an untried one where all that failed may be damaged; else one that failed: done by
        another worker, it says something of those that it failed on.
        """
        if untried or not self._waiting:  # neighbours may be damaged together, so one of many
            fresh = sum(not work.tried for work in self.waiting)
            for work in self._fresh(PROBE_CANDIDATES - fresh):
                self.requeue(work)
        if not self._waiting:
            return []
        fitting = [n for n, (_, work) in enumerate(self._waiting) if work.tried != untried]
        n = random.choice(fitting or range(len(self._waiting)))  # noqa: S311
        return [self._waiting.pop(n)[1]]

    def end_waits(self) -> None:
        """Have all blocks tried at once: what was away is back."""
        self._waiting = [(min(due, self._clock()), work) for due, work in self._waiting]

    def _fresh(self, count: int) -> list[Work]:
        if count <= 0:
            return []
        found = [Work(box) for box in itertools.islice(self._blocks, count)]
        self._all_drawn = len(found) < count
        return found
