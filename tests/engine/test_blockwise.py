"""One conformance suite for the engine: the plain loop is its specification."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Client

from pipelines.engine import Outcome, RunOptions, Task, ending, run_in_loop, run_on_cluster
from pipelines.engine.blockwise import WINDOW
from pipelines.stopping import Stop
from tests.support.runs import Silent, environment
from tilenet.errors import InvalidData
from tilenet.geometry import BlockGrid, Box
from tilenet.worker import BlockReport

BLOCKS = list(BlockGrid((4, 6, 10), (2, 3, 4)))
Run = Callable[[Task, Iterator[Box], RunOptions], Outcome]


@pytest.fixture(params=["loop", pytest.param("cluster", marks=pytest.mark.cluster)])
def run(request: pytest.FixtureRequest) -> Run:
    """Either engine, behind one signature."""
    if request.param == "loop":
        return run_in_loop
    client: Client = request.getfixturevalue("client")
    return lambda task, blocks, options: run_on_cluster(task, blocks, options, client=client)


def options(**changes: object) -> RunOptions:
    return RunOptions(**{"name": "test", "reporter": Silent(), "keep_reports": True, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Measure:
    """Reports the size of a block."""

    def __call__(self, box: Box) -> BlockReport:
        return BlockReport(box, {"compute": 0.5}, box.size)


@dataclass(frozen=True)
class Fail:
    """Fails on some blocks, as often as told; counts its attempts in files."""

    folder: str
    bad: tuple[Box, ...]
    times: int = 10**9

    def __call__(self, box: Box) -> BlockReport:
        attempts = Path(self.folder) / str(box).replace(":", "_")
        attempts.mkdir(exist_ok=True)
        (attempts / f"{time.time_ns()}").touch()
        if box in self.bad and len(list(attempts.iterdir())) <= self.times:
            raise InvalidData(f"Block {box}", "is bad", "Mend it.")
        return BlockReport(box, {})

    def attempts(self, box: Box) -> int:
        return len(list((Path(self.folder) / str(box).replace(":", "_")).iterdir()))


def test_every_block_is_done_once(run: Run) -> None:
    outcome = run(Measure(), iter(BLOCKS), options())
    assert sorted(str(r.box) for r in outcome.reports) == sorted(map(str, BLOCKS))
    assert all(report.value == report.box.size for report in outcome.reports)
    assert (outcome.computed, outcome.voxels, outcome.failed) == (len(BLOCKS), 240, [])
    assert outcome.seconds["compute"] == 0.5 * len(BLOCKS)
    assert outcome.stopped_by is None


def test_options_serve_several_runs(run: Run) -> None:
    chosen = options()
    for _ in range(2):
        outcome = run(Measure(), iter(BLOCKS), chosen)
        assert outcome.computed == len(outcome.reports) == len(BLOCKS)


def test_no_blocks_is_no_work(run: Run) -> None:
    outcome = run(Measure(), iter([]), options())
    assert (outcome.computed, outcome.failed, list(outcome.reports)) == (0, [], [])


def refuse(why: str) -> None:
    raise OSError(why)


def test_an_error_is_kept_with_what_was_done_from_when_a_run_has_begun(run: Run) -> None:
    outcome = Outcome(seconds={"wall": 1.0})  # a phase of that name says nothing
    with pytest.raises(OSError, match="before"), ending(outcome):
        refuse("before")
    run(Measure(), iter([]), options(outcome=outcome))
    with ending(outcome):
        refuse("after")
    assert str(outcome.ended_by) == "after"


def test_reports_are_dropped_unless_asked_for(run: Run) -> None:
    assert not list(run(Measure(), iter(BLOCKS), options(keep_reports=False)).reports)


def test_a_block_that_fails_is_tried_again_and_the_others_go_on(run: Run, tmp_path: Path) -> None:
    task = Fail(str(tmp_path), (BLOCKS[0], BLOCKS[5]))
    reporter = Silent()
    outcome = run(task, iter(BLOCKS), options(retries=2, reporter=reporter))
    assert outcome.computed == len(BLOCKS) - 2
    failed = dict(outcome.failed)
    assert set(failed) == {BLOCKS[0], BLOCKS[5]}
    assert failed[BLOCKS[0]].startswith(f"Block {BLOCKS[0]}: is bad. Mend it.")
    assert [task.attempts(box) for box in BLOCKS] == [3 if b in failed else 1 for b in BLOCKS]
    assert (reporter.finished, reporter.failed) == (len(BLOCKS), 2)
    assert sorted(str(box) for box, _ in reporter.retried) == sorted(map(str, [*failed, *failed]))
    assert {problem.partition(" [")[0] for _, problem in reporter.retried} == {
        problem.partition(" [")[0] for problem in failed.values()
    }
    assert outcome.retried == 4


@dataclass(frozen=True)
class Wrong(Fail):
    """Fails on some blocks by what is stored there."""

    def __call__(self, box: Box) -> BlockReport:
        try:
            return super().__call__(box)
        except InvalidData as error:
            raise InvalidData(error.what, error.problem, error.cure, lasting=True) from error


def test_values_that_cannot_change_are_not_tried_again(run: Run, tmp_path: Path) -> None:
    task = Wrong(str(tmp_path), (BLOCKS[0], BLOCKS[5]))
    outcome = run(task, iter(BLOCKS), options(retries=2))
    assert {box for box, _ in outcome.failed} == {BLOCKS[0], BLOCKS[5]}
    assert [task.attempts(box) for box in BLOCKS] == [1] * len(BLOCKS)
    assert outcome.retried == 0


def test_a_block_that_recovers_counts_as_done(run: Run, tmp_path: Path) -> None:
    task = Fail(str(tmp_path), (BLOCKS[1],), times=2)
    outcome = run(task, iter(BLOCKS), options(retries=2))
    assert (outcome.computed, outcome.failed, outcome.retried) == (len(BLOCKS), [], 2)
    assert task.attempts(BLOCKS[1]) == 3


def test_blocks_are_drawn_only_as_the_work_proceeds(run: Run) -> None:
    reporter, ahead = Silent(), [0]

    def draw() -> Iterator[Box]:
        for drawn, box in enumerate(BlockGrid((400, 1, 1), (1, 1, 1))):
            ahead[0] = max(ahead[0], drawn - reporter.finished)
            yield box

    run(Measure(), draw(), options(reporter=reporter))
    assert ahead[0] <= WINDOW


def test_a_stop_before_the_start_begins_nothing(run: Run) -> None:
    outcome = run(Measure(), iter(BLOCKS), options(stop=Stop(signal.SIGTERM)))
    assert outcome.stopped_by == signal.SIGTERM
    assert outcome.failed == []
    assert outcome.computed <= WINDOW  # what a cluster had begun when it looked


class StopAfter(Silent):
    """Asks to stop once some blocks are finished."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.stop = Stop()

    def advance(self, box: Box, result: BlockReport | str) -> None:
        super().advance(box, result)
        if self.finished == self.count:
            self.stop.signal = signal.SIGINT


def test_a_stop_in_the_middle_finishes_what_runs_and_begins_nothing(run: Run) -> None:
    reporter = StopAfter(3)
    grid = BlockGrid((400, 1, 1), (1, 1, 1))
    outcome = run(Measure(), iter(grid), options(reporter=reporter, stop=reporter.stop))
    assert outcome.stopped_by == signal.SIGINT
    assert outcome.failed == []
    assert 3 <= outcome.computed <= 3 + 2 * WINDOW
    assert len(outcome.reports) == outcome.computed


class StopAtRetry(Silent):
    """Asks to stop as soon as a block is to be tried again."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = Stop()

    def retry(self, box: Box, problem: str, *, noted: bool = False) -> None:
        super().retry(box, problem, noted=noted)
        self.stop.signal = signal.SIGTERM


def test_a_stop_between_two_attempts_gives_no_block_up(run: Run, tmp_path: Path) -> None:
    reporter = StopAtRetry()
    task = Fail(str(tmp_path), (BLOCKS[1],))
    outcome = run(task, iter(BLOCKS), options(reporter=reporter, stop=reporter.stop))
    assert outcome.stopped_by == signal.SIGTERM
    assert outcome.failed == []
    assert task.attempts(BLOCKS[1]) < 3


@dataclass(frozen=True)
class KillOnce:
    """Kills its own process at the first attempt at one block."""

    marker: str
    victim: Box

    def __call__(self, box: Box) -> BlockReport:
        if box == self.victim and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return BlockReport(box, {})


@pytest.mark.cluster
def test_a_killed_worker_loses_nothing(client: Client, tmp_path: Path) -> None:
    task = KillOnce(str(tmp_path / "killed"), BLOCKS[3])
    outcome = run_on_cluster(task, BLOCKS, options(), client=client)
    assert (tmp_path / "killed").exists()
    assert (outcome.computed, outcome.failed) == (len(BLOCKS), [])


@pytest.mark.cluster
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_drains_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    script = Path(__file__).parents[1] / "support" / "slow_run.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=environment(), start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("done-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # To the whole group, as a terminal's Ctrl-C does.
    os.killpg(process.pid, number if number == signal.SIGINT else 0)
    if number == signal.SIGTERM:
        process.send_signal(number)
    assert process.wait(timeout=60) == code
    begun = {p.name.removeprefix("begun-") for p in tmp_path.glob("begun-*")}
    done = {p.name.removeprefix("done-") for p in tmp_path.glob("done-*")}
    assert begun == done, "what was running was finished"
    assert 0 < len(done) < 100
    assert gone(process.pid), "no worker outlives the command"


def gone(group: int) -> bool:
    """Wait until no process of a group is left."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
