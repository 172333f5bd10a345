"""The arithmetic of a run's limits, on workers as the scheduler might describe them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from distributed import Client

from pipelines.cluster import SILENT_SECONDS, WorkerState
from pipelines.engine import Limits
from pipelines.engine.attempts import Reassignment
from pipelines.engine.deaths import DEATHS_IN_A_ROW
from pipelines.engine.supervisor import Supervisor
from tilenet.errors import WorkersDied, WorkersGone, WorkersUnfit

#: Seconds between two looks: no more than the interval of the supervisor, an eighth of the limit.
STEP, LIMIT = 1.0, 8.0

RESOURCES = frozenset(["GPU"])


class Looks:
    """A supervisor whose clock and scheduler are in the test's hand."""

    def __init__(self, patch: pytest.MonkeyPatch, patience: float = math.inf) -> None:
        self.now, self.workers = 100.0, [worker()]
        self.notes: list[str] = []
        patch.setattr(
            "pipelines.engine.supervisor.time", SimpleNamespace(monotonic=lambda: self.now)
        )
        patch.setattr("pipelines.engine.supervisor.survey", lambda client: self.workers)
        patch.setattr("pipelines.engine.supervisor.patience", lambda client: patience)
        self.supervisor = Supervisor(cast("Client", None), Limits(block=LIMIT), self.notes.append)

    def lose_worker(
        self, own: Sequence[str], given: str, rss: int | None = 10**9
    ) -> dict[str, Reassignment]:
        """Hear of the end of the worker, which took so much memory."""
        if rss is not None:
            self.supervisor._hear((0.0, {"worker": "tcp://w:1", "rss": rss}))
        told = {"action": "remove-worker", "worker": "tcp://w:1", "expected": False}
        self.supervisor._hear((0.0, {**told, "processing-tasks": set(given)}))
        return self.supervisor.check(lambda: own)

    def look(
        self, *workers: WorkerState, own: Sequence[str] = "abcdef", seconds: float = STEP
    ) -> dict[str, Reassignment]:
        self.now, self.workers = self.now + seconds, list(workers)
        return self.supervisor.check(lambda: own)

    def until_hung(
        self, *workers: WorkerState, most: int = 50, **more: Any
    ) -> tuple[float, set[str]]:
        """Look at the same again and again: after which time is what given up?"""
        start = self.now
        for _ in range(most):
            if found := self.look(*workers, **more):
                return self.now - start, set(found)
        return math.inf, set()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    found = Looks(monkeypatch)
    found.look(worker())  # the first one sets the clock
    return found


def worker(given: str = "", computed: str | None = None, **changes: Any) -> WorkerState:
    fields: dict[str, Any] = {
        "address": "tcp://w:1", "name": "w", "threads": 1, "memory": 0, "silent": 0.0,
        "processing": frozenset(given),
        "executing": frozenset(given if computed is None else computed),
    }  # fmt: skip
    return WorkerState(**fields | changes)


def test_a_block_alone_on_its_worker_has_the_limit(looks: Looks) -> None:
    # The look that first sees it counts nothing.
    assert looks.until_hung(worker("a")) == (LIMIT + 2 * STEP, {"a"})
    (note,) = looks.notes
    assert note.startswith("a: did not end on worker tcp://w:1 (w) within 0:00:09")


def test_a_block_that_waits_on_its_worker_does_not_hang(looks: Looks) -> None:
    assert looks.until_hung(worker("ab", "a"))[1] == {"a"}


def test_blocks_that_take_turns_have_as_many_limits_as_there_are_turns(looks: Looks) -> None:
    # Two threads of a worker: one block ends every six seconds, and each lasts twelve.
    names = "abcdef"
    for number in range(20):
        first = names[number % 6] + names[(number + 1) % 6]
        for _ in range(6):
            assert looks.look(worker(first, threads=2)) == {}
    assert looks.notes == []


def test_blocks_none_of_which_ends_have_one_limit(looks: Looks) -> None:
    assert looks.until_hung(worker("ab", threads=2)) == (LIMIT + 2 * STEP, {"a", "b"})


def test_one_that_hangs_beside_others_that_end_has_a_limit_for_each_turn(looks: Looks) -> None:
    start, others = looks.now, "bcdef"
    for number in range(50):
        if found := looks.look(worker(f"a{others[number % 5]}", threads=2)):
            break
    assert set(found) == {"a"}
    assert looks.now - start == 2 * LIMIT + 2 * STEP


def test_a_silent_worker_is_taken_to_compute_what_it_was_given_first(looks: Looks) -> None:
    silent = worker("cab", "", threads=2, silent=SILENT_SECONDS + 1)
    # In the order of submission, as many as it has threads.
    assert looks.until_hung(silent) == (LIMIT + 2 * STEP, {"a", "b"})


def test_blamed_for_an_end_is_what_was_computed(looks: Looks) -> None:
    # "d" was submitted last, and began before the others came.
    looks.look(worker("abd", "d"))
    assert set(looks.lose_worker("abcd", "abd")) == {"d"}
    # What began since the last look, in a slot that was free then, is what was given first.
    looks.look(worker("bd", "d", threads=2))
    assert set(looks.lose_worker("abcd", "abd")) == {"a", "d"}
    # What ended meanwhile had no part in it.
    looks.look(worker("bd", "d"))
    assert set(looks.lose_worker("abc", "bc")) == {"b"}


def test_a_pause_of_the_run_is_no_time_of_a_block(looks: Looks) -> None:
    looks.look(worker("a"))
    for _ in range(40):
        looks.now += STEP
        looks.workers = [worker("a")]
        assert looks.supervisor.check(lambda: ["a"], paused=True) == {}
    assert looks.until_hung(worker("a")) == (LIMIT + STEP, {"a"})


def test_the_end_of_a_worker_that_was_sent_away_is_no_blocks_fault(looks: Looks) -> None:
    looks.look(worker("a"))
    looks.supervisor.unfit._excused.add("tcp://w:1")
    assert looks.lose_worker("a", "a") == {}
    assert looks.notes == []
    # Once: another one at that address has ends of its own.
    looks.look(worker("a"))
    assert set(looks.lose_worker("a", "a")) == {"a"}


def test_a_run_whose_gpus_were_all_sent_away_ends_whoever_else_is_there(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks.supervisor.resources = RESOURCES
    looks.supervisor.client = cast("Client", SimpleNamespace(cluster=None))
    looks.supervisor.unfit._client = looks.supervisor.client
    monkeypatch.setattr("pipelines.engine.unfit.replace_unfit", lambda *_, again: None)
    looks.look(worker("a", resources=RESOURCES))
    looks.supervisor.remove_unfit("tcp://w:1", "no such device", for_good=True)
    with pytest.raises(WorkersUnfit, match="no such device"):
        looks.look(worker(address="tcp://cpu:1"))


def test_what_others_sent_is_not_ours_to_give_up(looks: Looks) -> None:
    assert looks.until_hung(worker("xy"), own="ab") == (math.inf, set())


def test_a_command_that_was_held_has_not_been_waiting(looks: Looks) -> None:
    looks.look(worker("a"))
    assert looks.look(worker("a"), seconds=1000 * LIMIT) == {}
    # It counts as two looks at most.
    assert looks.until_hung(worker("a")) == (LIMIT - STEP, {"a"})


def test_nobody_is_asked_more_often_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, asked = Looks(monkeypatch), itertools.count()
    monkeypatch.setattr(
        "pipelines.engine.supervisor.survey", lambda client: [worker(name=str(next(asked)))]
    )
    for _ in range(100):
        looks.look(seconds=STEP / 4)
    assert next(asked) == 25


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([], "No worker is left"),
        ([worker()], "No worker offers GPU"),
        ([worker(resources=RESOURCES, running=False)], "No worker takes blocks (all are paused"),
        ([worker(), worker("x", running=False, resources=RESOURCES)], "No worker takes blocks"),
    ],
)
def test_a_run_whose_blocks_no_worker_takes_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, others: list[WorkerState], words: str
) -> None:
    looks = Looks(monkeypatch, patience=30.0)
    looks.supervisor.resources = RESOURCES
    looks.look(worker("a", resources=RESOURCES))
    for _ in range(29):
        assert looks.look(*others) == {}
    assert len(looks.notes) == 2  # every ten seconds
    assert looks.notes[0].startswith(words)
    assert looks.notes[0].endswith("; waiting, 0:00:10 of 0:00:30")
    with pytest.raises(WorkersGone) as caught:
        looks.look(*others)
    assert str(caught.value).startswith(words)
    assert "none came within 0:00:30" in str(caught.value)


def test_a_worker_that_comes_back_begins_the_wait_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch, patience=5.0)
    looks.look()
    for _ in range(3):
        for _ in range(4):
            looks.look()
        looks.look(worker("a"))
    assert looks.notes == []
    for _ in range(4):
        looks.look()
    with pytest.raises(WorkersGone):
        looks.look()


def test_workers_that_compute_for_others_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch, patience=20.0)
    for _ in range(61):
        looks.look(worker("x"), own="ab")
    assert len(looks.notes) == 6
    assert looks.notes[-1] == "All workers compute what others sent; waiting, 0:01:00"


def test_a_run_that_waits_for_nothing_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch, patience=5.0)
    for _ in range(20):
        assert looks.look(own="") == {}
    assert looks.notes == []


def test_a_worker_that_comes_back_after_its_end_has_its_time_anew(looks: Looks) -> None:
    for _ in range(int(LIMIT)):
        assert looks.look(worker("a")) == {}
    looks.lose_worker("a", "a", rss=None)
    assert looks.until_hung(worker("a")) == (LIMIT + 2 * STEP, {"a"})


def test_workers_may_die_without_end_while_blocks_are_finished(looks: Looks) -> None:
    for number in range(2 * DEATHS_IN_A_ROW):
        looks.look(worker("abcdef"[number % 6]))
        looks.lose_worker("abcdef", "abcdef"[number % 6], rss=None)
        looks.supervisor.block_finished()
    for _ in range(DEATHS_IN_A_ROW - 1):
        looks.lose_worker("abcdef", "a", rss=None)
    with pytest.raises(WorkersDied, match=f"{DEATHS_IN_A_ROW} workers in a row"):
        looks.lose_worker("abcdef", "a", rss=None)
