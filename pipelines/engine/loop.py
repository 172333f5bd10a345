"""The specification of the engine: one block after another, in this process.

It retries what fails, collects what fails for good and goes on with the others. What it does with a
block that was finished or failed is what :mod:`pipelines.engine.blockwise` does too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from pipelines.engine.attempts import Backlog, Failure, Work
from pipelines.engine.outages import CircuitBreaker, is_transient
from pipelines.engine.outcome import Outcome, RunOptions, Task
from pipelines.progress import error_text
from tilenet.errors import InvalidData, OutageLasted, WorkersUnfit
from tilenet.geometry import Box
from tilenet.worker import BlockReport, portable

#: Seconds between two looks at a request to stop.
WAKE_SECONDS = 0.2


class BlockRun:
    """What both engines do: which blocks are next, and what follows when one ends or fails."""

    slots = 1  # blocks that are computed at once

    def __init__(self, blocks: Iterable[Box], options: RunOptions) -> None:
        self.options = options
        self.outcome = options.outcome or Outcome()
        self.backlog = Backlog(iter(blocks))
        self.breaker = CircuitBreaker(options.limits.outage, options.reporter.note)

    def complete(self) -> Outcome:
        """Do all blocks, and say how that ended and how long it took."""
        start = time.monotonic()
        try:
            self.compute()
        except (OutageLasted, WorkersUnfit) as error:
            self.outcome.stopped = str(error)
            raise
        finally:
            self.outcome.stopped_by = self.options.stop.signal
            self.outcome.begun = True
            self.outcome.seconds["wall"] = time.monotonic() - start
        return self.outcome

    def compute(self) -> None:
        """Do all blocks, until the run stops."""
        raise NotImplementedError

    def next_works(self, count: int) -> list[Work]:
        """Give the blocks to begin now, so many at most; during an outage one, between pauses."""
        if not self.breaker.open:
            return self.backlog.take(count)
        if not self.breaker.may_probe:
            return []
        works = self.backlog.take_probe(untried=self.breaker.probe_untried)
        for work in works:
            self.breaker.begin_probe(work)
        return works

    def block_finished(self, work: Work, report: BlockReport) -> None:
        """Take what a block reported."""
        if self.breaker.open:
            self.backlog.end_waits()
        self.breaker.block_finished()
        self.outcome.add(report, self.options.keep_reports)
        self.options.reporter.advance(work.box, report)

    def block_failed(
        self, work: Work, failure: Failure, *, transient: bool, final: bool = False,
        noted: bool = False,
    ) -> bool:  # fmt: skip
        """Take a try that failed: the block is tried again, or given up.

        ``transient`` says that it may pass by itself, ``final`` that there is no further try, and
        ``noted`` that the user was told. Gives whether the run pauses from now on.
        """
        work.fail(failure)
        pauses = (
            transient
            and self.breaker.may_forgive(work)
            and self.breaker.block_failed(work, failure, self.slots, spent=self._spent(work))
        )
        self.breaker.withdrawn(work)
        if final or self._spent(work):
            self.outcome.failed.append((work.box, failure.why))
            self.options.reporter.advance(work.box, failure.why)
        elif self.retries(work, failure.why, noted=noted or self.breaker.open):
            self.backlog.retry_later(work)
        return pauses

    def retries(self, work: Work, why: str, *, noted: bool) -> bool:
        """Count and tell that a block is tried again, unless the run stops."""
        if self.options.stop:  # not given up: the same command tries it again
            return False
        self.outcome.retried += 1
        self.options.reporter.retry(work.box, why, noted=noted)
        return True

    def _spent(self, work: Work) -> bool:
        return len(work.failures) > self.options.retries


def run_in_loop(task: Task, blocks: Iterable[Box], options: RunOptions) -> Outcome:
    """Run a task over blocks in this process, one after another.

    Parameters
    ----------
    task : callable
        Takes a box and returns a report.
    blocks : iterable of Box
        What to do, in order.
    options : RunOptions

    Returns
    -------
    Outcome
        With every block either computed or failed, unless it was stopped.

    Raises
    ------
    OutageLasted
        When block after block fails for longer than the user waits.
    """
    return _LoopRun(task, blocks, options).complete()


class _LoopRun(BlockRun):
    def __init__(self, task: Task, blocks: Iterable[Box], options: RunOptions) -> None:
        super().__init__(blocks, options)
        self.task = task

    def compute(self) -> None:
        while not self.options.stop:
            if self.breaker.error is not None:
                raise self.breaker.error
            works = self.next_works(1)
            for work in works:
                self._try(work)
            if works:
                continue
            if self.backlog.empty:
                return
            time.sleep(WAKE_SECONDS / 10)

    def _try(self, work: Work) -> None:
        try:
            report = self.task(work.box)
        except Exception as error:  # a task may fail in any way, and the others go on
            failure = Failure(error_text(error))
            final = isinstance(error, InvalidData) and error.lasting
            transient = is_transient(portable(error))
            self.block_failed(work, failure, transient=transient, final=final)
        else:
            self.block_finished(work, report)
