"""Blocks that are to be done: fresh ones, and those that are tried again, when and where not."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tilenet.geometry import Box

#: Seconds before a block is tried again, by the tries that it had; the last for all further ones.
#: Three tries within milliseconds would end a block for what passes in a second.
WAITS = (1.0, 4.0)

#: By how much waits differ, so that blocks that failed together do not come back together.
CHANCE = 0.25

#: Blocks that wait for their next try, at most; no fresh one is begun until some have had it.
MOST_WAITING = 1000


#: Blocks that one is drawn of by chance, to see whether any can be done.
DRAWN = 64


@dataclass(frozen=True)
class Failure:
    """A try that failed."""

    why: str  # the error
    worker: str | None = None  # address of the worker that it was on; None where that is not known


@dataclass(eq=False)
class Work:
    """A block, and the tries that it had."""

    box: Box  # the block
    failures: list[Failure] = field(default_factory=list)  # its tries that count
    # Addresses of workers that it is not sent to again where there are others.
    avoided: set[str] = field(default_factory=set)
    # Addresses of the workers that it was sent to; empty where any may take it.
    places: tuple[str, ...] = ()
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
    """What is to be done and not in flight.

    Parameters
    ----------
    blocks : iterator of Box
        Fresh blocks; drawn as the work proceeds.
    clock : callable
        Gives seconds.
    """

    def __init__(self, blocks: Iterator[Box], clock: Callable[[], float] = time.monotonic) -> None:
        self._blocks, self._clock = blocks, clock
        self._waiting: list[tuple[float, Work]] = []
        self._drawn = False

    @property
    def over(self) -> bool:
        """Whether nothing is left: no fresh block, and none that waits."""
        return self._drawn and not self._waiting

    @property
    def waiting(self) -> list[Work]:
        """Those that wait for their next try, or were taken back."""
        return [work for _, work in self._waiting]

    def put_off(self, work: Work) -> None:
        """Have a block tried again after a while."""
        wait = WAITS[min(max(1, len(work.failures)), len(WAITS)) - 1]
        wait *= random.uniform(1 - CHANCE, 1 + CHANCE)  # noqa: S311
        self._waiting.append((self._clock() + wait, work))

    def put_back(self, work: Work) -> None:
        """Have a block done without a wait: it was not its own fault that it was not."""
        self._waiting.append((self._clock(), work))

    def take(self, count: int) -> list[Work]:
        """Give what is to be begun now: those whose wait is over first."""
        now, taken, rest = self._clock(), list[Work](), list[tuple[float, Work]]()
        for due, work in self._waiting:
            if due <= now and len(taken) < count:
                taken.append(work)
            else:
                rest.append((due, work))
        self._waiting = rest
        return taken + self._fresh(min(count - len(taken), MOST_WAITING - len(rest)))

    def take_one(self, *, untried: bool) -> list[Work]:
        """Give one, whatever its wait, to see whether any can be done."""
        if untried or not self._waiting:  # neighbours may be damaged together, so one of many
            for work in self._fresh(DRAWN - sum(not work.tried for work in self.waiting)):
                self.put_back(work)
        fitting = [n for n, (_, work) in enumerate(self._waiting) if work.tried != untried]
        if not self._waiting:
            return []
        n = random.choice(fitting or range(len(self._waiting)))  # noqa: S311
        return [self._waiting.pop(n)[1]]

    def hurry(self) -> None:
        """End all waits: what was away is back."""
        self._waiting = [(min(due, self._clock()), work) for due, work in self._waiting]

    def _fresh(self, count: int) -> list[Work]:
        if count <= 0:
            return []
        found = [Work(box) for box in itertools.islice(self._blocks, count)]
        self._drawn = len(found) < count
        return found
