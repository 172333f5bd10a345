"""Running tasks over blocks for a command: on a cluster, or here when there is next to nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Client

from pipelines.cluster import ClusterOptions, open_client
from pipelines.engine.blockwise import run_on_cluster
from pipelines.engine.limits import DEFAULT_BLOCK_TIMEOUT, Limits
from pipelines.engine.loop import run_in_loop
from pipelines.engine.outcome import Outcome, RunOptions, Task, ending
from pipelines.engine.spooled import SpooledReports
from pipelines.stopping import Stop, stop_on_signals
from pipelines.watching import Watch, open_watch
from tilenet.errors import BlocksFailed
from tilenet.geometry import BlockGrid, Box


@dataclass(frozen=True)
class Runner:
    """Where tasks run until the command ends.

    Parameters
    ----------
    client : distributed.Client or None
        The cluster; None runs in this process.
    stop : Stop
        Set by Ctrl-C and SIGTERM.
    watch : Watch
        Told of the run.
    limits : Limits
        What the workers may take.
    outcome : Outcome
        What became of the blocks that were to be stored; see :meth:`store`.
    """

    client: Client | None
    stop: Stop
    watch: Watch
    limits: Limits
    outcome: Outcome = field(default_factory=Outcome)

    def store(self, name: str, task: Task, grid: Sequence[Box], missing: Sequence[int]) -> None:
        """Run the task that stores blocks, and show how far it is.

        An error that ends it does not leave :func:`open_runner`: :attr:`outcome` has it, and what
        was done before.
        """
        self._run(name, task, grid, missing, outcome=self.outcome)

    def run(self, name: str, task: Task, grid: Sequence[Box]) -> Outcome:
        """Run a task over blocks that returns values, and show how far it is."""
        every = range(len(grid))
        return self._run(name, task, grid, every, outcome=Outcome(), keep_reports=True)

    def _run(
        self, name: str, task: Task, grid: Sequence[Box], missing: Sequence[int], *,
        outcome: Outcome, keep_reports: bool = False,
    ) -> Outcome:  # fmt: skip
        blocks = (grid[i] for i in missing)
        with self.watch.reporter(name, grid, missing) as reporter:
            options = RunOptions(
                name=name.lower(), reporter=reporter, stop=self.stop, keep_reports=keep_reports,
                limits=self.limits, outcome=outcome,
            )  # fmt: skip
            if self.client is None:
                return run_in_loop(task, blocks, options)
            return run_on_cluster(task, blocks, options, client=self.client)

    @contextlib.contextmanager
    def collected(
        self, name: str, task: Task, grid: BlockGrid, *, command: str
    ) -> Iterator[Iterable[Any]]:
        """Run a task that returns values, all of which are needed; they are kept on disk."""
        with SpooledReports() as reports:
            every, outcome = range(len(grid)), Outcome(reports=reports)
            self._run(name, task, grid, every, outcome=outcome, keep_reports=True)
            self.stop.check()
            if outcome.failed:
                failed = [(str(box), error) for box, error in outcome.failed]
                raise BlocksFailed(command, failed, len(grid), stored=False)
            yield reports.values


@contextlib.contextmanager
def open_runner(
    cluster: ClusterOptions, blocks: int, *, command: str, output: str
) -> Iterator[Runner]:
    """Start or join a cluster, unless one block at most is to be done.

    Parameters
    ----------
    cluster : ClusterOptions
        Where to run.
    blocks : int
        Blocks to be done.
    command, output : str
        What runs, and what it writes.

    Yields
    ------
    Runner
        Stopped by Ctrl-C and SIGTERM.
    """
    outcome = Outcome()
    with ending(outcome), stop_on_signals() as stop, contextlib.ExitStack() as stack:
        # One block is done sooner than a cluster is started.
        alone = cluster.local and blocks <= 1
        # Blocks are as large as the workers of a scheduler allow that were there at the start.
        needed = 0 if cluster.scheduler is None else cluster.memory
        limits = Limits(
            block=cluster.block_timeout or DEFAULT_BLOCK_TIMEOUT,
            memory=needed,
            outage=cluster.outage_timeout,
        )
        client = None if alone else stack.enter_context(open_client(cluster, stop, needed))
        watch = stack.enter_context(open_watch(command, output, client, cluster.dashboard))
        yield Runner(client, stop, watch, limits, outcome)
