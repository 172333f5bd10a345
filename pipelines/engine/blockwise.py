"""The engine on a Dask cluster: what the plain loop does, with blocks in flight and no block lost.

A bounded number of blocks is in flight, so that a million blocks cost the scheduler as little as a
hundred. A block that fails is tried again after a while, on another worker where there is one.
Faults of a worker cost no try (:mod:`pipelines.engine.suspects`), and neither does what is away for
a while (:mod:`pipelines.engine.outages`).

Resume is not the engine's business: it is given the blocks that are missing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence

from distributed import Client, Future, KilledWorker

from pipelines.cluster import ask, whereabouts
from pipelines.engine.attempts import Failure, Reassignment, Work
from pipelines.engine.in_flight import InFlight
from pipelines.engine.loop import BlockRun
from pipelines.engine.outages import is_transient
from pipelines.engine.outcome import Outcome, RunOptions, Task
from pipelines.engine.supervisor import Supervisor
from pipelines.engine.suspects import Suspects
from pipelines.progress import error_text
from tilenet.errors import DeviceUnavailable, InvalidData, WorkerUnfit
from tilenet.geometry import Box
from tilenet.worker import BlockReport

#: Blocks in flight: per task slot one running and one waiting so that no slot idles, and at least
#: so many that short blocks travel in batches.
WINDOW_PER_SLOT, WINDOW = 2, 64

#: Seconds between two counts of the cluster's task slots.
COUNT_SECONDS = 5.0

#: Errors that are the worker's own, whatever its block is: another kind of device or other
#: versions than the run began with, or no such device.
WORKER_ERRORS = (WorkerUnfit, DeviceUnavailable)


def run_on_cluster(
    task: Task, blocks: Iterable[Box], options: RunOptions, *, client: Client
) -> Outcome:
    """Run a task over blocks on a Dask cluster.

    Parameters
    ----------
    task : callable
        Takes a box and returns a report; picklable.
    blocks : iterable of Box
        What to do; read as the work proceeds.
    options : RunOptions
    client : distributed.Client

    Returns
    -------
    Outcome
        With every block either computed or failed, unless it was stopped.

    Raises
    ------
    WorkersDied, WorkersGone, WorkersUnfit
        When worker after worker dies, none takes blocks, or none can compute one.
    OutageLasted
        When block after block fails for longer than the user waits.
    SchedulerLost
        When the scheduler does not answer.
    """
    return _ClusterRun(task, blocks, options, client).complete()


class _ClusterRun(BlockRun):
    def __init__(
        self, task: Task, blocks: Iterable[Box], options: RunOptions, client: Client
    ) -> None:
        super().__init__(blocks, options)
        self.client = client
        self.in_flight = InFlight(client, task, options)
        self.killed: list[Future] = []  # those whose workers all died, as Dask says
        self.slots, self.counted = 0, -math.inf
        self.draining = False
        self.suspects = Suspects()
        self.supervisor = Supervisor(
            client, options.limits, options.reporter.note, frozenset(options.resources or ())
        )

    def compute(self) -> None:
        try:
            with self.supervisor.listening():
                self._compute()
        finally:
            if self.client.status == "running":
                self.in_flight.cancel(list(self.in_flight.works))

    def _compute(self) -> None:
        while True:
            if not self.options.stop:
                self._submit(self.next_works(max(0, self._window() - len(self.in_flight))))
            elif not self.draining:
                self._drain()
            if not self.in_flight:
                if self.options.stop or self.backlog.empty:
                    return
                if self.breaker.error is not None:
                    raise self.breaker.error
            ended = self.in_flight.wait()
            if self.client.status != "running":
                # Its futures are cancelled already, and asking it anything would only wait.
                raise ConnectionError("the connection to the scheduler was lost")
            self._settle(ended)
            self.supervisor.keep_idle_jobs(self.breaker.open)
            paused = self.breaker.paused
            self._reassign(self.supervisor.check(self.in_flight.keys, paused=paused))
            self._requeue_stranded()

    # -- blocks that begin ------------------------------------------------------------------------

    def _window(self) -> int:
        # Asked anew now and then: workers come and go.
        if time.monotonic() - self.counted >= COUNT_SECONDS:
            self.slots = sum(ask(self.client, self.client.nthreads).values())
            self.counted = time.monotonic()
        return max(WINDOW, WINDOW_PER_SLOT * self.slots)

    def _submit(self, works: Sequence[Work]) -> None:
        # Nearly always one group: of blocks that may go to any worker.
        groups: dict[tuple[str, ...], list[Work]] = {}
        for work in works:
            groups.setdefault(self._workers_for(work), []).append(work)
        for workers, group in groups.items():
            self.in_flight.submit(group, workers)

    def _workers_for(self, work: Work) -> tuple[str, ...]:
        # During an outage it is a probe.
        if not (work.avoided or self.breaker.open):
            return ()
        # Not to one that has failed others meanwhile either, if it need not be.
        careful = self.supervisor.eligible(work.avoided | self.suspects.workers)
        return tuple(careful or self.supervisor.eligible(work.avoided))

    # -- blocks that ended ------------------------------------------------------------------------

    def _settle(self, ended: Sequence[Future]) -> None:
        self._requeue([future for future in self.killed if future in self.in_flight.works])
        results = self.in_flight.results(ended)
        # Those of workers that died; whether by their own fault, the supervisor decides, which may
        # hear of the last of them only now.
        self.killed = [f for f, result in results.items() if isinstance(result, KilledWorker)]
        where = self._where(results)
        opened = False
        # Those that ended well first: what is away is back then.
        for future in sorted(results, key=lambda f: not isinstance(results[f], BlockReport)):
            result = results[future]
            if isinstance(result, KilledWorker):
                continue
            work, worker = self.in_flight.pop(future), where.get(future.key)
            if isinstance(result, BlockReport):
                self.supervisor.block_finished()
                self.suspects.block_finished(worker, work)
                self.block_finished(work, result)
            else:
                opened = self._on_error(work, result, worker) or opened
        for worker, why in self.suspects.take_bad().items():
            self.supervisor.remove_unfit(worker, why, for_good=False)
            for work in (*self.backlog.waiting, *self.in_flight.works.values()):
                work.forgive(worker)
        if opened:
            self._on_outage()

    def _where(self, results: Mapping[Future, BlockReport | BaseException]) -> Mapping[str, str]:
        # Asked only when it matters: nearly always all goes well.
        if self.suspects or not all(isinstance(r, BlockReport) for r in results.values()):
            return whereabouts(self.client, [future.key for future in results])
        return {}

    def _on_error(self, work: Work, error: BaseException, worker: str | None) -> bool:
        why = error_text(error)
        if worker is not None and isinstance(error, WORKER_ERRORS):
            reason = f"{error.problem}. {error.cure}" if isinstance(error, WorkerUnfit) else why
            work.avoided.add(worker)
            self.supervisor.remove_unfit(worker, reason, for_good=True)
            self.breaker.withdrawn(work)
            if self.retries(work, why, noted=True):
                self.backlog.requeue(work)
            return False
        failure = Failure(why)
        if worker is not None:
            failure = Failure(f"{why} [worker {self.supervisor.label(worker)}]", worker)
            self.suspects.block_failed(worker, work, failure)
        final = isinstance(error, InvalidData) and error.lasting
        return self.block_failed(work, failure, transient=is_transient(error), final=final)

    # -- blocks that are taken back ---------------------------------------------------------------

    def _requeue(self, futures: Sequence[Future]) -> None:
        for work in self.in_flight.cancel(futures):
            self.breaker.withdrawn(work)
            if not self.options.stop:
                self.backlog.requeue(work)

    def _on_outage(self) -> None:
        # What waits would fail as well; what is computed may end well.
        if set(self.supervisor.eligible()) <= self.breaker.failed_workers:
            self.suspects.forget(self.breaker.failed_workers)  # all met the same
        self._requeue(self.in_flight.waiting())

    def _requeue_stranded(self) -> None:
        # Workers that left: what was sent to them alone goes elsewhere, and nothing is held
        # against them.
        works = self.in_flight.works
        if not (self.suspects or any(work.sent_to for work in works.values())):
            return
        present = set(self.supervisor.eligible())
        self.suspects.retain(present)
        stranded = [
            future
            for future, work in works.items()
            if work.sent_to
            and present.isdisjoint(work.sent_to)
            and not (future.done() or self.supervisor.is_computed(future.key))
        ]
        self._requeue(stranded)

    def _reassign(self, reassignments: Mapping[str, Reassignment]) -> None:
        # Taken back first, so that the scheduler sends it nowhere else when the worker ends.
        if not reassignments:
            return
        taken = [future for future in self.in_flight.works if future.key in reassignments]
        works = self.in_flight.cancel(taken)
        self.supervisor.replace_hung()
        for future, work in zip(taken, works, strict=True):
            found = reassignments[future.key]
            # The supervisor has noted what became of the worker and of its blocks.
            failure = Failure(error_text(found.error))
            self.block_failed(work, failure, transient=False, final=found.final, noted=True)

    def _drain(self) -> None:
        self.draining = True
        self._requeue(self.in_flight.waiting())
        if count := len(self.in_flight):
            self.options.reporter.note(f"Stopping after {count} running blocks. Again: at once.")
