"""The one engine: run a task over blocks, and lose nothing.

:func:`run_in_loop` is the specification: it calls the task on one block after another, retries
what fails, collects what fails for good and goes on with the others. :func:`run_on_cluster` does
the same on a Dask cluster, with a bounded number of blocks in flight, so that a million blocks
cost the scheduler as little as a hundred. One conformance suite runs both.

Resume is not the engine's business: it is given the blocks that are missing.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import queue
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from distributed import Client, Future, KilledWorker

from pipelines.cluster.asking import ask
from pipelines.cluster.survey import running_keys
from pipelines.limits import Keeper, Verdict
from pipelines.outcome import Outcome, RunOptions, Task, describe
from tilenet.geometry import Box
from tilenet.tasks import BlockReport

#: Blocks in flight: per task slot one running and one waiting so that no slot idles, and at least
#: so many that short blocks travel in batches.
WINDOW_PER_SLOT, WINDOW = 2, 64

#: Seconds over which finished blocks are gathered into one batch: a round trip for each would cost
#: short blocks more than their work, and long ones do not notice.
BATCH_SECONDS = 0.02

#: Seconds that a worker may take to hand over what a block reported: it may hang by then.
ANSWER_SECONDS = 20.0

#: Seconds between two looks at a request to stop.
WAKE_SECONDS = 0.2

#: Seconds between two counts of the cluster's task slots.
COUNT_SECONDS = 5.0


def run_in_loop(task: Task, blocks: Iterable[Box], options: RunOptions) -> Outcome:
    """Run a task over blocks in this process, one after another.

    Parameters
    ----------
    task : callable
        Takes a box and returns a report.
    blocks : iterable of Box
        What to do, in order.
    options : RunOptions
        How to run.

    Returns
    -------
    Outcome
        With every block either computed or failed, unless it was stopped.
    """
    outcome, start = options.outcome or Outcome(), time.monotonic()
    for box in blocks:
        if options.stop:
            break
        result = _try(task, box, options, outcome)
        if result is not None:
            _record(outcome, options, box, result)
    outcome.stopped_by = options.stop.signal
    outcome.begun = True
    outcome.seconds["wall"] = time.monotonic() - start
    return outcome


def _try(task: Task, box: Box, options: RunOptions, outcome: Outcome) -> BlockReport | str | None:
    # None where a stop came between two attempts: the block is not given up.
    problem = ""
    for attempt in range(options.retries + 1):
        if attempt and options.stop:
            return None
        if attempt:
            _retry(outcome, options, box, problem)
        try:
            return task(box)
        except Exception as error:  # a task may fail in any way, and the others go on
            problem = describe(error)
    return problem


def _retry(
    outcome: Outcome, options: RunOptions, box: Box, problem: str, *, noted: bool = False
) -> None:
    outcome.retried += 1
    options.reporter.retry(box, problem, noted=noted)


def _record(outcome: Outcome, options: RunOptions, box: Box, result: BlockReport | str) -> None:
    if isinstance(result, str):
        outcome.failed.append((box, result))
    else:
        outcome.add(result, options.keep_reports)
    options.reporter.advance(box, result)


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
    WorkersDied, WorkersGone
        When worker after worker dies, or none takes blocks.
    SchedulerLost
        When the scheduler does not answer.
    """
    return _ClusterRun(task, options, client).over(iter(blocks))


class _ClusterRun:
    # One run: which box and which attempt every future in flight stands for.

    def __init__(self, task: Task, options: RunOptions, client: Client) -> None:
        self.task, self.options, self.client = task, options, client
        self.outcome = options.outcome or Outcome()
        self.flying: dict[Future, tuple[Box, int]] = {}
        self.ready: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self.run = uuid.uuid4().hex[:8]
        self.draining = False
        self.slots, self.counted = 0, -math.inf
        self.submitted = itertools.count(1)
        self.keeper = Keeper(
            client, options.limits, options.reporter.note, frozenset(options.resources or ())
        )

    def over(self, blocks: Iterator[Box]) -> Outcome:
        start = time.monotonic()
        try:
            with self.keeper:
                self._compute(blocks)
        finally:
            self.outcome.stopped_by = self.options.stop.signal
            self.outcome.begun = True
            self.outcome.seconds["wall"] = time.monotonic() - start
            if self.client.status == "running":
                self.client.cancel(list(self.flying))
        return self.outcome

    def _compute(self, blocks: Iterator[Box]) -> None:
        if not self.options.stop:
            self._refill(blocks)
        while self.flying:
            if self.options.stop and not self.draining:
                self._drain()
            finished = self._wait()
            if self.client.status != "running":
                # Its futures are cancelled already, and asking it anything would only wait.
                raise ConnectionError("the connection to the scheduler was lost")
            self._settle(finished)
            self._judge(self.keeper.look(lambda: [future.key for future in self.flying]))
            if not self.options.stop:
                self._refill(blocks)

    def _refill(self, blocks: Iterator[Box]) -> None:
        room = self._window() - len(self.flying)
        self._submit([(box, 1) for box in itertools.islice(blocks, max(0, room))])

    def _window(self) -> int:
        # Asked anew now and then: workers come and go.
        if time.monotonic() - self.counted >= COUNT_SECONDS:
            self._count()
        return max(WINDOW, WINDOW_PER_SLOT * self.slots)

    def _count(self) -> None:
        self.slots = sum(ask(self.client, self.client.nthreads).values())
        self.counted = time.monotonic()

    def _submit(self, attempts: Sequence[tuple[Box, int]]) -> None:
        if not attempts:
            return
        futures = self.client.map(
            self.task,
            [box for box, _ in attempts],
            key=[
                f"{self.options.name}-{box}-try{n}-{next(self.submitted)}-{self.run}"
                for box, n in attempts
            ],
            pure=False,
            resources=self.options.resources,
        )
        self.flying.update(zip(futures, attempts, strict=True))
        for future in futures:
            future.add_done_callback(self.ready.put)

    def _wait(self) -> list[Future]:
        # Wakes up now and then, so that a request to stop is seen while blocks last long.
        batch = []
        with contextlib.suppress(queue.Empty):
            batch.append(self.ready.get(timeout=WAKE_SECONDS))
            time.sleep(BATCH_SECONDS)
            while True:
                batch.append(self.ready.get_nowait())
        return [future for future in batch if future in self.flying]

    def _settle(self, futures: Sequence[Future]) -> None:
        again = []
        for future, result in zip(futures, self._collect(futures), strict=True):
            box, attempt = self.flying.pop(future)
            if isinstance(result, BlockReport):
                self.keeper.finished()
                _record(self.outcome, self.options, box, result)
            elif isinstance(result, KilledWorker):
                # It was on workers that died; whether by its own fault, the keeper decides.
                again += [] if self.options.stop else [(box, attempt)]
            else:
                again += self._again(box, attempt, describe(result))
        self._submit(again)

    def _again(
        self, box: Box, attempt: int, why: str, *, final: bool = False, noted: bool = False
    ) -> list[Any]:
        if final or attempt > self.options.retries:
            _record(self.outcome, self.options, box, why)
            return []
        if self.options.stop:  # not given up: the same command tries it again
            return []
        _retry(self.outcome, self.options, box, why, noted=noted)
        return [(box, attempt + 1)]

    def _judge(self, verdicts: Mapping[str, Verdict]) -> None:
        # Taken back first, so that the scheduler sends it nowhere else when the worker ends.
        if not verdicts:
            return
        taken = [future for future in self.flying if future.key in verdicts]
        self.client.cancel(taken)
        self.keeper.replace()
        again = []
        for future in taken:
            verdict = verdicts[future.key]
            why = describe(verdict.error)
            # The keeper has noted what became of the worker and of its blocks.
            box, attempt = self.flying.pop(future)
            again += self._again(box, attempt, why, final=verdict.final, noted=True)
        self._submit(again)

    def _collect(self, futures: Sequence[Future]) -> list[BlockReport | BaseException]:
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

    def _collect_one(self, future: Future) -> BlockReport | BaseException:
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
        running = running_keys(self.client)
        waiting = [f for f in self.flying if not (f.key in running or f.done())]
        for future in waiting:
            del self.flying[future]
        self.client.cancel(waiting)
        if self.flying:
            count = len(self.flying)
            self.options.reporter.note(f"Stopping after {count} running blocks. Again: at once.")
