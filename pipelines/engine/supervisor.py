"""Limits of a run on a cluster: blocks that hang, workers that die, workers that are too small.

The scheduler is asked now and then which blocks are where, and it tells of every worker that it
loses. Time is counted in looks and not by anyone's clock: a machine that slept, or a command that
was held, has not been waiting.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from distributed import Client

from pipelines.cluster import (
    OUTAGE_SECONDS,
    SILENT_SECONDS,
    JobCluster,
    WorkerState,
    nanny_log_tail,
    patience,
    remove,
    replace,
    survey,
)
from pipelines.engine.unfit import Unfit
from pipelines.progress import LINE_SECONDS, clock
from tilenet.errors import (
    BlockHung,
    TilenetError,
    WorkerDied,
    WorkerOverMemory,
    WorkersDied,
    WorkersGone,
    WorkerTooSmall,
)

#: Seconds in which a worker has to finish some block where nothing is known of their length.
HOUR = 3600.0

#: So many times what a block is expected to last it may last, and so many seconds at least: rates
#: are guesses before they are measured, and a first block loads libraries and the network.
GENEROUS, AT_LEAST = 10.0, 600.0

#: Seconds between two looks at the workers, at most; and looks within a limit, at least.
LOOK_SECONDS, LOOKS = 2.0, 8

#: Workers that may die while they compute a block until it is given up. A preempted worker is no
#: fault of its block; six in a row are.
DEATHS = 6

#: Workers that may die until one block is finished: so many, or so many times as many as there are.
DEATHS_IN_A_ROW, DEATHS_PER_WORKER = 12, 3

_MEMORY = "worker-restart-memory"  # Dask's own word for it


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may take.

    Parameters
    ----------
    block : float
        Seconds in which a worker that computes has to finish some block.
    memory : int
        Bytes that a worker has to have.
    outage : float
        Seconds that the run waits in all while block after block fails.
    """

    block: float = HOUR
    memory: int = 0
    outage: float = OUTAGE_SECONDS

    @classmethod
    def expecting(
        cls, seconds: float, *, timeout: float | None, memory: int, outage: float = OUTAGE_SECONDS
    ) -> Self:
        """Give the limits of a run whose blocks are expected to last so long."""
        block = timeout or max(AT_LEAST, GENEROUS * seconds)
        return cls(block=block, memory=memory, outage=outage)


@dataclass(frozen=True)
class Verdict:
    """Why a block is taken from its worker."""

    error: TilenetError  # what happened
    final: bool = False  # whether it is not to be tried again


@dataclass
class _Pace:
    # How long a worker has finished nothing, and how long each of its blocks has been computed.
    quiet: float = 0.0
    ages: dict[str, float] = field(default_factory=dict)


class Keeper:
    """Keeps the limits of one run.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    limits : Limits
        What the run may take.
    note : callable
        Says a line to the user.
    resources : frozenset of str
        Names of Dask's resources that a block takes.
    """

    def __init__(
        self, client: Client, limits: Limits, note: Callable[[str], None],
        resources: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.client, self.limits, self.note, self.resources = client, limits, note, resources
        self._pause = min(LOOK_SECONDS, limits.block / LOOKS)
        self._looked: float | None = None
        self._paces: dict[str, _Pace] = {}
        self._known: dict[str, WorkerState] = {}
        self._there: list[WorkerState] = []
        self._most = self._in_a_row = 0
        self._deaths: Counter[str] = Counter()
        self._over: dict[str, int] = {}
        self._events: deque[dict[str, Any]] = deque()
        self._alone, self._alone_said = 0.0, 0.0
        self._hung: list[WorkerState] = []
        self.unfit = Unfit(client, note)

    def __enter__(self) -> Self:
        for topic in ("all", _MEMORY):
            self.client.subscribe_topic(topic, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.client.status == "running":
            for topic in ("all", _MEMORY):
                self.client.unsubscribe_topic(topic)

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        # In the client's own thread.
        _, told = event
        if "rss" in told or told.get("action") == "remove-worker":
            self._events.append(told)

    def finished(self) -> None:
        """Note that a block was finished: workers do not die in vain."""
        self._in_a_row = 0
        self.unfit.finished()

    def label(self, worker: str) -> str:
        """Say which worker it is, for messages."""
        name = self._known[worker].name if worker in self._known else worker
        return worker if name == worker else f"{worker} ({name})"

    def others(self, avoided: Container[str]) -> list[str]:
        """Give the workers that take blocks, without some."""
        return [
            worker.address
            for worker in self._there
            if worker.running
            and self.resources <= worker.resources
            and worker.address not in avoided
            and worker.address not in self.unfit
        ]

    def computes(self, key: str) -> bool:
        """Tell whether a worker computes a block: also one that takes no further ones does."""
        return any(key in worker.executing for worker in self._there)

    def send_away(self, worker: str, why: str, *, for_good: bool) -> None:
        """Send a worker away that computes no block, once, and say why."""
        if worker not in self._known:  # it failed before the first look
            self._known |= {seen.address: seen for seen in survey(self.client)}
        unknown = WorkerState(worker, worker, 1, 0, 0.0, frozenset(), frozenset())
        seen = self._known.get(worker, unknown)
        self.unfit.send_away(seen, why, for_good=for_good, there=self._there)

    def hold(self, held: bool) -> None:
        """Have jobs kept that have nothing to do because the run is paused."""
        if isinstance(getattr(self.client, "cluster", None), JobCluster):
            self.client.cluster.held = held

    def look(
        self, flying: Callable[[], Sequence[str]], *, paused: bool = False
    ) -> dict[str, Verdict]:
        """Say which blocks are to be taken from their workers; then :meth:`replace` those."""
        verdicts: dict[str, Verdict] = {}
        while self._events:
            verdicts |= self._bury(self._events.popleft(), flying)
        now = time.monotonic()
        if self._looked is None or now - self._looked >= self._pause:
            elapsed = 0.0 if self._looked is None else min(now - self._looked, 2 * self._pause)
            self._looked = now
            workers = self._there = survey(self.client)
            self._known |= {worker.address: worker for worker in workers}
            self._most = max(self._most, len(workers))
            own = flying()
            # One that offers no GPU takes none of our blocks.
            self.unfit.check([w.address for w in workers if self.resources <= w.resources])
            self._check_served(workers, own, elapsed)
            for worker in self._fitting(workers):
                verdicts |= self._time(worker, own, 0.0 if paused else elapsed)
        return verdicts

    # -- workers that die -------------------------------------------------------------------------

    def _bury(
        self, told: dict[str, Any], flying: Callable[[], Sequence[str]]
    ) -> dict[str, Verdict]:
        worker = told["worker"]
        if "rss" in told:
            self._over[worker] = told["rss"]
            return {}
        self._paces.pop(worker, None)
        given = [key for key in flying() if key in told["processing-tasks"]]
        # One that we sent away may be ended by its nanny, which the scheduler does not expect.
        excused = worker in self.unfit.excused
        self.unfit.excused.discard(worker)
        if told["expected"] or not given or excused:
            return {}
        suspects = self._computed(worker, given)
        error = self._why(worker)
        said = error.message() if isinstance(error, WorkerOverMemory) else f"worker {worker} died"
        self.note(f"{_block(suspects[0])} and what else ran there goes elsewhere: {said}")
        self._count(said)
        self._deaths.update(_block(key) for key in suspects)
        if isinstance(error, WorkerOverMemory):
            return {key: Verdict(error) for key in suspects}
        gone = [key for key in suspects if self._deaths[_block(key)] >= DEATHS]
        return {key: Verdict(WorkerDied(worker, DEATHS), final=True) for key in gone}

    def _computed(self, worker: str, given: Sequence[str]) -> list[str]:
        # What it said that it computed it still did; else it computed what it was given first. The
        # rest waited, and is not to blame.
        known = [self._known[worker]] if worker in self._known else list(self._known.values())
        said = frozenset().union(*(seen.executing for seen in known))
        threads = max((seen.threads for seen in known), default=1)
        return sorted(given, key=lambda key: key not in said)[:threads]

    def _count(self, last: str) -> None:
        self._in_a_row += 1
        if self._in_a_row >= max(DEATHS_IN_A_ROW, DEATHS_PER_WORKER * self._most):
            raise WorkersDied(self._in_a_row, last, nanny_log_tail())

    def _why(self, worker: str) -> WorkerOverMemory | WorkerDied:
        if (used := self._over.pop(worker, None)) is None:
            return WorkerDied(worker, 1)
        known = [self._known[worker]] if worker in self._known else list(self._known.values())
        return WorkerOverMemory(worker, used, min((seen.memory for seen in known), default=0))

    def _check_served(
        self, workers: Sequence[WorkerState], own: Sequence[str], elapsed: float
    ) -> None:
        if not own or any(not seen.processing.isdisjoint(own) for seen in workers):
            self._alone = self._alone_said = 0.0
            return
        self._alone += elapsed
        lack, limit = self._lack(workers), patience(self.client)
        if lack and self._alone >= limit:
            raise WorkersGone(lack, clock(self._alone), nanny_log_tail())
        if self._alone - self._alone_said < LINE_SECONDS:
            return
        self._alone_said = self._alone
        if not lack:  # nothing to give up: ours wait for their turn
            self.note(f"All workers compute what others sent; waiting, {clock(self._alone)}")
        elif math.isfinite(limit):  # jobs tell of themselves
            self.note(f"No worker {lack}; waiting, {clock(self._alone)} of {clock(limit)}")

    def _lack(self, workers: Sequence[WorkerState]) -> str:
        # What no worker is or does, so that none takes a block; empty where they are busy.
        if not workers:
            return "is left"
        offering = [seen for seen in workers if self.resources <= seen.resources]
        if not offering:
            return f"offers {' and '.join(sorted(self.resources))}"
        if not any(seen.running for seen in offering):
            return "takes blocks (all are paused or about to end)"
        return ""

    # -- workers that are too small ---------------------------------------------------------------

    def _fitting(self, workers: Sequence[WorkerState]) -> list[WorkerState]:
        small = [worker for worker in workers if 0 < worker.memory < self.limits.memory]
        if small:
            remove(self.client, [worker.address for worker in small])
        for worker in small:
            cure = "It was sent away; start workers with more (--memory-limit)."
            error = WorkerTooSmall(worker.address, self.limits.memory, worker.memory, cure)
            self.note(error.message())
        return [worker for worker in workers if worker not in small]

    # -- blocks that hang -------------------------------------------------------------------------

    def _time(self, worker: WorkerState, own: Sequence[str], elapsed: float) -> dict[str, Verdict]:
        pace, limit = self._paces.setdefault(worker.address, _Pace()), self.limits.block
        computed = worker.executing & worker.processing
        if worker.silent > SILENT_SECONDS or not computed:
            # It did not say, and would compute what it was given first.
            given = [key for key in own if key in worker.processing]
            computed = frozenset(given[: worker.threads])
        # Blocks of a worker share its device in turns. So the time that counts is that in which it
        # finished none of them, and for one alone as many times the limit as take turns with it.
        goes_on = bool(pace.ages) and pace.ages.keys() <= worker.processing
        pace.quiet = pace.quiet + elapsed if goes_on else 0.0
        ours = computed.intersection(own)
        pace.ages = {key: pace.ages[key] + elapsed if key in pace.ages else 0.0 for key in ours}
        allowed = limit if pace.quiet > limit else limit * worker.threads
        hung = {key for key, age in pace.ages.items() if age > allowed}
        if not hung:
            return {}
        waited = max(pace.ages[key] for key in hung)
        error = BlockHung(f"{worker.address} ({worker.name})", clock(waited), clock(limit))
        for key in sorted(hung):
            self.note(f"{_block(key)}: {error.message()}")
        self._hung.append(worker)
        return {key: Verdict(error) for key in hung}

    def replace(self) -> None:
        """End the workers that hang, and have them replaced."""
        while self._hung:
            worker = self._hung.pop()
            del self._paces[worker.address]
            replace(self.client, worker.address, worker.name)
            self._count(f"{worker.address} hung")


def _block(key: str) -> str:
    return key.rsplit("-try", 1)[0]
