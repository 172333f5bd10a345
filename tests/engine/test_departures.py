"""Workers that leave in the middle of a run: what becomes of the blocks that they had.

They are workers of a real Dask in threads of this process: many come up at once, and one leaves
exactly when it is to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Client, LocalCluster, get_worker
from distributed.utils import sync

from pipelines.cluster import remove
from pipelines.engine import Outcome, RunOptions, Task, run_on_cluster
from pipelines.engine.deaths import DEATHS_PER_BLOCK
from tests.cluster.test_scheduler import wait_for
from tests.support.runs import Silent
from tilenet.geometry import BlockGrid, Box
from tilenet.worker import BlockReport

BLOCKS = list(BlockGrid((3, 1, 1), (1, 1, 1)))
LEAVES, FIRST, SECOND = BLOCKS

#: Workers that Dask lets die under a task until it gives the task up by itself.
SUSPICIONS = 3


@pytest.fixture
def client() -> Iterator[Client]:
    """More workers than a block may lose, and some for the other blocks."""
    loopback = "127.0.0.1:0"
    with (
        LocalCluster(
            n_workers=DEATHS_PER_BLOCK + 3, threads_per_worker=1, processes=False,
            dashboard_address=loopback, worker_dashboard_address=loopback,
        ) as cluster,
        Client(cluster) as started,
    ):  # fmt: skip
        yield started


@dataclass(frozen=True)
class Leave:
    """Takes the worker of one block away, so many times, while the block is computed.

    Two other blocks last until it stays, and then end one after the other; it ends after them. So
    the run has heard of every worker that left, and looked at what it had, while the block flies.
    """

    folder: Path
    times: int
    expected: bool

    def __call__(self, box: Box) -> BlockReport:
        if box == LEAVES:
            self.leave()
        elif box == FIRST:
            wait_for((self.folder / "stays").exists)
        elif box == SECOND:
            wait_for((self.folder / str(FIRST)).exists)
        return BlockReport(box, {})

    def leave(self) -> None:
        begun = len(list(self.folder.glob("begun-*")))
        (self.folder / f"begun-{begun}").touch()
        if begun < self.times:
            worker = get_worker()
            sync(
                worker.loop, worker.scheduler.unregister, address=worker.address,
                expected=self.expected, stimulus_id="test",
            )  # fmt: skip
        else:
            (self.folder / "stays").touch()
            wait_for((self.folder / str(SECOND)).exists)


class Noting(Silent):
    """Leaves a file for every block that the run has recorded."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def advance(self, box: Box, result: BlockReport | str) -> None:
        super().advance(box, result)
        (self.folder / str(box)).touch()


def run(client: Client, task: Task, reporter: Silent, **changes: int) -> Outcome:
    options = RunOptions(name="test", reporter=reporter, **changes)  # type: ignore[arg-type]
    return run_on_cluster(task, BLOCKS, options, client=client)


def test_a_block_is_not_blamed_for_workers_that_were_sent_away(
    client: Client, tmp_path: Path
) -> None:
    reporter = Noting(tmp_path)
    outcome = run(client, Leave(tmp_path, DEATHS_PER_BLOCK, expected=True), reporter, retries=0)
    assert (outcome.computed, outcome.failed, outcome.retried) == (len(BLOCKS), [], 0)
    assert reporter.notes == []
    assert len(list(tmp_path.glob("begun-*"))) == DEATHS_PER_BLOCK + 1


def test_a_block_that_dask_gives_up_because_of_its_workers_is_not_tried_again_for_it(
    client: Client, tmp_path: Path
) -> None:
    # One less than what gives it up here; Dask does so before.
    task = Leave(tmp_path, DEATHS_PER_BLOCK - 1, expected=False)
    assert task.times > SUSPICIONS + 1
    outcome = run(client, task, Noting(tmp_path), retries=0)
    assert (outcome.computed, outcome.failed, outcome.retried) == (len(BLOCKS), [], 0)
    assert len(list(tmp_path.glob("begun-*"))) == DEATHS_PER_BLOCK


def test_a_block_whose_workers_all_died_is_given_up_whatever_tries_are_left(
    client: Client, tmp_path: Path
) -> None:
    outcome = run(
        client, Leave(tmp_path, DEATHS_PER_BLOCK, expected=False), Noting(tmp_path), retries=5
    )
    ((box, why),) = outcome.failed
    assert (box, outcome.computed, outcome.retried) == (LEAVES, len(BLOCKS) - 1, 0)
    assert f"{DEATHS_PER_BLOCK} of its workers died while they computed it" in why


@dataclass(frozen=True)
class Report:
    """Ends one block while the first is recorded; begun again, it lasts until the second is."""

    folder: Path

    def __call__(self, box: Box) -> BlockReport:
        begun = len(list(self.folder.glob(f"{box}-begun-*")))
        (self.folder / f"{box}-begun-{begun}").write_text(get_worker().address)
        if box == SECOND:
            wait_for((self.folder / str(FIRST)).exists)
        elif box == LEAVES:
            wait_for((self.folder / (str(SECOND) if begun else "recording")).exists)
        return BlockReport(box, {}, begun)


class Sending(Noting):
    """Sends the worker away that holds the report of a block, before that is fetched."""

    def __init__(self, folder: Path, client: Client) -> None:
        super().__init__(folder)
        self.client = client

    def advance(self, box: Box, result: BlockReport | str) -> None:
        if box == FIRST:
            (self.folder / "recording").touch()
            wait_for(lambda: "finished" in self.states())
            remove(self.client, [(self.folder / f"{LEAVES}-begun-0").read_text()])
            wait_for(lambda: "lost" in self.states())
        super().advance(box, result)

    def states(self) -> set[str]:
        futures = dict(self.client.futures)
        return {state.status for key, state in futures.items() if f"-{LEAVES}-" in str(key)}


def test_a_block_whose_worker_leaves_before_its_report_is_fetched_is_computed_again(
    client: Client, tmp_path: Path
) -> None:
    # In this order, so that the first one is recorded, and by itself, while the others are not.
    options = RunOptions(
        name="test", reporter=Sending(tmp_path, client), keep_reports=True, retries=0
    )
    outcome = run_on_cluster(Report(tmp_path), [FIRST, SECOND, LEAVES], options, client=client)
    assert (outcome.computed, outcome.failed, outcome.retried) == (len(BLOCKS), [], 0)
    assert {report.box: report.value > 0 for report in outcome.reports} == {
        FIRST: False, SECOND: False, LEAVES: True
    }  # fmt: skip
