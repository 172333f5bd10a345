"""The specification of the engine: one block after another, in this process.

It retries what fails, collects what fails for good and goes on with the others. What it does with a
block that was finished or failed is what :mod:`pipelines.engine.blockwise` does too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator

from pipelines.engine.attempts import Backlog, Failure, Work
from pipelines.engine.outages import Breaker, may_pass
from pipelines.engine.outcome import Outcome, RunOptions, Task
from pipelines.progress import error_text
from tilenet.errors import OutageLasted, WorkersUnfit
from tilenet.geometry import Box
from tilenet.portable import portable
from tilenet.worker import BlockReport

#: Seconds between two looks at a request to stop.
WAKE_SECONDS = 0.2


class Run:
    """What both engines do with a block that was finished or failed.

    Parameters
    ----------
    task : callable
        Takes a box and returns a report.
    blocks : iterable of Box
        What to do; read as the work proceeds.
    options : RunOptions
        How to run.
    """

    def __init__(self, task: Task, blocks: Iterable[Box], options: RunOptions) -> None:
        self.task, self.options = task, options
        self.outcome = options.outcome or Outcome()
        self.backlog = Backlog(iter(blocks))
        self.breaker = Breaker(options.limits.outage, options.reporter.note)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Fill in how a run ended, and how long it took."""
        start = time.monotonic()
        try:
            yield
        except (OutageLasted, WorkersUnfit) as error:
            self.outcome.stopped = str(error)
            raise
        finally:
            self.outcome.stopped_by = self.options.stop.signal
            self.outcome.begun = True
            self.outcome.seconds["wall"] = time.monotonic() - start

    def finished(self, work: Work, report: BlockReport) -> None:
        """Take what a block reported."""
        if self.breaker.open:
            self.backlog.hurry()
        self.breaker.finished()
        self.outcome.add(report, self.options.keep_reports)
        self.options.reporter.advance(work.box, report)

    def failed(self, work: Work, failure: Failure, slots: int, *, passing: bool) -> bool:
        """Take a try that failed: the block is tried again, or given up."""
        work.fail(failure)
        spent = len(work.failures) > self.options.retries
        if (
            passing
            and self.breaker.counts(work)
            and self.breaker.failed(work, failure, slots, spent=spent)
        ):
            self.again(work, failure.why)
            return True
        self.breaker.dropped(work)
        if len(work.failures) > self.options.retries:
            self.give_up(work, failure.why)
        else:
            self.again(work, failure.why)
        return False

    def give_up(self, work: Work, why: str) -> None:
        """Count a block as failed for good."""
        self.outcome.failed.append((work.box, why))
        self.options.reporter.advance(work.box, why)

    def again(self, work: Work, why: str, *, noted: bool = False) -> None:
        """Have a block tried again, unless the run stops."""
        if self.options.stop:  # not given up: the same command tries it again
            return
        self.outcome.retried += 1
        self.options.reporter.retry(work.box, why, noted=noted or self.breaker.open)
        self.backlog.put_off(work)


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

    Raises
    ------
    OutageLasted
        When block after block fails for longer than the user waits.
    """
    run = _LoopRun(task, blocks, options)
    with run.timed():
        run.compute()
    return run.outcome


class _LoopRun(Run):
    def compute(self) -> None:
        while not self.options.stop:
            works = self._next()
            for work in works:
                self._try(work)
            if works:
                continue
            if self.backlog.over:
                return
            time.sleep(WAKE_SECONDS / 10)

    def _next(self) -> list[Work]:
        if not self.breaker.open:
            return self.backlog.take(1)
        if self.breaker.lasted is not None:
            raise self.breaker.lasted
        if not self.breaker.ready:
            return []
        works = self.backlog.take_one(untried=self.breaker.untried)
        for work in works:
            self.breaker.probe(work)
        return works

    def _try(self, work: Work) -> None:
        try:
            report = self.task(work.box)
        except Exception as error:  # a task may fail in any way, and the others go on
            failure = Failure(error_text(error))
            self.failed(work, failure, 1, passing=may_pass(portable(error)))
        else:
            self.finished(work, report)
