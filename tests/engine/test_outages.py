"""What is away for a while: the breaker by itself, and both engines that wait."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Client

from pipelines.engine import Limits, Outcome, RunOptions, Task, run_in_loop, run_on_cluster
from pipelines.engine.attempts import JITTER, MAX_WAITING, RETRY_DELAYS, Backlog, Failure, Work
from pipelines.engine.outages import (
    FAILURES_IN_A_ROW,
    MAX_FORGIVEN_OUTAGES,
    PAUSES,
    CircuitBreaker,
    is_transient,
)
from pipelines.stopping import Stop
from tests.support.runs import Silent
from tilenet.errors import (
    InvalidData,
    NonFiniteValues,
    OutageLasted,
    StoreFailed,
    UnreadableBlock,
    UnreadableVolume,
)
from tilenet.geometry import BlockGrid, Box
from tilenet.worker import BlockReport

MANY = list(BlockGrid((300, 1, 1), (1, 1, 1)))
Run = Callable[[Task, Iterator[Box], RunOptions], Outcome]


class Hand:
    """A clock in the test's hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture(params=["loop", pytest.param("cluster", marks=pytest.mark.cluster)])
def run(request: pytest.FixtureRequest) -> Run:
    """Either engine, behind one signature."""
    if request.param == "loop":
        return run_in_loop
    client: Client = request.getfixturevalue("client")
    return lambda task, blocks, options: run_on_cluster(task, blocks, options, client=client)


# -- blocks that are tried again ------------------------------------------------------------------


def test_a_block_waits_longer_from_try_to_try_and_by_chance(hand: Hand) -> None:
    waits: list[list[float]] = [[], []]
    for _ in range(200):
        work = Work(MANY[0])
        for n, found in enumerate(waits):
            backlog = Backlog(iter(()), hand)
            work.fail(Failure("away"))
            backlog.retry_later(work)
            hand.now, start = hand.now + RETRY_DELAYS[n] * (1 - JITTER) - 1e-6, hand.now
            assert backlog.take(1) == []
            while not backlog.take(1):
                hand.now += 0.01
            found.append(hand.now - start)
    for n, found in enumerate(waits):
        assert min(found) >= RETRY_DELAYS[n] * (1 - JITTER) - 1e-5
        assert max(found) <= RETRY_DELAYS[n] * (1 + JITTER) + 0.02
        assert max(found) - min(found) > RETRY_DELAYS[n] * JITTER, "not all at once"
    assert min(waits[1]) > max(waits[0])


def test_what_waits_comes_before_what_is_fresh(hand: Hand) -> None:
    backlog = Backlog(iter(MANY[:3]), hand)
    (first,) = backlog.take(1)
    backlog.requeue(first)
    assert [work.box for work in backlog.take(2)] == MANY[:2]
    assert not backlog.empty
    assert [work.box for work in backlog.take(2)] == MANY[2:3]
    assert backlog.empty


def test_no_fresh_block_is_begun_while_very_many_wait(hand: Hand) -> None:
    backlog = Backlog(iter(BlockGrid((3 * MAX_WAITING, 1, 1), (1, 1, 1))), hand)
    for work in backlog.take(MAX_WAITING):
        work.fail(Failure("away"))
        backlog.retry_later(work)
    assert backlog.take(5) == []
    hand.now += 10
    assert len(backlog.take(5)) == 5


# -- the breaker ----------------------------------------------------------------------------------


def fail(breaker: CircuitBreaker, work: Work, slots: int = 1, worker: str | None = None) -> bool:
    failure = Failure("the disk is away", worker)
    work.fail(failure)
    return breaker.block_failed(work, failure, slots)


def state(breaker: CircuitBreaker) -> str:
    if breaker.error is not None:
        return "lasted"
    if not breaker.open:
        return "on"
    if not breaker.paused:
        return "trying"
    return "ready" if breaker.may_probe else "paused"


@pytest.mark.parametrize(("slots", "count"), [(1, 8), (4, 8), (5, 10), (40, 80)])
def test_a_run_pauses_after_so_many_failures_in_a_row(hand: Hand, slots: int, count: int) -> None:
    breaker = CircuitBreaker(600, lambda _: None, hand)
    works = [Work(box) for box in MANY[:count]]
    assert not any(fail(breaker, work, slots) for work in works[:-1])
    breaker.block_finished()  # then it was no outage
    assert not any(fail(breaker, work, slots) for work in works[:-1])
    assert state(breaker) == "on"
    assert fail(breaker, works[-1], slots)
    assert state(breaker) == "paused"
    # The first of them count from before the finished block.
    assert [len(work.failures) for work in works] == [1] * (count - 1) + [0]


def test_pauses_grow_and_one_block_is_tried_after_each_until_the_limit(hand: Hand) -> None:
    notes: list[str] = []
    breaker, start = CircuitBreaker(300, notes.append, hand), hand.now
    works = [Work(box) for box in MANY[:FAILURES_IN_A_ROW]]
    for work in works:
        fail(breaker, work)
    pauses = [*PAUSES, 60.0, 60.0, 60.0, 9.0]
    assert sum(pauses) == 300
    for n, pause in enumerate(pauses):
        assert state(breaker) == "paused"
        hand.now += pause - 1e-6
        assert state(breaker) == "paused"
        hand.now += 2e-6
        assert state(breaker) == "ready"
        breaker.begin_probe(works[n % 3])
        assert state(breaker) == "trying"
        # What was computed when the pause began fails without a consequence.
        fail(breaker, works[5])
        assert state(breaker) == "trying"
        fail(breaker, works[n % 3])
    assert state(breaker) == "lasted", "nothing else is begun"
    assert "over 0:05:00 of pauses (--outage-timeout)" in str(breaker.error)
    assert hand.now - start == pytest.approx(300, abs=0.001)
    assert all(not work.failures for work in works), "an outage is no try of any block"
    assert notes[0].startswith("Paused: 8 blocks in a row failed and none was finished. The last:")
    assert notes[1].startswith("One block is tried in 0:00:01; paused 0:00:01 of 0:05:00")
    assert len(notes) == 1 + len(pauses)


def test_a_block_that_ends_well_ends_an_outage_that_lasted(hand: Hand) -> None:
    breaker, works = (
        CircuitBreaker(0.5, lambda _: None, hand),
        [Work(box) for box in MANY[:FAILURES_IN_A_ROW]],
    )
    for work in works:
        fail(breaker, work)
    breaker.begin_probe(works[0])
    fail(breaker, works[0])
    assert state(breaker) == "lasted"
    breaker.block_finished()  # one that was computed all the while
    assert state(breaker) == "on"


def test_where_few_are_left_the_last_try_of_one_is_a_pause(hand: Hand) -> None:
    breaker, (one, other) = (
        CircuitBreaker(600, lambda _: None, hand),
        [Work(box) for box in MANY[:2]],
    )
    for _ in range(2):
        fail(breaker, one)
        fail(breaker, other)
    failure = Failure("the disk is away")
    one.fail(failure)
    assert breaker.block_failed(one, failure, 4, spent=True)
    assert one.failures == other.failures == []


def test_the_last_try_of_a_block_alone_is_no_pause(hand: Hand) -> None:
    breaker, (one, other) = (
        CircuitBreaker(600, lambda _: None, hand),
        [Work(box) for box in MANY[:2]],
    )
    fail(breaker, one)
    breaker.block_finished()  # so it was the block
    fail(breaker, other)
    for work, spent in ((one, False), (one, True)):
        failure = Failure("the disk is away")
        work.fail(failure)
        assert not breaker.block_failed(work, failure, 4, spent=spent)
    alone, breaker = Work(MANY[2]), CircuitBreaker(600, lambda _: None, hand)
    for _ in range(3):
        failure = Failure("the disk is away")
        alone.fail(failure)
        assert not breaker.block_failed(alone, failure, 4, spent=len(alone.failures) == 3)


def test_neighbours_that_look_like_an_outage_again_and_again_are_none(hand: Hand) -> None:
    breaker, works = (
        CircuitBreaker(600, lambda _: None, hand),
        [Work(box) for box in MANY[:FAILURES_IN_A_ROW]],
    )
    for _ in range(MAX_FORGIVEN_OUTAGES):
        for work in works:
            assert breaker.may_forgive(work)
            fail(breaker, work)
        assert all(breaker.may_forgive(work) for work in works), "within one outage"
        breaker.block_finished()
    assert not any(breaker.may_forgive(work) for work in works)
    assert all(not work.failures for work in works)


def test_every_second_block_that_is_tried_has_not_failed_yet(hand: Hand) -> None:
    breaker = CircuitBreaker(600, lambda _: None, hand)
    backlog = Backlog(iter(MANY), hand)
    works = backlog.take(FAILURES_IN_A_ROW)
    for work in works:
        fail(breaker, work)
        backlog.retry_later(work)
    tried = []
    for _ in range(6):
        hand.now += 60
        (work,) = backlog.take_probe(untried=breaker.probe_untried)
        tried.append(work.tried)
        breaker.begin_probe(work)
        fail(breaker, work)
        backlog.retry_later(work)
    assert tried == [True, False] * 3
    few = Backlog(iter(()), hand)
    few.requeue(works[0])
    assert few.take_probe(untried=True) == [works[0]], "whatever is left"


def test_waits_end_when_what_was_away_is_back(hand: Hand) -> None:
    backlog = Backlog(iter(()), hand)
    for box in MANY[:3]:
        work = Work(box)
        work.fail(Failure("away"))
        backlog.retry_later(work)
    assert backlog.take(3) == []
    backlog.end_waits()
    assert len(backlog.take(3)) == 3


def test_a_finished_block_ends_the_pause(hand: Hand) -> None:
    notes: list[str] = []
    breaker, works = (
        CircuitBreaker(math.inf, notes.append, hand),
        [Work(box) for box in MANY[:FAILURES_IN_A_ROW]],
    )
    for work in works:
        fail(breaker, work)
    breaker.block_finished()
    assert not breaker.open
    assert notes[-1] == "Going on after 0:00:01 of pauses: a block was finished"
    for work in works:
        fail(breaker, work)
    assert notes[-1].startswith("One block is tried in 0:00:01; paused 0:00:01 of for ever")


def test_a_probe_that_is_lost_is_replaced_by_another(hand: Hand) -> None:
    breaker, works = (
        CircuitBreaker(600, lambda _: None, hand),
        [Work(box) for box in MANY[:FAILURES_IN_A_ROW]],
    )
    for work in works:
        fail(breaker, work)
    hand.now += PAUSES[0]
    breaker.begin_probe(works[0])
    breaker.withdrawn(works[1])
    assert state(breaker) == "trying"
    breaker.withdrawn(works[0])  # its worker was killed
    assert state(breaker) == "ready"


def test_what_stays_as_it_is_is_no_outage() -> None:
    for passing in (
        OSError(5, "Input/output error"), StoreFailed("s3://b", "is away", "Wait."),
        UnreadableVolume("a.zarr", "is gone", "Look."), UnreadableBlock("a", "b", "out of reach"),
        RuntimeError("CUDA error: unknown error"),
    ):  # fmt: skip
        assert is_transient(passing)
    for lasting in (
        UnreadableBlock("a.zarr", "z=0:1", "checksum", damaged=True), NonFiniteValues("a", "b", 3),
        InvalidData("Output", "was replaced", "Run again."), TypeError("int"), KeyError("x"),
    ):  # fmt: skip
        assert not is_transient(lasting)


# -- both engines ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Away:
    """Fails while a file is there."""

    flag: str

    def __call__(self, box: Box) -> BlockReport:
        if Path(self.flag).exists():
            raise OSError(5, "Input/output error", "em.zarr")
        return BlockReport(box, {})


class Beginning(Silent):
    """Calls a function once some blocks are finished."""

    def __init__(self, count: int, then: Callable[[], object]) -> None:
        super().__init__()
        self.count, self.then = count, then

    def advance(self, box: Box, result: BlockReport | str) -> None:
        super().advance(box, result)
        if self.finished == self.count:
            self.then()


@pytest.fixture
def flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that says that something is away; pauses are short."""
    monkeypatch.setattr("pipelines.engine.outages.PAUSES", (0.2, 0.4, 0.8))
    return tmp_path / "away"


def options(reporter: Silent, **changes: object) -> RunOptions:
    return RunOptions(**{"name": "test", "reporter": reporter, **changes})  # type: ignore[arg-type]


def test_a_short_outage_fails_no_block(run: Run, flag: Path) -> None:
    timer = threading.Timer(1.5, flag.unlink)

    def begin() -> None:
        flag.touch()
        timer.start()

    reporter = Beginning(40, begin)
    outcome = run(Away(str(flag)), iter(MANY), options(reporter))
    timer.join()
    assert (outcome.computed, outcome.failed, outcome.stopped) == (len(MANY), [], None)
    assert outcome.retried > 0
    assert any(note.startswith("Paused: ") for note in reporter.notes)
    assert reporter.notes[-1].startswith("Going on after ")
    assert reporter.failed == 0


def test_an_outage_that_lasts_ends_the_run_and_fails_no_block(run: Run, flag: Path) -> None:
    reporter, outcome = Beginning(40, flag.touch), Outcome()
    limits = Limits(outage=1.0)
    with pytest.raises(OutageLasted, match="Input/output error"):
        run(
            Away(str(flag)), iter(MANY), options(reporter, limits=limits, outcome=outcome)
        )  # fmt: skip
    assert 40 <= outcome.computed < len(MANY)
    assert outcome.failed == []
    assert reporter.failed == 0
    assert outcome.stopped is not None
    assert "over 0:00:01 of pauses" in outcome.stopped
    assert "wall" in outcome.seconds


def test_a_paused_run_stops_when_it_is_told_to(run: Run, flag: Path) -> None:
    flag.touch()
    stop = Stop()
    threading.Timer(1.0, lambda: setattr(stop, "signal", 2)).start()
    outcome = run(Away(str(flag)), iter(MANY), options(Silent(), stop=stop))
    assert (outcome.stopped_by, outcome.computed, outcome.failed) == (2, 0, [])


@pytest.mark.parametrize("count", [2, 5])
def test_a_short_outage_at_the_end_fails_no_block(run: Run, flag: Path, count: int) -> None:
    flag.touch()
    threading.Timer(9.0, flag.unlink).start()
    outcome = run(Away(str(flag)), iter(MANY[:count]), options(Silent()))
    assert (outcome.computed, outcome.failed) == (count, [])


@dataclass(frozen=True)
class Unreadable:
    """Has a row of blocks that the system never gives."""

    bad: tuple[Box, ...]

    def __call__(self, box: Box) -> BlockReport:
        if box in self.bad:
            raise OSError(5, "Input/output error", "em.zarr")
        return BlockReport(box, {})


def test_neighbours_that_stay_unreadable_fail_and_the_others_go_on(
    run: Run, flag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.engine.attempts.RETRY_DELAYS", (0.05,))
    outcome, bad = Outcome(), MANY[100:112]
    # Long enough that hardly ever all of the fresh blocks that are tried are among the bad ones.
    chosen = options(Silent(), limits=Limits(outage=5.0), outcome=outcome)
    # Where the others were done in fewer rounds than these are forgiven, nothing is left but them.
    with contextlib.suppress(OutageLasted):
        run(Unreadable(tuple(bad)), iter(MANY), chosen)
    assert outcome.computed == len(MANY) - 12
    failed = {box for box, _ in outcome.failed}
    assert failed <= set(bad)
    assert outcome.stopped or failed == set(bad)


@dataclass(frozen=True)
class Broken:
    """Has a row of blocks that no try mends."""

    bad: tuple[Box, ...]

    def __call__(self, box: Box) -> BlockReport:
        if box in self.bad:
            raise NonFiniteValues("em.zarr", str(box), 1)
        return BlockReport(box, {})


def test_many_blocks_that_cannot_be_done_are_no_outage(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.engine.attempts.RETRY_DELAYS", (0.05,))
    reporter = Silent()
    outcome = run(Broken(tuple(MANY[:100])), iter(MANY), options(reporter))
    assert {box for box, _ in outcome.failed} == set(MANY[:100])
    assert outcome.computed == 200
    assert not any("Paused" in note for note in reporter.notes)
