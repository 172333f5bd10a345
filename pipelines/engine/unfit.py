"""Workers that are sent away because they compute no block, each once and with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from distributed import Client

from pipelines.cluster import JobCluster, WorkerState, replace_unfit
from tilenet.errors import WorkersUnfit

#: Workers in a row that may be sent away where no other is left and another may come: of a machine
#: or a scheduler, and of jobs, the next of which may be given the same bad node.
UNFIT_IN_A_ROW, UNFIT_JOBS_IN_A_ROW = 3, 6


def worker_label(worker: WorkerState) -> str:
    """Say which worker it is: its address, and its name where it has one of its own."""
    return worker.address + (f" ({worker.name})" if worker.name != worker.address else "")


class UnfitWorkers:
    """The workers that were sent away in one run.

    A job is cancelled, and another submitted: it may be given another node. A worker that has a
    nanny is started anew, once, where a process anew may do better. Any other is sent away.
    """

    def __init__(self, client: Client, note: Callable[[str], None]) -> None:
        self._client, self._note = client, note
        self._reasons: Counter[str] = Counter()
        self._removed: set[str] = set()  # addresses at which no fit worker came since
        self._left: set[str] = set()  # those of them where no worker was at the last check
        self._excused: set[str] = set()  # those whose death was not heard of yet
        self._restarted: set[str] = set()  # nannies
        self._jobs: set[str] = set()  # that are being cancelled
        self._in_a_row = self._awaited = 0

    def __contains__(self, worker: str) -> bool:
        return worker in self._removed

    def block_finished(self) -> None:
        """Note that a block was finished: some worker is fit."""
        self._in_a_row = self._awaited = 0

    def excuses_death(self, worker: str) -> bool:
        """Tell, once, whether the death of a worker is no block's fault: it was sent away."""
        excused = worker in self._excused
        self._excused.discard(worker)
        return excused

    def remove(
        self, worker: WorkerState, why: str, *, for_good: bool, present: Sequence[WorkerState]
    ) -> None:
        """End a worker, and those of the same job with it, and say so.

        ``for_good`` says that another process on the same machine would fail as well.
        """
        if worker.address in self:
            return
        job = self._job(worker)
        if job in self._jobs:  # its job is being cancelled, and its worker came back meanwhile
            self._removed.add(worker.address)
            replace_unfit(self._client, worker.address, worker.name, again=True)
            return
        ended = {worker.address, *(s.address for s in present if job and self._job(s) == job)}
        self._removed |= ended
        self._excused |= ended
        known = worker.nanny in self._restarted
        again = job is not None or (bool(worker.nanny) and not (known or for_good))
        if job is not None:
            self._jobs.add(job)
        if again:
            self._restarted.add(worker.nanny)
        self._awaited = max(0, self._awaited + again - (known and job is None))
        self._reasons[why] += 1
        self._in_a_row += 1
        done = "is replaced" if again else "is sent away"
        self._note(f"Worker {worker_label(worker)} {done}, and its blocks go elsewhere: {why}")
        replace_unfit(self._client, worker.address, worker.name, again=again)

    def check(self, present: Sequence[str]) -> None:
        """See that some worker is left, and end the run where none is and none is awaited."""
        # Another one may come at the same address; what the old one left comes before that.
        self._removed -= self._left.intersection(present)
        self._left = self._removed.difference(present)
        if not self._in_a_row or any(worker not in self for worker in present):
            return
        jobs = isinstance(self._client.cluster, JobCluster)
        if self._awaited and self._in_a_row < (UNFIT_JOBS_IN_A_ROW if jobs else UNFIT_IN_A_ROW):
            return
        ((why, _),) = self._reasons.most_common(1)
        raise WorkersUnfit(self._reasons.total(), why)

    def _job(self, worker: WorkerState) -> str | None:
        jobs = isinstance(self._client.cluster, JobCluster)
        return worker.name.split("-")[0] if jobs else None
