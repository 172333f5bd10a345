"""Workers in jobs of a queueing system: started, watched, replaced, and cancelled at the end.

A thread of its own looks after the jobs, so that the command computes meanwhile. The scheduler is
in this process: what it knows of its workers costs nothing to ask. The queue is asked only about
jobs whose workers are not there, and less and less often.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from dataclasses import dataclass
from typing import Self

import click
from distributed import Client
from distributed.core import Status

from pipelines.cluster.job_cluster import UNFIT, JobCluster
from pipelines.cluster.job_queue import JobQueue
from pipelines.cluster.options import ClusterOptions
from pipelines.cluster.queueing import Listed
from pipelines.progress import LINE_SECONDS, clock
from pipelines.stopping import Stop, Stopped, undisturbed
from tilenet.errors import JobsFailed, JobsNotStarted, QueueRefused

#: Seconds between two looks at the workers.
LOOK_SECONDS = 1.0

#: Seconds between two questions to the queue: at first, and at most.
QUEUE_SECONDS = (1.0, 30.0)

#: Seconds that a submitted job may be missing in the queue's list before it counts as ended.
UNLISTED_SECONDS = 10.0

#: Seconds that the queue may say that a job runs while its worker is not there: its node is sick.
ABSENT_SECONDS = 600.0

#: Jobs in a row that may end before they were of use; then no more are submitted.
MAX_FAILED = 3

#: Seconds that a worker has to be there for its job to have been of use; or half its lifetime.
USEFUL_SECONDS = 60.0

#: Seconds to submit nothing after a job failed or was refused while others compute.
PAUSE_SECONDS = 60.0

#: Seconds that a job has nothing to do before it is given back.
IDLE_SECONDS = 60.0

#: Seconds to try to cancel jobs.
CANCEL_SECONDS = 60.0

# Seconds between two looks at a request to stop.
_WAKE_SECONDS = 0.2


@dataclass
class _SubmittedJob:
    # A job, named after its worker, or after what the names of its workers begin with.
    name: str
    number: str
    submitted: float
    arrived: float | None = None
    silent: float | None = None  # since when it runs or ends, as the queue says, without a worker
    busy: float = 0.0
    ending: bool = False
    useful: bool = False


@dataclass(frozen=True)
class _Worker:
    address: str
    name: str
    busy: bool
    ending: bool

    @property
    def job(self) -> str:
        return self.name.split("-")[0]


class Jobs:
    """The jobs of one command; its client is closed when no worker comes any more."""

    def __init__(self, options: ClusterOptions, cluster: JobCluster, client: Client) -> None:
        assert options.batch is not None
        self.options, self.lifetime = options, options.batch.lifetime
        self.profile, self.system = options.batch.profile, options.batch.system.name
        self.cluster, self.client = cluster, client
        self.queue = JobQueue(options, cluster.scheduler.address)
        self.problem: Exception | None = None
        self.jobs: dict[str, _SubmittedJob] = {}
        self.given_up: dict[str, str] = {}
        self.said: dict[str, Listed] = {}
        self.count = self.failed = 0
        self._enough: JobsFailed | None = None
        self._silent: frozenset[str] = frozenset()
        self._ask_at, self._ask_pause = 0.0, QUEUE_SECONDS[0]
        self._start_at = 0.0
        self._alone_since: float | None = time.monotonic()
        self._line_at = self._alone_since + LINE_SECONDS / 5
        self._ready, self._over = threading.Event(), threading.Event()
        # Not a daemon: however the command ends, the jobs are cancelled first.
        self._thread = threading.Thread(target=self._run_loop, name="jobs")

    def __enter__(self) -> Self:
        self.queue.logs.mkdir(parents=True, exist_ok=True)
        self.cluster.give_up = self._give_up
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        with undisturbed(f"Cancelling the jobs, for {CANCEL_SECONDS:.0f} s at most."):
            self._thread.join()

    def wait(self, stop: Stop) -> None:
        """Wait for the first worker."""
        while not self._ready.wait(_WAKE_SECONDS):
            if stop.signal is not None:
                raise Stopped(stop.signal)
        if self.problem is not None:
            raise self.problem

    def _run_loop(self) -> None:
        try:
            while not self._over.is_set():
                self._look()
                self._over.wait(LOOK_SECONDS)
        except Exception as error:  # whatever it is: the command must not wait for ever
            self.problem = error
            if self._ready.is_set():
                self.client.close()
            self._ready.set()
        finally:
            self._cancel_all()

    def _look(self) -> None:
        workers, tasks = self.cluster.sync(self._view)
        now = time.monotonic()
        self._meet(workers, now)
        self._cancel_given_up(workers, now)
        self._ask(workers, now)
        self._start(workers, tasks, now)
        self._give_back(workers, tasks, now)
        self._report(workers, now)

    async def _view(self) -> tuple[list[_Worker], int]:
        # On the scheduler's own thread.
        scheduler = self.cluster.scheduler
        workers = [
            _Worker(ws.address, str(ws.name), bool(ws.processing), ws.status != Status.running)
            for ws in scheduler.workers.values()
        ]
        return workers, len(scheduler.tasks)

    def _meet(self, workers: list[_Worker], now: float) -> None:
        useful = min(USEFUL_SECONDS, self.lifetime / 2)
        for worker in workers:
            if (job := self.jobs.get(worker.job)) is None:
                continue
            job.arrived, job.silent = job.arrived or now, None
            job.busy = now if worker.busy or not job.busy else job.busy
            job.ending = job.ending or worker.ending
            if not job.useful and (job.ending or now - job.arrived >= useful):
                job.useful, self.failed = True, 0

    def _give_up(self, worker: str, why: str) -> None:
        # In the thread of the run.
        self.given_up.setdefault(worker.split("-")[0], why)

    def _cancel_given_up(self, workers: list[_Worker], now: float) -> None:
        # The run counts these, and has an end to it.
        others = any(worker.job not in self.given_up for worker in workers)
        for name in self.given_up.keys() & self.jobs.keys():
            job = self.jobs.pop(name)
            why = self.given_up[name]
            if others and why == UNFIT:  # its node is free now, and may be given to the next
                self._start_at = now + PAUSE_SECONDS
            click.echo(f"Job {job.number} ended: cancelled, because {why}", err=True)
            self._cancel(job)

    def _cancel(self, job: _SubmittedJob) -> None:
        with contextlib.suppress(QueueRefused):  # it ends by itself, or is cancelled at the end
            self.queue.cancel([job.number])

    def _ask(self, workers: list[_Worker], now: float) -> None:
        # One that is given up may end by itself before it is cancelled, and is no failure then.
        silent = frozenset(self.jobs) - {worker.job for worker in workers} - {*self.given_up}
        if silent != self._silent:
            self._silent, self._ask_pause, self._ask_at = silent, QUEUE_SECONDS[0], now
        if not silent or now < self._ask_at:
            return
        self._ask_at = now + self._ask_pause
        self._ask_pause = min(2 * self._ask_pause, QUEUE_SECONDS[1])
        try:
            self.said = self.queue.listed()
        except QueueRefused:
            return  # busy or restarted, as now and then: it is asked again
        for name in silent:
            job = self.jobs[name]
            if words := self._over_with(job, self.said.get(job.number), now):
                self._forget(job, words, bool(workers), now)

    def _over_with(self, job: _SubmittedJob, said: Listed | None, now: float) -> str | None:
        # Why a job without a worker is of no use any more; None while it may be.
        if said is None:
            unlisted = now - job.submitted > UNLISTED_SECONDS
            return "no longer in the queue" if unlisted else None
        # It may have been preempted and have waited, so that its worker was there long ago.
        job.silent = (job.silent or now) if said.phase in ("running", "ending") else None
        job.ending = job.ending and said.phase != "waiting"
        if job.silent is not None and now - job.silent > ABSENT_SECONDS:
            self._cancel(job)
            return f"{said.words}, but without a worker"
        return said.words if said.phase == "ended" else None

    def _forget(self, job: _SubmittedJob, words: str, others: bool, now: float) -> None:
        del self.jobs[job.name]
        click.echo(f"Job {job.number} ended: {words}", err=True)
        # Of several that fail at the same time while others compute, one counts.
        if job.useful or (others and now < self._start_at):
            return
        self.failed += 1
        self._start_at = now + PAUSE_SECONDS if others else self._start_at
        if self.failed < MAX_FAILED:
            return
        if self._enough is None:
            log = self.queue.end_of_log(job.number)
            last = f"{job.number}, {words}"
            self._enough = JobsFailed(self.system, self.failed, last, log)
            if others:
                click.echo(f"{self._enough}\nThe other jobs go on.", err=True)
        if not others:
            raise self._enough

    def _wanted(self, tasks: int) -> int:
        slots = self.options.slots * self.profile.job_workers
        wanted = max(math.ceil(tasks / slots), self.profile.least_jobs)
        return min(wanted, self.profile.most_jobs)

    def _start(self, workers: list[_Worker], tasks: int, now: float) -> None:
        if self._enough is not None:
            if not self.jobs:
                raise self._enough
            return
        # A job whose workers take no further block is replaced while they finish.
        there = sum(not job.ending for job in self.jobs.values())
        for _ in range(self._wanted(tasks) - there):
            if now < self._start_at or self._over.is_set():
                return
            try:
                self._submit(now)
            except QueueRefused as error:
                if not self.jobs:
                    raise
                click.echo(f"{error}\nThe other jobs go on.", err=True)
                self._start_at = now + PAUSE_SECONDS

    def _submit(self, now: float) -> None:
        self.count += 1
        name = f"job{self.count}"
        self.jobs[name] = _SubmittedJob(name, self.queue.submit(name), now)

    def _give_back(self, workers: list[_Worker], tasks: int, now: float) -> None:
        if self.cluster.held:
            for job in self.jobs.values():
                job.busy = now
            return
        spare = len(self.jobs) - self._wanted(tasks)
        idle = [
            job for job in self.jobs.values() if now - max(job.busy, job.submitted) > IDLE_SECONDS
        ][: max(0, spare)]
        for job in idle:
            there = [worker.address for worker in workers if worker.job == job.name]
            if self.cluster.sync(self._retire, there):
                del self.jobs[job.name]
                self._cancel(job)

    async def _retire(self, addresses: list[str]) -> bool:
        # On the scheduler's own thread, so that no block is sent to them in between.
        scheduler = self.cluster.scheduler
        if any(scheduler.workers[a].processing for a in addresses if a in scheduler.workers):
            return False
        await scheduler.retire_workers(workers=addresses, close_workers=True, remove=True)
        return True

    def _report(self, workers: list[_Worker], now: float) -> None:
        if workers:
            if self._alone_since is not None:
                took = clock(now - self._alone_since)
                click.echo(f"Workers of {self.system} jobs came after {took}", err=True)
            self._alone_since = None
            self._ready.set()
            return
        if self._alone_since is None:
            self._alone_since, self._line_at = now, now + LINE_SECONDS
        waited = now - self._alone_since
        limit = clock(self.profile.start_timeout)
        if waited > self.profile.start_timeout:
            raise JobsNotStarted(self.system, limit, self._states())
        if now >= self._line_at:
            self._line_at = now + LINE_SECONDS
            states = "; ".join(self._states()[:3])
            head = f"Waiting for workers, {clock(waited)} of at most {limit}"
            click.echo(f"{head}: {states}", err=True)

    def _states(self) -> list[str]:
        words = {job.number: self.said.get(job.number) for job in self.jobs.values()}
        return [f"job {n}: {s.words if s else 'submitted'}" for n, s in words.items()]

    def _cancel_all(self) -> None:
        # Until the queue says that none is left: a command of it may fail, and a job may have been
        # submitted whose number was never learnt.
        deadline, known = time.monotonic() + CANCEL_SECONDS, [j.number for j in self.jobs.values()]
        while self.count:
            left = self.queue.cancel_all(known)
            if left is None:
                return
            if time.monotonic() > deadline:
                cure = f"look for jobs of the name {self.queue.name}, and cancel them"
                click.echo(f"Jobs may be left: {left}; {cure}", err=True)
                return
            time.sleep(_WAKE_SECONDS)
