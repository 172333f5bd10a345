"""Workers that are sent away because they compute no block, each once and with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from distributed import Client

from pipelines.cluster import JobCluster, WorkerState, replace_unfit
from tilenet.errors import WorkersUnfit

#: Workers in a row that may be sent away where no other is left and another may come: of a machine
#: or a scheduler, and of jobs, the next of which may be given the same bad node.
IN_A_ROW, JOBS_IN_A_ROW = 3, 6


class Unfit:
    """The workers that were sent away in one run.

    A job is cancelled, and another submitted: it may be given another node. A worker that has a
    nanny is started anew, once, where a process anew may do better. Any other is sent away.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    note : callable
        Says a line to the user.
    """

    def __init__(self, client: Client, note: Callable[[str], None]) -> None:
        self._client, self._note = client, note
        self._reasons: list[str] = []
        self._away: set[str] = set()
        self._gone: set[str] = set()
        self._restarted: set[str] = set()
        self._jobs: set[str] = set()
        self._in_a_row = self._awaited = 0
        #: Addresses whose end is no block's fault, until it is heard of.
        self.excused: set[str] = set()

    def __contains__(self, worker: str) -> bool:
        return worker in self._away

    def finished(self) -> None:
        """Note that a block was finished: some worker is fit."""
        self._in_a_row = self._awaited = 0

    def send_away(
        self, worker: WorkerState, why: str, *, for_good: bool, there: Sequence[WorkerState]
    ) -> None:
        """End a worker, and say so."""
        if worker.address in self:
            return
        job = worker.name.split("-")[0] if isinstance(self._client.cluster, JobCluster) else None
        if job in self._jobs:  # its job is being cancelled, and its worker came back meanwhile
            self._away.add(worker.address)
            replace_unfit(self._client, worker.address, worker.name, again=True)
            return
        if job is not None:
            self._jobs.add(job)
        known = worker.nanny in self._restarted
        again = job is not None or (bool(worker.nanny) and not (known or for_good))
        siblings = [seen.address for seen in there if job and seen.name.split("-")[0] == job]
        self._away |= {worker.address, *siblings}
        self.excused |= {worker.address, *siblings}
        if again:
            self._restarted.add(worker.nanny)
        self._awaited = max(0, self._awaited + again - (known and job is None))
        self._reasons.append(why)
        self._in_a_row += 1
        label = worker.address + (f" ({worker.name})" if worker.name != worker.address else "")
        done = "is replaced" if again else "is sent away"
        self._note(f"Worker {label} {done}, and its blocks go elsewhere: {why}")
        replace_unfit(self._client, worker.address, worker.name, again=again)

    def check(self, there: Sequence[str]) -> None:
        """See that some worker is left."""
        # Another one may come at the same address; what the old one left comes before that.
        back = self._gone.intersection(there)
        self._away -= back
        self._gone = self._away.difference(there)
        if not self._in_a_row or any(worker not in self for worker in there):
            return
        jobs = isinstance(self._client.cluster, JobCluster)
        if self._awaited and self._in_a_row < (JOBS_IN_A_ROW if jobs else IN_A_ROW):
            return
        why, _ = Counter(self._reasons).most_common(1)[0]
        raise WorkersUnfit(len(self._reasons), why)
