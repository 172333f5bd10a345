"""The count of a run's jobs, on workers and a queue as they might describe themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from distributed import Client

from pipelines.cluster import Batch, ClusterOptions
from pipelines.cluster.jobs import JobCluster, Jobs, _Worker
from pipelines.cluster.queues import Listed

BATCH = Batch(system="slurm", walltime=600, lifetime=500, stagger=0)

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
    """Jobs whose clock, queue and scheduler are in the test's hand; always work for one job."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.submitted = 100.0, 0
        self.workers: list[_Worker] = []
        self.queue: dict[str, Listed] = {}
        where = "pipelines.cluster.jobs"
        patch.setattr(f"{where}.PAUSE_SECONDS", 0.0)
        patch.setattr(f"{where}.time", SimpleNamespace(monotonic=lambda: self.now))
        patch.setattr(f"{where}.listed", lambda system, name: self.queue)
        patch.setattr(f"{where}.submit", self.submit)
        patch.setattr(Jobs, "_make", lambda jobs, worker: None)
        cluster = cast(
            "JobCluster", SimpleNamespace(sync=lambda view: (self.workers, 1), held=False)
        )
        self.jobs = Jobs(ClusterOptions(batch=BATCH, slots=1), cluster, cast("Client", None))

    def submit(self, job: Any) -> str:
        self.submitted += 1
        return str(self.submitted)

    def look(self, *workers: _Worker, **queue: str) -> None:
        """Look at workers, and at a queue that says this of the jobs."""
        self.now += STEP
        self.workers = list(workers)
        self.queue = {name.removeprefix("job"): SAID[phase] for name, phase in queue.items()}
        self.jobs._look()


def worker(job: str, *, ending: bool = False) -> _Worker:
    return _Worker(f"tcp://{job}:1", f"{job}-0", busy=True, ending=ending)


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
