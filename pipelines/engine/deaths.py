"""Workers that die: which block is to blame, and when a block or the run is given up for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from pipelines.cluster import WorkerState, nanny_log_tail
from pipelines.engine.attempts import Reassignment
from pipelines.engine.in_flight import block_of
from tilenet.errors import WorkerDied, WorkerOverMemory, WorkersDied

#: Workers that may die while they compute a block until it is given up. A preempted worker is no
#: fault of its block; six in a row are.
DEATHS_PER_BLOCK = 6

#: Workers that may die until one block is finished: so many, or so many times as many as there are.
DEATHS_IN_A_ROW, DEATHS_PER_WORKER = 12, 3


class Deaths:
    """The workers of a run that died, counted for each block and in a row."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._in_a_row = 0
        self._of_block: Counter[str] = Counter()
        self._over_memory: dict[str, int] = {}

    def block_finished(self) -> None:
        """Note that a block was finished: workers do not die in vain."""
        self._in_a_row = 0

    def over_memory(self, worker: str, used: int) -> None:
        """Note that a worker is about to be ended because it took so many bytes."""
        self._over_memory[worker] = used

    def died(
        self, worker: str, given: Sequence[str], states: Sequence[WorkerState], workers: int
    ) -> dict[str, Reassignment]:
        """Note that a worker died that was given some blocks, and say which of them that concerns.

        ``states`` is the worker as it was last seen, or all that were where it never was;
        ``workers`` is how many there were at most.
        """
        # What it said that it computed it still did; else it computed what it was given first. The
        # rest waited, and is not to blame.
        executing = frozenset[str]().union(*(state.executing for state in states))
        threads = max((state.threads for state in states), default=1)
        blamed = sorted(given, key=lambda key: key not in executing)[:threads]
        used = self._over_memory.pop(worker, None)
        limit = min((state.memory for state in states), default=0)
        error = None if used is None else WorkerOverMemory(worker, used, limit)
        why = "" if error is None else f": {error.message()}"
        self._note(
            f"Worker {worker} died; {block_of(blamed[0])} and its other blocks are retried "
            f"elsewhere{why}"
        )
        self.count(f"worker {worker} died" if error is None else error.message(), workers)
        self._of_block.update(block_of(key) for key in blamed)
        if error is not None:
            return {key: Reassignment(error) for key in blamed}
        return {
            key: Reassignment(WorkerDied(worker, DEATHS_PER_BLOCK), final=True)
            for key in blamed
            if self._of_block[block_of(key)] >= DEATHS_PER_BLOCK
        }

    def count(self, last: str, workers: int) -> None:
        """Count a worker that died or hung; ``last`` says how, for the error that ends the run."""
        self._in_a_row += 1
        if self._in_a_row >= max(DEATHS_IN_A_ROW, DEATHS_PER_WORKER * workers):
            raise WorkersDied(self._in_a_row, last, nanny_log_tail())
