"""The count of a run's jobs, on workers and a queue as they might describe themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from distributed import Client

from pipelines.cluster import ClusterOptions, JobCluster
from pipelines.cluster.job_cluster import UNFIT
from pipelines.cluster.job_queue import JobQueue
from pipelines.cluster.jobs import IDLE_SECONDS, Jobs, _Worker
from pipelines.cluster.queueing import Listed
from tests.support.jobs import slurm_batch

#: Seconds between two looks: so long that the queue is asked at each, and no job is idle.
STEP = 11.0

#: What the queue says of a job, phase by phase.
SAID = {
    "waiting": Listed("waiting", "PENDING (BeginTime)"),
    "running": Listed("running", "RUNNING"),
    "ending": Listed("ending", "COMPLETING"),
    "ended": Listed("ended", "CANCELLED"),
}


class Looks:
    """Jobs whose clock, queue and scheduler are in the test's hand; work for one job at first."""

    def __init__(self, patch: pytest.MonkeyPatch, **keys: Any) -> None:
        self.now, self.submitted, self.tasks = 100.0, 0, 1
        self.cancelled: list[str] = []
        self.workers: list[_Worker] = []
        self.queue: dict[str, Listed] = {}
        where = "pipelines.cluster.jobs"
        patch.setattr(f"{where}.PAUSE_SECONDS", 0.0)
        patch.setattr(f"{where}.time", SimpleNamespace(monotonic=lambda: self.now))
        patch.setattr(JobQueue, "listed", lambda queue: self.queue)
        patch.setattr(JobQueue, "submit", lambda queue, worker: self.submit())
        patch.setattr(JobQueue, "cancel", lambda queue, numbers: self.cancelled.extend(numbers))
        known = SimpleNamespace(sync=self.sync, held=False, scheduler=SimpleNamespace(address=""))
        self.cluster = cast("JobCluster", known)
        options = ClusterOptions(batch=slurm_batch(**keys), slots=1)
        self.jobs = Jobs(options, self.cluster, cast("Client", None))

    def sync(self, question: Any, *addresses: Any) -> Any:
        return True if addresses else (self.workers, self.tasks)

    def submit(self) -> str:
        self.submitted += 1
        return str(self.submitted)

    def look(self, *workers: _Worker, **queue: str) -> None:
        """Look at workers, and at a queue that says this of the jobs."""
        self.now += STEP
        self.workers = list(workers)
        self.queue = {name.removeprefix("job"): SAID[phase] for name, phase in queue.items()}
        self.jobs._look()


def worker(job: str, *, ending: bool = False, busy: bool = True) -> _Worker:
    return _Worker(f"tcp://{job}:1", f"{job}-0", busy=busy, ending=ending)


def test_a_job_that_was_preempted_and_queued_again_counts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = Looks(monkeypatch)
    looks.look()
    looks.look(worker("job1"), job1="running")
    assert looks.submitted == 1
    # Preempted: its worker takes no further block, and is replaced while it ends.
    looks.look(worker("job1", ending=True), job1="running")
    assert looks.submitted == 2
    looks.look(job1="ending", job2="waiting")
    looks.look(job1="waiting", job2="running")
    looks.look(worker("job1"), worker("job2"), job1="running", job2="running")
    # The other one is over, and the first, which computes again, is as many as are wanted.
    looks.look(worker("job1"), job1="running", job2="ended")
    looks.look(worker("job1"), job1="running")
    assert looks.submitted == 2
    # A job that takes no further block and is not queued again is none.
    looks.look(worker("job1", ending=True), job1="running")
    assert looks.submitted == 3


def test_a_job_whose_workers_end_is_replaced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    looks.look()
    for _ in range(3):
        looks.look(worker("job1", ending=True), job1="running", job2="waiting")
        assert looks.submitted == 2
    looks.look(job1="ending", job2="waiting")
    looks.look(worker("job2"), job1="ended", job2="running")
    assert looks.submitted == 2


def test_jobs_that_have_nothing_to_do_are_kept_while_the_run_is_paused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = Looks(monkeypatch, max_jobs=2)
    looks.tasks, said = 2, {"job1": "running", "job2": "running"}
    looks.look()
    assert looks.submitted == 2
    idle = [worker(name, busy=False) for name in said]
    looks.tasks, looks.cluster.held = 0, True
    for _ in range(3 * int(IDLE_SECONDS / STEP)):
        looks.look(*idle, **said)
    assert looks.cancelled == []
    looks.cluster.held = False
    looks.look(*idle, **said)
    assert looks.cancelled == [], "its work may be on its way"
    for _ in range(int(IDLE_SECONDS / STEP) + 1):
        looks.look(*idle, **said)
    assert looks.cancelled == ["1"], "one is more than is wanted"


@pytest.mark.parametrize("others", [False, True])
def test_a_job_whose_worker_computes_no_block_is_replaced_and_is_no_failed_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], others: bool
) -> None:
    looks = Looks(monkeypatch, max_jobs=2)
    monkeypatch.setattr("pipelines.cluster.jobs.PAUSE_SECONDS", 3 * STEP)
    looks.tasks = 2 if others else 1
    looks.look()
    looks.look(worker("job1"), worker("job2"), job1="running", job2="running")
    before = looks.submitted
    looks.jobs._give_up("job1-0", UNFIT)
    left = [worker("job2")] if others else []
    # Sent away it ended by itself, before the queue was told to cancel it.
    for _ in range(2):
        looks.look(*left, job1="ended", job2="running")
    assert f"Job 1 ended: cancelled, because {UNFIT}" in capsys.readouterr().err
    assert (looks.cancelled, looks.jobs.failed) == (["1"], 0)
    # Its node is free, and might be given to the next at once, time after time.
    assert looks.submitted == before + (not others)
    for _ in range(3):
        looks.look(*left, job2="running")
    assert looks.submitted == before + 1


def test_a_job_that_is_given_up_and_ends_by_itself_is_asked_for_no_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = Looks(monkeypatch)
    looks.look()
    looks.look(worker("job1"), job1="running")
    honest = looks.jobs._cancel_given_up

    # Given up between two steps of one look: its worker is gone, and the queue says that it ended.
    def late(workers: list[_Worker], now: float) -> None:
        honest(workers, now)
        looks.jobs._give_up("job1-0", UNFIT)

    monkeypatch.setattr(looks.jobs, "_cancel_given_up", late)
    looks.look(job1="ended")
    assert "Job 1 ended" not in capsys.readouterr().err
    looks.look(job1="ended")
    assert f"Job 1 ended: cancelled, because {UNFIT}" in capsys.readouterr().err
    assert looks.jobs.failed == 0
