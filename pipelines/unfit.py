"""Workers that are sent away because they compute no block, each once and with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from distributed import Client

from pipelines.cluster.jobs import JobCluster
from pipelines.cluster.replacing import replace_unfit
from tilenet.errors import WorkersUnfit

#: Workers in a row that may be replaced in vain where no other is left.
IN_A_ROW = 3


class Unfit:
    """The workers that were sent away in one run.

    One that is a job, or has not been replaced yet, is replaced: another node, or a process anew,
    may do better. Where the same comes again, it is sent away.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    note : callable
        Says a line to the user.
    """

    def __init__(self, client: Client, note: Callable[[str], None]) -> None:
        self._client, self._note = client, note
        self._why: dict[str, str] = {}
        self._replaced: set[str] = set()
        self._in_a_row = self._awaited = 0

    def __contains__(self, worker: str) -> bool:
        return worker in self._why

    def finished(self) -> None:
        """Note that a block was finished: some worker is fit."""
        self._in_a_row = self._awaited = 0

    def send_away(self, worker: str, name: str, why: str, *, replaceable: bool) -> None:
        """End a worker, and say so.

        Parameters
        ----------
        worker, name : str
            Its address and its name.
        why : str
            What it said.
        replaceable : bool
            Whether its nanny would start it anew, and a process anew might do better. A job may
            always do better, on another node.
        """
        if worker in self:
            return
        jobs = isinstance(self._client.cluster, JobCluster)
        place = worker.rpartition(":")[0] if jobs else name
        known = place in self._replaced
        again = not known and (jobs or replaceable)
        self._awaited += again - known
        self._replaced.add(place)
        self._why[worker] = why
        self._in_a_row += 1
        label = worker if name == worker else f"{worker} ({name})"
        done = "is replaced" if again else "is sent away"
        self._note(f"Worker {label} {done}, and its blocks go elsewhere: {why}")
        replace_unfit(self._client, worker, name, again=again)

    def check(self, there: Sequence[str]) -> None:
        """See that some worker is left.

        Parameters
        ----------
        there : sequence of str
            Addresses of the workers that are there.

        Raises
        ------
        WorkersUnfit
            When every worker was sent away and none is awaited, with the commonest reason.
        """
        if not self._in_a_row or any(worker not in self for worker in there):
            return
        if self._awaited > 0 and self._in_a_row < IN_A_ROW:
            return
        why, _ = Counter(self._why.values()).most_common(1)[0]
        raise WorkersUnfit(len(self._why), why)
