"""The one engine: run a task over blocks, and lose nothing.

:func:`pipelines.engine.run_in_loop` is the specification. :func:`run_on_cluster` does the same on a
Dask cluster, with a bounded number of blocks in flight, so that a million blocks cost the scheduler
as little as a hundred. One conformance suite runs both.

A block that fails is tried again after a while, on another worker where there is one. Faults of a
worker cost no try (:mod:`pipelines.engine.suspects`), and neither does what is away for a while
(:mod:`pipelines.engine.outages`).

Resume is not the engine's business: it is given the blocks that are missing.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import queue
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distributed import Client, Future, KilledWorker

from pipelines.cluster import ask, running_keys, whereabouts
from pipelines.engine.attempts import Failure, Work
from pipelines.engine.loop import WAKE_SECONDS, Run
from pipelines.engine.outages import may_pass
from pipelines.engine.outcome import Outcome, RunOptions, Task
from pipelines.engine.supervisor import Keeper, Verdict
from pipelines.engine.suspects import Suspects
from pipelines.progress import error_text
from tilenet.errors import DeviceUnavailable, WorkerUnfit
from tilenet.geometry import Box
from tilenet.portable import Portable
from tilenet.worker import BlockReport

#: Blocks in flight: per task slot one running and one waiting so that no slot idles, and at least
#: so many that short blocks travel in batches.
WINDOW_PER_SLOT, WINDOW = 2, 64

#: Seconds over which finished blocks are gathered into one batch: a round trip for each would cost
#: short blocks more than their work, and long ones do not notice.
BATCH_SECONDS = 0.02

#: Seconds that a worker may take to hand over what a block reported: it may hang by then.
ANSWER_SECONDS = 20.0

#: Seconds between two counts of the cluster's task slots.
COUNT_SECONDS = 5.0

#: Errors that are the worker's own, whatever its block is: another kind of device or other
#: versions than the run began with, or no such device.
OF_WORKERS = (WorkerUnfit, DeviceUnavailable)


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
        How to run.
    client : distributed.Client
        The cluster.

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
    run = _ClusterRun(task, blocks, options, client)
    with run.timed():
        run.compute()
    return run.outcome


class _ClusterRun(Run):
    # One run: which block every future in flight stands for.

    def __init__(
        self, task: Task, blocks: Iterable[Box], options: RunOptions, client: Client
    ) -> None:
        super().__init__(task, blocks, options)
        self.client = client
        self.flying: dict[Future, Work] = {}
        self.ready: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self.run = uuid.uuid4().hex[:8]
        self.draining = False
        #: Those whose worker left before they were fetched, and those whose workers all died.
        self.lost: list[Future] = []
        self.killed: list[Future] = []
        self.slots, self.counted = 0, -math.inf
        self.submitted = itertools.count(1)
        self.suspects = Suspects()
        self.keeper = Keeper(
            client, options.limits, options.reporter.note, frozenset(options.resources or ())
        )

    def compute(self) -> None:
        try:
            with self.keeper:
                self._compute()
        finally:
            self.keeper.hold(False)
            if self.client.status == "running":
                self.client.cancel(list(self.flying))

    def _compute(self) -> None:
        while True:
            if not self.options.stop:
                self._refill()
            elif not self.draining:
                self._drain()
            if not self.flying and (self.options.stop or self.backlog.over):
                return
            if not self.flying and self.breaker.lasted is not None:
                raise self.breaker.lasted
            finished = self._wait()
            if self.client.status != "running":
                # Its futures are cancelled already, and asking it anything would only wait.
                raise ConnectionError("the connection to the scheduler was lost")
            self._settle(finished)
            self.keeper.hold(self.breaker.open)
            self._judge(
                self.keeper.look(
                    lambda: [future.key for future in self.flying], paused=self.breaker.paused
                )
            )
            self._follow()

    def _refill(self) -> None:
        if not self.breaker.open:
            self._submit(self.backlog.take(max(0, self._window() - len(self.flying))))
        elif self.breaker.ready:
            for work in self.backlog.take_one(untried=self.breaker.untried):
                self.breaker.probe(work)
                self._submit([work], probe=True)

    def _window(self) -> int:
        # Asked anew now and then: workers come and go.
        if time.monotonic() - self.counted >= COUNT_SECONDS:
            self._count()
        return max(WINDOW, WINDOW_PER_SLOT * self.slots)

    def _count(self) -> None:
        self.slots = sum(ask(self.client, self.client.nthreads).values())
        self.counted = time.monotonic()

    def _submit(self, works: Sequence[Work], *, probe: bool = False) -> None:
        # Nearly always one group: of blocks that may go to any worker.
        groups: dict[tuple[str, ...], list[Work]] = {}
        for work in works:
            groups.setdefault(self._places(work, probe), []).append(work)
        for places, group in groups.items():
            self._send(group, places)

    def _places(self, work: Work, probe: bool) -> tuple[str, ...]:
        if not (work.avoided or probe):
            return ()
        # Not to one that has failed others meanwhile either, if it need not be.
        careful = self.keeper.others(work.avoided | self.suspects.workers)
        return tuple(careful or self.keeper.others(work.avoided))

    def _send(self, works: Sequence[Work], places: tuple[str, ...]) -> None:
        # There and nowhere else: what may go elsewhere too is taken by whoever is idle, and one
        # that fails at once always is.
        for work in works:
            work.places = places
        futures = self.client.map(
            Portable(self.task),
            [work.box for work in works],
            key=[
                f"{self.options.name}-{work.box}-try{len(work.failures) + 1}"
                f"-{next(self.submitted)}-{self.run}"
                for work in works
            ],
            pure=False,
            resources=self.options.resources,
            workers=list(places) or None,
        )
        self.flying.update(zip(futures, works, strict=True))
        for future in futures:
            future.add_done_callback(self.ready.put)

    def _wait(self) -> list[Future]:
        # Wakes up now and then, so that a request to stop is seen while blocks last long.
        batch, self.lost = self.lost, []
        with contextlib.suppress(queue.Empty):
            batch.append(self.ready.get(timeout=WAKE_SECONDS))
            time.sleep(BATCH_SECONDS)
            while True:
                batch.append(self.ready.get_nowait())
        return [future for future in batch if future in self.flying]

    def _settle(self, futures: Sequence[Future]) -> None:
        for future in self.killed:
            if future in self.flying:
                self._take_back(self.flying.pop(future))
        self.killed.clear()
        results = self._collect(futures)
        where = self._where(futures, results)
        paused = False
        # Those that ended well first: what is away is back then.
        pairs = zip(futures, results, strict=True)
        for future, result in sorted(pairs, key=lambda pair: not isinstance(pair[1], BlockReport)):
            if result is None:  # its worker left before it was fetched: Dask computes it again
                self.lost.append(future)
                continue
            if isinstance(result, KilledWorker):
                # It was on workers that died; whether by its own fault, the keeper decides, which
                # may hear of the last of them only now.
                self.killed.append(future)
                continue
            work, worker = self.flying.pop(future), where.get(future.key)
            if isinstance(result, BlockReport):
                self.keeper.finished()
                self.suspects.finished(worker, work)
                self.finished(work, result)
            else:
                paused = self._failed(work, result, worker) or paused
        for worker, why in self.suspects.take_bad().items():
            self.keeper.send_away(worker, why, for_good=False)
            self._forgive(worker)
        if paused and self.breaker.open:
            self._pause()

    def _where(
        self, futures: Sequence[Future], results: Sequence[BlockReport | BaseException | None]
    ) -> Mapping[str, str]:
        # Asked only when it matters: nearly always all goes well.
        if self.suspects or not all(isinstance(result, BlockReport) for result in results):
            return whereabouts(self.client, [future.key for future in futures])
        return {}

    def _failed(self, work: Work, error: BaseException, worker: str | None) -> bool:
        why = error_text(error)
        if worker is None:
            return self.failed(work, Failure(why), self.slots, passing=may_pass(error))
        if isinstance(error, OF_WORKERS):
            reason = f"{error.problem}. {error.cure}" if isinstance(error, WorkerUnfit) else why
            work.avoided.add(worker)
            self.keeper.send_away(worker, reason, for_good=True)
            self.breaker.dropped(work)
            if not self.options.stop:
                self.outcome.retried += 1
                self.options.reporter.retry(work.box, why, noted=True)
                self.backlog.put_back(work)
            return False
        failure = Failure(f"{why} [worker {self.keeper.label(worker)}]", worker)
        self.suspects.failed(worker, work, failure)
        return self.failed(work, failure, self.slots, passing=may_pass(error))

    def _forgive(self, worker: str) -> None:
        for work in (*self.backlog.waiting, *self.flying.values()):
            work.forgive(worker)

    def _take_back(self, work: Work) -> None:
        self.breaker.dropped(work)
        if not self.options.stop:
            self.backlog.put_back(work)

    def _pause(self) -> None:
        # What waits would fail as well; what is computed may end well.
        if set(self.keeper.others(())) <= self.breaker.workers:
            self.suspects.forget(self.breaker.workers)  # all met the same
        for work in self._withdraw():
            self.backlog.put_back(work)

    def _follow(self) -> None:
        # Workers that left: what was sent to them alone goes elsewhere, and nothing is held
        # against them.
        if not (self.suspects or any(work.places for work in self.flying.values())):
            return
        there = set(self.keeper.others(()))
        self.suspects.keep(there)
        lost = [
            future
            for future, work in self.flying.items()
            if work.places
            and there.isdisjoint(work.places)
            and not (future.done() or self.keeper.computes(future.key))
        ]
        self.client.cancel(lost)
        for future in lost:
            self._take_back(self.flying.pop(future))

    def _judge(self, verdicts: Mapping[str, Verdict]) -> None:
        # Taken back first, so that the scheduler sends it nowhere else when the worker ends.
        if not verdicts:
            return
        taken = [future for future in self.flying if future.key in verdicts]
        self.client.cancel(taken)
        self.keeper.replace()
        for future in taken:
            verdict, work = verdicts[future.key], self.flying.pop(future)
            why = error_text(verdict.error)
            work.fail(Failure(why))
            self.breaker.dropped(work)
            if verdict.final or len(work.failures) > self.options.retries:
                self.give_up(work, why)
            else:  # the keeper has noted what became of the worker and of its blocks
                self.again(work, why, noted=True)

    def _collect(self, futures: Sequence[Future]) -> list[BlockReport | BaseException | None]:
        # All at once when all went well, as nearly always: one round trip for a batch.
        if all(future.status == "finished" for future in futures):
            try:
                return list(
                    self.client.sync(self._gather, futures, callback_timeout=ANSWER_SECONDS)
                )
            except TimeoutError:
                self._count()  # one by one they would take long, if it is the scheduler that hangs
            except Exception:  # noqa: S110  (told of one by one below)
                pass
        return [self._collect_one(future) for future in futures]

    async def _gather(self, futures: Sequence[Future]) -> Any:
        return await self.client.gather(list(futures), asynchronous=True)

    def _collect_one(self, future: Future) -> BlockReport | BaseException | None:
        if future.status == "lost":
            return None
        if future.status == "error":
            return future.exception() or RuntimeError("it failed without a reason")
        if future.status != "finished":
            return RuntimeError(f"the scheduler gave it up ({future.status})")
        try:
            report: BlockReport = future.result(timeout=ANSWER_SECONDS)
        except TimeoutError:
            return RuntimeError("the worker that holds its report does not answer")
        except Exception as error:  # the worker that held the report died, and so did the retry
            return error
        return report

    def _drain(self) -> None:
        self.draining = True
        self._withdraw()
        if self.flying:
            count = len(self.flying)
            self.options.reporter.note(f"Stopping after {count} running blocks. Again: at once.")

    def _withdraw(self) -> list[Work]:
        # Takes back what no worker computes yet.
        running = running_keys(self.client, stopped=bool(self.options.stop))
        waiting = [f for f in self.flying if not (f.key in running or f.done())]
        works = [self.flying.pop(future) for future in waiting]
        self.client.cancel(waiting)
        return works
