"""Running tasks over blocks for a command: on a cluster, or here when there is next to nothing."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Client

from pipelines.cluster import ClusterOptions, open_client, task_resources
from pipelines.engine.blockwise import run_on_cluster
from pipelines.engine.limits import DEFAULT_BLOCK_TIMEOUT, Limits
from pipelines.engine.loop import run_in_loop
from pipelines.engine.outcome import Outcome, RunOptions, Task, ending
from pipelines.engine.spooled import SpooledReports
from pipelines.engine.worker_agreement import common_facts
from pipelines.progress import Reporter
from pipelines.stopping import Stop, stop_on_signals
from pipelines.watching import Watch, open_watch
from tilenet.errors import BlocksFailed
from tilenet.geometry import Box
from tilenet.networks import Execution


@dataclass(frozen=True)
class Runner:
    """Where tasks run until the command ends.

    Parameters
    ----------
    client : distributed.Client or None
        None runs in this process.
    stop : Stop
        Set by Ctrl-C and SIGTERM.
    watch : Watch
    limits : Limits
    outcome : Outcome
        What became of the blocks that were to be stored; see :meth:`store`.
    name : str
        Tells this run from others.
    """

    client: Client | None
    stop: Stop
    watch: Watch
    limits: Limits
    outcome: Outcome = field(default_factory=Outcome)
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    def store(
        self, name: str, task: Task, grid: Sequence[Box], missing: Sequence[int], *,
        one_by_one: bool = False,
    ) -> None:  # fmt: skip
        """Run the task that stores blocks, and show how far it is.

        An error that ends it does not leave :func:`open_runner`: :attr:`outcome` has it, and what
        was done before. ``one_by_one`` says that a worker computes one block at a time.
        """
        with self.watch.reporter(name, grid, missing, one_by_one=one_by_one) as reporter:
            blocks = (grid[i] for i in missing)
            self._run(task, blocks, self._options(reporter, name, self.outcome, one_by_one))

    def run(
        self, name: str, task: Task, grid: Sequence[Box], *, one_by_one: bool = False
    ) -> Outcome:
        """Run a task over blocks that returns values, and show how far it is."""
        every, outcome = range(len(grid)), Outcome()
        with self.watch.reporter(name, grid, every, one_by_one=one_by_one) as reporter:
            options = self._options(reporter, name, outcome, one_by_one, keep_reports=True)
            self._run(task, grid, options)
        return outcome

    def fold(
        self, name: str, task: Task, grid: Sequence[Box],
        add: Callable[[Any, Iterable[Any]], Any], *, start: Any = None, group: int | None = None,
    ) -> Any:  # fmt: skip
        """Run a task that returns values, all of which are needed, and add them up.

        They are kept on disk and given in the order of their blocks, not of arrival: floating-point
        sums depend on it. ``add`` takes what there is so far and the values of ``group`` more
        blocks (None: of all at once). The first group of which a block failed for good ends it.
        """
        size, total = group or max(1, len(grid)), start
        with self.watch.reporter(name, grid, range(len(grid))) as reporter:
            for first in range(0, len(grid), size):
                with SpooledReports() as reports:
                    outcome = Outcome(reports=reports)
                    options = self._options(reporter, name, outcome, keep_reports=True)
                    self._run(task, grid[first : first + size], options)
                    self.stop.check()
                    if outcome.failed:
                        failed = [(str(box), error) for box, error in outcome.failed]
                        raise BlocksFailed(self.watch.command, failed, len(grid), stored=False)
                    total = add(total, reports.values)
        return total

    def facts(self, execution: Execution) -> Mapping[str, Any]:
        """Ask the workers for what they must have in common; see ``worker_agreement``."""
        assert self.client is not None
        return common_facts(self.client, execution)

    def _options(
        self, reporter: Reporter, name: str, outcome: Outcome, one_by_one: bool = False, *,
        keep_reports: bool = False,
    ) -> RunOptions:  # fmt: skip
        resources = task_resources(self.client) if one_by_one and self.client else None
        return RunOptions(
            name=name.lower().replace(" ", "-"), reporter=reporter, stop=self.stop,
            keep_reports=keep_reports, resources=resources, limits=self.limits,
            outcome=outcome,
        )  # fmt: skip

    def _run(self, task: Task, blocks: Iterable[Box], options: RunOptions) -> None:
        if self.client is None:
            run_in_loop(task, blocks, options)
        else:
            run_on_cluster(task, blocks, options, client=self.client)


@contextlib.contextmanager
def open_runner(
    cluster: ClusterOptions, *, command: str, output: str, small: bool = False,
    limits: Limits | None = None,
) -> Iterator[Runner]:  # fmt: skip
    """Start or join a cluster, unless this machine does so little sooner by itself.

    Parameters
    ----------
    cluster : ClusterOptions
    command, output : str
        What runs, and what it writes.
    small : bool
        So little is to be done that no cluster of this machine's own is worth its start.
    limits : Limits, optional
        What the workers may take; by default what the options say.

    Yields
    ------
    Runner
        Stopped by Ctrl-C and SIGTERM.
    """
    if limits is None:
        # Blocks are as large as the workers of a scheduler allow that were there at the start.
        needed = 0 if cluster.scheduler is None else cluster.memory
        limits = Limits(
            block=cluster.block_timeout or DEFAULT_BLOCK_TIMEOUT,
            memory=needed,
            outage=cluster.outage_timeout,
        )
    outcome = Outcome()
    with ending(outcome), stop_on_signals() as stop, contextlib.ExitStack() as stack:
        client = None
        if not (small and cluster.local):
            client = stack.enter_context(open_client(cluster, stop, limits.memory))
        watch = stack.enter_context(open_watch(command, output, client, cluster.dashboard))
        yield Runner(client, stop, watch, limits, outcome)
