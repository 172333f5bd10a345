"""Workers that fail block after block beside good ones: what it costs, and what is said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from distributed import Client
from zarr.errors import GroupNotFoundError

from pipelines.cluster import ClusterOptions, JobCluster, WorkerState, open_client
from pipelines.engine import Limits, Outcome, RunOptions, run_on_cluster
from pipelines.engine.attempts import Failure, Work
from pipelines.engine.suspects import FAILURES, Suspects
from pipelines.engine.unfit import UNFIT_IN_A_ROW, UNFIT_JOBS_IN_A_ROW, UnfitWorkers
from tests.cluster.test_scheduler import LONG, Processes, wait_for
from tests.support.acts import Faulty
from tests.support.runs import Silent
from tilenet.errors import UnreadableVolume, WorkersUnfit
from tilenet.geometry import BlockGrid, Box
from tilenet.worker import BlockReport

BLOCKS = list(BlockGrid((120, 1, 1), (1, 1, 1)))

#: What a worker of the fault that its environment names says.
REASONS = {
    "kind": "differs from the workers that the run began with: device is 'b', not 'a'. Stop it.",
    "device": "Device 'cuda:0': PyTorch finds no CUDA device here",
    "library": "ModuleNotFoundError: No module named 'h5py'",
    "mount": "em.zarr: does not exist. Mount it.",
    "system": "OSError: [Errno 5] Input/output error",
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Processes, Client]]:
    """A scheduler with two good workers."""
    with Processes(tmp_path) as dask, Client(dask.address) as client:
        for name in ("good1", "good2"):
            dask.worker(name)
        client.wait_for_workers(2, timeout=LONG)
        yield dask, client


def compute(client: Client, task: Faulty) -> tuple[Outcome, Silent]:
    reporter, outcome = Silent(), Outcome()
    options = RunOptions(name="test", reporter=reporter, outcome=outcome, keep_reports=True)
    run_on_cluster(task, BLOCKS, options, client=client)
    return outcome, reporter


@pytest.mark.cluster
@pytest.mark.parametrize("fault", REASONS)
def test_one_bad_worker_among_good_ones_costs_no_block(
    cluster: tuple[Processes, Client], tmp_path: Path, fault: str
) -> None:
    dask, client = cluster
    bad = dask.worker("bad", TILENET_TEST_FAULT=fault)
    client.wait_for_workers(3, timeout=LONG)
    outcome, reporter = compute(client, Faulty(str(tmp_path / "tries")))
    assert (outcome.computed, outcome.failed) == (len(BLOCKS), [])
    assert {report.value for report in outcome.reports} == {"good1", "good2"}
    said = [note for note in reporter.notes if "go elsewhere" in note]
    assert len(said) == 1, "each is sent away once"
    assert " (bad) is sent away, and its blocks go elsewhere: " in said[0]
    assert REASONS[fault] in said[0]
    wait_for(lambda: bad.poll() is not None)
    assert len(client.nthreads()) == 2


@pytest.mark.cluster
def test_a_bad_worker_takes_nothing_back_while_the_good_ones_compute(
    cluster: tuple[Processes, Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks last longer than all pauses together: whoever is idle would steal what waits.
    monkeypatch.setattr("pipelines.engine.outages.PAUSES", (0.2, 0.4, 0.8))
    dask, client = cluster
    dask.worker("bad", TILENET_TEST_FAULT="mount")
    client.wait_for_workers(3, timeout=LONG)
    failed, note = list[tuple[str, Box]](), Suspects.block_failed

    def seen(suspects: Suspects, worker: str, work: Work, failure: Failure) -> None:
        failed.append((worker, work.box))
        note(suspects, worker, work, failure)

    monkeypatch.setattr(Suspects, "block_failed", seen)
    task, reporter = Faulty(str(tmp_path / "tries"), seconds=4.0), Silent()
    options = RunOptions(name="test", reporter=reporter, limits=Limits(outage=2.0))
    outcome = run_on_cluster(task, BLOCKS[:12], options, client=client)
    assert (outcome.computed, outcome.failed) == (12, [])
    # What counts is what was known: a block that the bad worker takes and fails in the moment in
    # which it is being taken back was never seen to fail there.
    assert failed, "the bad worker had its chance"
    assert len(failed) == len(set(failed)), "no block goes where it was seen to fail"


class Killing(Silent):
    """Kills the worker that a block is to be sent to, before it is."""

    def __init__(self, task: Faulty, workers: dict[str, subprocess.Popen[bytes]]) -> None:
        super().__init__()
        self.task, self.processes = task, workers

    def retry(self, box: Box, problem: str, *, noted: bool = False) -> None:
        super().retry(box, problem, noted=noted)
        (name,) = self.task.workers(box)
        for other in self.processes.keys() - {name}:
            self.processes[other].kill()


@pytest.mark.cluster
def test_a_block_whose_only_other_worker_leaves_goes_back(tmp_path: Path) -> None:
    with Processes(tmp_path) as dask, Client(dask.address) as client:
        workers = {name: dask.worker(name) for name in ("one", "two")}
        client.wait_for_workers(2, timeout=LONG)
        task = Faulty(str(tmp_path / "tries"), once=True)
        options = RunOptions(name="test", reporter=Killing(task, workers))
        outcome = run_on_cluster(task, BLOCKS[:1], options, client=client)
    assert (outcome.computed, outcome.failed) == (1, [])
    assert len(task.workers(BLOCKS[0])) == 2


@pytest.mark.cluster
def test_a_failure_names_its_worker_and_the_retry_goes_to_another(
    cluster: tuple[Processes, Client], tmp_path: Path
) -> None:
    _, client = cluster
    task = Faulty(str(tmp_path / "tries"), bad=BLOCKS[7:8])
    outcome, reporter = compute(client, task)
    ((box, why),) = outcome.failed
    assert box == BLOCKS[7]
    assert outcome.computed == len(BLOCKS) - 1
    tried = task.workers(BLOCKS[7])
    assert len(tried) == 3
    assert tried[0] != tried[1], "elsewhere, where there is another worker"
    assert why.startswith("OSError: [Errno 5] Input/output error [worker tcp://127.0.0.1:")
    assert why.endswith(f" ({tried[-1]})]")
    for (where, problem), name in zip(reporter.retried, tried[:-1], strict=True):
        assert where == BLOCKS[7]
        assert problem.endswith(f" ({name})]")
    assert not any("sent away" in note or "replaced" in note for note in reporter.notes)


@dataclass(frozen=True)
class Caused:
    """Fails for a cause that cannot be sent."""

    kind: str

    def __call__(self, box: Box) -> BlockReport:
        if self.kind == "itself":
            raise GroupNotFoundError("store", "path")
        try:
            raise GroupNotFoundError("store", "path")
        except GroupNotFoundError as error:
            raise UnreadableVolume("nowhere.zarr", "is not there", "Look") from error


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("kind", "words"),
    [("cause", "nowhere.zarr: is not there. Look. ["), ("itself", "OSError: GroupNotFoundError: ")],
)
def test_errors_of_a_worker_arrive_as_what_they_are(client: Client, kind: str, words: str) -> None:
    options = RunOptions(name="test", reporter=Silent(), retries=0)
    outcome = run_on_cluster(Caused(kind), BLOCKS[:1], options, client=client)
    ((_, why),) = outcome.failed
    assert why.startswith(words)


@pytest.mark.cluster
def test_a_run_whose_workers_are_all_bad_ends_with_the_commonest_reason(tmp_path: Path) -> None:
    with Processes(tmp_path) as dask, Client(dask.address) as client:
        for name, fault in (("a", "kind"), ("b", "device"), ("c", "kind")):
            dask.worker(name, TILENET_TEST_FAULT=fault)
        client.wait_for_workers(3, timeout=LONG)
        outcome = Outcome()
        options = RunOptions(name="test", reporter=Silent(), outcome=outcome)
        with pytest.raises(WorkersUnfit) as caught:
            run_on_cluster(Faulty(str(tmp_path / "tries")), BLOCKS, options, client=client)
    assert str(caught.value).startswith("3 workers were sent away and no other is left")
    assert f"Most often: {REASONS['kind']}" in str(caught.value)
    assert (outcome.computed, outcome.failed) == (0, [])
    assert outcome.stopped == str(caught.value)


@pytest.mark.cluster
def test_a_local_worker_that_fails_is_started_anew_and_then_sent_away(tmp_path: Path) -> None:
    # Its fault is one of the first process of the worker 0: a process anew is a cure.
    with open_client(ClusterOptions(workers=2, slots=1, memory=2 * 10**9)) as client:
        before = set(client.run(os.getpid).values())
        task = Faulty(str(tmp_path / "tries"), first="0")
        outcome, reporter = compute(client, task)
        assert (outcome.computed, outcome.failed) == (len(BLOCKS), [])
        assert any(" (0) is replaced, and its blocks go elsewhere" in n for n in reporter.notes)
        client.wait_for_workers(2, timeout=LONG)
        assert len(before & set(client.run(os.getpid).values())) == 1


class Seats:
    """The workers of a run, with what would end them in the test's hand."""

    def __init__(self, patch: pytest.MonkeyPatch, cluster: object) -> None:
        self.ended: list[tuple[str, bool]] = []
        self.notes: list[str] = []

        def end(client: object, worker: str, name: str, *, again: bool) -> None:
            self.ended.append((worker, again))

        patch.setattr("pipelines.engine.unfit.replace_unfit", end)
        client = cast("Client", SimpleNamespace(cluster=cluster))
        self.unfit = UnfitWorkers(client, self.notes.append)

    def send(
        self, worker: str, *, name: str = "w", nanny: str = "tcp://a:9", for_good: bool = False,
        others: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        present = [seen(f"tcp://{other}", other) for other in others]
        self.unfit.remove(
            seen(worker, name, nanny), "no such device", for_good=for_good, present=present
        )


def seen(address: str, name: str, nanny: str = "") -> WorkerState:
    return WorkerState(address, name, 1, 0, 0.0, frozenset(), frozenset(), nanny=nanny)


def test_a_worker_is_started_anew_once_and_then_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    seats = Seats(monkeypatch, None)
    for address in ("tcp://a:1", "tcp://a:1", "tcp://a:2"):
        seats.send(address)
    seats.send("tcp://a:3", nanny="tcp://a:8", for_good=True)
    seats.send("tcp://a:4", nanny="")
    assert seats.ended == [
        ("tcp://a:1", True), ("tcp://a:2", False), ("tcp://a:3", False), ("tcp://a:4", False)
    ]  # fmt: skip
    assert [" is replaced, " in note for note in seats.notes] == [True, False, False, False]


def test_workers_of_one_job_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seats = Seats(monkeypatch, JobCluster.__new__(JobCluster))
    seats.send("tcp://a:1", name="job1-0", others=("job1-1", "job2-0"))
    seats.send("tcp://job1-1", name="job1-1")
    assert seats.ended == [("tcp://a:1", True)]
    assert seats.unfit._excused == {"tcp://a:1", "tcp://job1-1"}
    seats.unfit.check(["tcp://job2-0"])
    # One whose job is not cancelled yet may come back: it is the same, and is ended again.
    seats.send("tcp://a:2", name="job1-0")
    assert [address for address, _ in seats.ended] == ["tcp://a:1", "tcp://a:2"]
    assert len(seats.notes) == 1


@pytest.mark.parametrize(("jobs", "most"), [(True, UNFIT_JOBS_IN_A_ROW), (False, UNFIT_IN_A_ROW)])
def test_a_run_goes_on_while_another_worker_may_come(
    monkeypatch: pytest.MonkeyPatch, jobs: bool, most: int
) -> None:
    seats = Seats(monkeypatch, JobCluster.__new__(JobCluster) if jobs else None)
    seats.unfit.check([])
    for n in range(most):
        seats.unfit.check([])  # another is on its way
        seats.send(f"tcp://a:{n}", name=f"job{n}", nanny=f"tcp://a:9{n}")
        seats.unfit.check([f"tcp://a:{n}", "tcp://b:1"])
    with pytest.raises(WorkersUnfit, match=f"{most} workers were sent away.*: no such device"):
        seats.unfit.check([])
    seats.unfit.block_finished()
    seats.unfit.check([])


def test_a_worker_that_is_sent_away_for_good_is_not_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seats = Seats(monkeypatch, None)
    seats.send("tcp://a:1", nanny="")
    with pytest.raises(WorkersUnfit, match="1 workers were sent away"):
        seats.unfit.check(["tcp://a:1"])


def test_a_worker_that_is_started_anew_is_awaited_whoever_is_sent_away_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seats = Seats(monkeypatch, None)
    seats.send("tcp://a:1", nanny="")
    seats.send("tcp://a:2", name="v")
    monkeypatch.setattr("pipelines.engine.unfit.UNFIT_IN_A_ROW", 9)
    seats.send("tcp://a:3", name="u", nanny="")
    seats.unfit.check([])  # v is to come again


def test_another_worker_may_come_at_the_address_of_a_bad_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seats = Seats(monkeypatch, None)
    seats.send("tcp://a:1", nanny="")
    seats.unfit.check(["tcp://b:1"])
    seats.send("tcp://a:1", nanny="")  # what failed there arrives late
    assert len(seats.ended) == 1
    seats.unfit.check(["tcp://a:1"])
    assert "tcp://a:1" not in seats.unfit
    seats.send("tcp://a:1", nanny="")
    assert len(seats.ended) == 2


# -- what speaks against a worker -----------------------------------------------------------------


def record(suspects: Suspects, worker: str, works: list[Work]) -> None:
    for work in works:
        suspects.block_failed(worker, work, Failure("away", worker))


def test_a_worker_is_bad_when_it_fails_what_others_finish_and_goes_on_to_fail() -> None:
    works = [Work(box) for box in BLOCKS[:6]]
    suspects = Suspects()
    record(suspects, "w", works[:FAILURES])
    suspects.block_finished("v", works[0])
    assert suspects.take_bad() == {}, "it may have met what passed for all"
    record(suspects, "w", works[FAILURES : FAILURES + 1])
    assert suspects.take_bad() == {}, "the others may fail since"
    suspects.block_finished("v", works[1])
    assert suspects.take_bad() == {"w": "away"}
    assert suspects.take_bad() == {}
    assert not suspects


def test_a_worker_that_finishes_a_block_is_good_again() -> None:
    works = [Work(box) for box in BLOCKS[:6]]
    suspects = Suspects()
    record(suspects, "w", works[:4])
    suspects.block_finished("v", works[0])
    suspects.block_finished("w", works[5])
    record(suspects, "w", works[4:5])
    suspects.block_finished("v", works[1])
    suspects.block_finished("v", works[4])
    assert suspects.take_bad() == {}


def test_a_worker_whose_blocks_fail_elsewhere_too_is_not_bad() -> None:
    works = [Work(box) for box in BLOCKS[:6]]
    suspects = Suspects()
    for worker in ("v", "w"):
        record(suspects, worker, works[:5])
    suspects.block_finished("u", works[5])
    assert suspects.take_bad() == {}
    assert suspects.workers == {"v", "w"}


def test_two_failures_are_too_few() -> None:
    works = [Work(box) for box in BLOCKS[:2]]
    suspects = Suspects()
    for work in works:
        record(suspects, "w", [work])
        suspects.block_finished("v", work)
    assert suspects.take_bad() == {}


def test_what_failed_on_a_bad_worker_was_no_try() -> None:
    work = Work(BLOCKS[0])
    for worker in ("w", "v", "w"):
        work.fail(Failure("away", worker))
    work.forgive("w")
    assert [failure.worker for failure in work.failures] == ["v"]
    assert work.avoided == {"v", "w"}
