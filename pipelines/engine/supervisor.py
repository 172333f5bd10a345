"""Which blocks are to be taken from their workers, because these hang, died or are too small.

The scheduler is asked now and then which blocks are where, and it tells of every worker that it
loses. Time is counted in looks and not by anyone's clock: a machine that slept, or a command that
was held, has not been waiting.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

from distributed import Client

from pipelines.cluster import (
    JobCluster,
    WorkerState,
    nanny_log_tail,
    patience,
    remove,
    replace,
    survey,
)
from pipelines.engine.attempts import Reassignment
from pipelines.engine.deaths import Deaths
from pipelines.engine.hangs import HangDetector
from pipelines.engine.in_flight import block_of
from pipelines.engine.limits import Limits
from pipelines.engine.unfit import UnfitWorkers, worker_label
from pipelines.progress import LINE_SECONDS, clock
from tilenet.errors import BlockHung, WorkersGone, WorkerTooSmall

#: Seconds between two looks at the workers, at most; and looks within a limit, at least.
LOOK_SECONDS, LOOKS = 2.0, 8

#: Gives the keys of our blocks in flight, in the order of submission.
Keys = Callable[[], Sequence[str]]

# What Dask calls the news of workers: of all kinds, and of those that take too much memory.
_TOPICS = ("all", "worker-restart-memory")


class Supervisor:
    """Looks at the workers of one run, and keeps its limits.

    ``note`` says a line to the user; ``resources`` are the names of Dask's resources that a block
    takes.
    """

    def __init__(
        self, client: Client, limits: Limits, note: Callable[[str], None],
        resources: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.client, self.limits, self.note, self.resources = client, limits, note, resources
        self._interval = min(LOOK_SECONDS, limits.block / LOOKS)
        self._last_look: float | None = None
        self._events: deque[dict[str, Any]] = deque()
        self._known: dict[str, WorkerState] = {}  # as last seen, also of those that left
        self._present: list[WorkerState] = []  # at the last look
        self._most = 0  # workers that there were at most
        self._unserved = self._unserved_noted = 0.0  # seconds in which no worker had a block
        self._hung: list[WorkerState] = []
        self._hangs, self._deaths = HangDetector(limits.block), Deaths(note)
        self.unfit = UnfitWorkers(client, note)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of every worker that the scheduler loses, until the run ends."""
        for topic in _TOPICS:
            self.client.subscribe_topic(topic, self._hear)
        try:
            yield
        finally:
            self.keep_idle_jobs(False)
            if self.client.status == "running":
                for topic in _TOPICS:
                    self.client.unsubscribe_topic(topic)

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        # In the client's own thread.
        _, news = event
        if "rss" in news or news.get("action") == "remove-worker":
            self._events.append(news)

    def block_finished(self) -> None:
        """Note that a block was finished: some worker is fit."""
        self._deaths.block_finished()
        self.unfit.block_finished()

    def label(self, worker: str) -> str:
        """Say which worker it is, for messages."""
        return worker_label(self._known[worker]) if worker in self._known else worker

    def eligible(self, avoided: Container[str] = ()) -> list[str]:
        """Give the addresses of workers that take blocks, without some, as at the last look."""
        return [
            worker.address
            for worker in self._present
            if worker.running
            and self.resources <= worker.resources
            and worker.address not in avoided
            and worker.address not in self.unfit
        ]

    def is_computed(self, key: str) -> bool:
        """Tell whether a worker computes a block: also one that takes no further ones does."""
        return any(key in worker.executing for worker in self._present)

    def remove_unfit(self, worker: str, why: str, *, for_good: bool) -> None:
        """Send a worker away that computes no block, once, and say why.

        ``for_good`` says that another process on the same machine would fail as well.
        """
        if worker not in self._known:  # it failed before the first look
            self._known |= {state.address: state for state in survey(self.client)}
        unknown = WorkerState(worker, worker, 1, 0, 0.0, frozenset(), frozenset())
        state = self._known.get(worker, unknown)
        self.unfit.remove(state, why, for_good=for_good, present=self._present)

    def keep_idle_jobs(self, keep: bool) -> None:
        """Have jobs kept that have nothing to do, because the run is paused; or no longer."""
        if isinstance(getattr(self.client, "cluster", None), JobCluster):
            self.client.cluster.held = keep

    def check(self, in_flight: Keys, *, paused: bool = False) -> dict[str, Reassignment]:
        """Say which blocks are to be taken from their workers; then :meth:`replace_hung` those.

        The time of a pause is no block's. Ends the run where workers die one after another, or
        none takes blocks.
        """
        taken: dict[str, Reassignment] = {}
        while self._events:
            news = self._events.popleft()
            if "rss" in news:
                self._deaths.over_memory(news["worker"], news["rss"])
            else:
                taken |= self._on_worker_lost(news, in_flight)
        now = time.monotonic()
        if self._last_look is not None and now - self._last_look < self._interval:
            return taken
        elapsed = 0.0 if self._last_look is None else min(now - self._last_look, 2 * self._interval)
        self._last_look = now
        workers = self._present = survey(self.client)
        self._known |= {worker.address: worker for worker in workers}
        self._most = max(self._most, len(workers))
        own = in_flight()
        # One that offers no GPU takes none of our blocks.
        self.unfit.check([w.address for w in workers if self.resources <= w.resources])
        self._check_served(workers, own, elapsed)
        for worker in workers:
            if 0 < worker.memory < self.limits.memory:
                self._remove_small(worker)
            else:
                taken |= self._check_hung(worker, own, 0.0 if paused else elapsed)
        return taken

    # -- workers that die -------------------------------------------------------------------------

    def _on_worker_lost(self, news: dict[str, Any], in_flight: Keys) -> dict[str, Reassignment]:
        worker = news["worker"]
        self._hangs.forget(worker)
        given = [key for key in in_flight() if key in news["processing-tasks"]]
        # One that we sent away may be ended by its nanny, which the scheduler does not expect.
        if self.unfit.excuses_death(worker) or news["expected"] or not given:
            return {}
        known = [self._known[worker]] if worker in self._known else list(self._known.values())
        return self._deaths.died(worker, given, known, self._most)

    # -- blocks that no worker takes --------------------------------------------------------------

    def _check_served(
        self, workers: Sequence[WorkerState], own: Sequence[str], elapsed: float
    ) -> None:
        if not own or any(not worker.processing.isdisjoint(own) for worker in workers):
            self._unserved = self._unserved_noted = 0.0
            return
        self._unserved += elapsed
        lack, limit = self._lack(workers), patience(self.client)
        if lack and self._unserved >= limit:
            raise WorkersGone(lack, clock(self._unserved), nanny_log_tail())
        if self._unserved - self._unserved_noted < LINE_SECONDS:
            return
        self._unserved_noted = self._unserved
        waited = clock(self._unserved)
        if not lack:  # nothing to give up: ours wait for their turn
            self.note(f"All workers compute what others sent; waiting, {waited}")
        elif math.isfinite(limit):  # jobs tell of themselves
            self.note(f"No worker {lack}; waiting, {waited} of {clock(limit)}")

    def _lack(self, workers: Sequence[WorkerState]) -> str:
        # What no worker is or does, so that none takes a block; empty where they are busy.
        if not workers:
            return "is left"
        offering = [worker for worker in workers if self.resources <= worker.resources]
        if not offering:
            return f"offers {' and '.join(sorted(self.resources))}"
        if not any(worker.running for worker in offering):
            return "takes blocks (all are paused or about to end)"
        return ""

    # -- workers that are too small ---------------------------------------------------------------

    def _remove_small(self, worker: WorkerState) -> None:
        remove(self.client, [worker.address])
        cure = "It was sent away; start workers with more (--memory-limit)."
        error = WorkerTooSmall(worker.address, self.limits.memory, worker.memory, cure)
        self.note(error.message())

    # -- blocks that hang -------------------------------------------------------------------------

    def _check_hung(
        self, worker: WorkerState, own: Sequence[str], elapsed: float
    ) -> dict[str, Reassignment]:
        hung = self._hangs.hung(worker, own, elapsed)
        if not hung:
            return {}
        label, waited = f"{worker.address} ({worker.name})", clock(max(hung.values()))
        error = BlockHung(label, waited, clock(self.limits.block))
        for key in sorted(hung):
            self.note(f"{block_of(key)}: {error.message()}")
        self._hung.append(worker)
        return dict.fromkeys(hung, Reassignment(error))

    def replace_hung(self) -> None:
        """End the workers that hang, and have them replaced."""
        while self._hung:
            worker = self._hung.pop()
            self._hangs.forget(worker.address)
            replace(self.client, worker.address, worker.name)
            self._deaths.count(f"{worker.address} hung", self._most)
