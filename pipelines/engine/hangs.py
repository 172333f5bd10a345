"""Which blocks hang: their worker has computed for longer than the limit and finished none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.cluster import SILENT_SECONDS, WorkerState


@dataclass
class _Progress:
    # Seconds for which a worker has finished nothing, and each of our blocks has been computed.
    idle: float = 0.0
    ages: dict[str, float] = field(default_factory=dict)


class HangDetector:
    """Adds up the time that each worker spends on its blocks, look by look."""

    def __init__(self, limit: float) -> None:
        self._limit = limit  # seconds in which a worker that computes has to finish some block
        self._progress: dict[str, _Progress] = {}

    def forget(self, worker: str) -> None:
        """Begin anew at an address whose worker ended."""
        self._progress.pop(worker, None)

    def hung(self, worker: WorkerState, own: Sequence[str], elapsed: float) -> dict[str, float]:
        """Give the keys of our blocks that hang on a worker, and the seconds that each had."""
        progress = self._progress.setdefault(worker.address, _Progress())
        computed = worker.executing & worker.processing
        if worker.silent > SILENT_SECONDS or not computed:
            # It did not say, and would compute what it was given first.
            given = [key for key in own if key in worker.processing]
            computed = frozenset(given[: worker.threads])
        # Blocks of a worker share its device in turns. So the time that counts is that in which it
        # finished none of them, and for one alone as many times the limit as take turns with it.
        same = bool(progress.ages) and progress.ages.keys() <= worker.processing
        progress.idle = progress.idle + elapsed if same else 0.0
        progress.ages = {
            key: progress.ages[key] + elapsed if key in progress.ages else 0.0
            for key in computed.intersection(own)
        }
        allowed = self._limit * (1 if progress.idle > self._limit else worker.threads)
        return {key: age for key, age in progress.ages.items() if age > allowed}
