"""Where blocks that are tried again are sent, and what becomes of them when nobody is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from distributed import Client, Future, LocalCluster, get_worker

from pipelines.cluster import WorkerState
from pipelines.engine import RunOptions, run_on_cluster
from pipelines.engine.attempts import Failure, Work
from pipelines.engine.blockwise import _ClusterRun
from pipelines.engine.outages import FAILURES_IN_A_ROW
from tests.support.runs import Silent
from tilenet.geometry import BlockGrid, Box
from tilenet.worker import BlockReport

BLOCKS = list(BlockGrid((24, 1, 1), (1, 1, 1)))


#: Names of the workers that fail; the other two are good.
BAD = ("2", "3")


@pytest.fixture
def client() -> Iterator[Client]:
    """Four workers in threads of this process."""
    loopback = "127.0.0.1:0"
    with (
        LocalCluster(
            n_workers=4, threads_per_worker=1, processes=False,
            dashboard_address=loopback, worker_dashboard_address=loopback,
        ) as cluster,
        Client(cluster) as started,
    ):  # fmt: skip
        yield started


@dataclass(frozen=True)
class Picky:
    """Fails on bad workers; notes where each block was tried."""

    folder: Path

    def __call__(self, box: Box) -> BlockReport:
        name = str(get_worker().name)
        with (self.folder / str(box).replace(":", "_")).open("a") as file:
            file.write(f"{name}\n")
        if name in BAD:
            raise OSError(5, "Input/output error")
        return BlockReport(box, {})

    def tried(self, box: Box) -> list[str]:
        return (self.folder / str(box).replace(":", "_")).read_text().split()


@pytest.mark.cluster
def test_what_failed_on_one_bad_worker_is_not_sent_to_the_other(
    client: Client, tmp_path: Path
) -> None:
    task = Picky(tmp_path)
    options = RunOptions(name="test", reporter=Silent())
    outcome = run_on_cluster(task, BLOCKS, options, client=client)
    assert (outcome.computed, outcome.failed) == (len(BLOCKS), [])
    bad = [sum(name in BAD for name in task.tried(box)) for box in BLOCKS]
    assert max(bad) == 1


# -- one step of a run, on workers as the scheduler might describe them ----------------------------


def seen(address: str, **changes: Any) -> WorkerState:
    fields = {"threads": 1, "memory": 0, "silent": 0.0, "executing": frozenset()}
    return WorkerState(
        **{"address": address, "name": address, "processing": frozenset(), **fields, **changes}
    )


@dataclass(eq=False)
class Flight:
    """Stands for a future that is not done."""

    key: str

    def done(self) -> bool:
        return False


class Step:
    """A run whose workers and blocks in flight are in the test's hand."""

    def __init__(self, *workers: WorkerState) -> None:
        self.cancelled: list[Any] = []
        client = SimpleNamespace(cluster=None, cancel=self.cancelled.extend)
        options = RunOptions(name="test", reporter=Silent())
        self.run = _ClusterRun(
            lambda box: BlockReport(box, {}), [], options, cast("Client", client)
        )
        self.run.supervisor._present = list(workers)

    def fly(self, key: str, *places: str) -> Work:
        work = Work(BLOCKS[0], sent_to=places)
        self.run.in_flight.works[cast("Future", Flight(key))] = work
        return work

    def fail(self, *addresses: str) -> None:
        """Have blocks fail until the run pauses, on each worker in turn."""
        for n in range(FAILURES_IN_A_ROW):
            address = addresses[n % len(addresses)]
            work, failure = Work(BLOCKS[n]), Failure("away", address)
            self.run.suspects.block_failed(address, work, failure)
            self.run.block_failed(work, failure, transient=True)
        assert self.run.breaker.open


@pytest.mark.parametrize(
    ("places", "worker", "back"),
    [
        ((), seen("w"), False),
        (("w", "v"), seen("w"), False),
        (("v",), seen("w"), True),
        (("w",), seen("w", running=False), True),
        (("w",), seen("w", running=False, executing=frozenset(["a"])), False),
    ],
)
def test_a_block_goes_back_when_nobody_takes_it_where_it_was_sent(
    places: tuple[str, ...], worker: WorkerState, back: bool
) -> None:
    step = Step(worker)
    work = step.fly("a", *places)
    step.run._requeue_stranded()
    assert step.run.backlog.waiting == ([work] if back else [])
    assert [flight.key for flight in step.cancelled] == (["a"] if back else [])
    assert len(step.run.in_flight) == (not back)


def test_nothing_is_held_against_a_worker_that_left() -> None:
    step = Step(seen("w"))
    for address in ("v", "w"):
        step.run.suspects.block_failed(address, Work(BLOCKS[0]), Failure("away", address))
    step.run._requeue_stranded()
    assert step.run.suspects.workers == {"w"}


@pytest.mark.parametrize(("failing", "held_against"), [(("v", "w"), set()), (("w",), {"w"})])
def test_an_outage_that_all_workers_met_is_held_against_none(
    monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...], held_against: set[str]
) -> None:
    monkeypatch.setattr("pipelines.engine.in_flight.running_keys", lambda client, stopped: set())
    step = Step(seen("v"), seen("w"))
    step.fail(*failing)
    step.run._on_outage()
    assert step.run.suspects.workers == held_against
