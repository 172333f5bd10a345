"""The state of a pass over blocks, as it changes: counts, rates, phases, failures."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipelines.watching.block_map import DONE, FAILED, MISSING, SKIPPED, BlockMap, States, count
from tilenet.geometry import Box
from tilenet.worker import BlockReport

#: What "now" means: the last minute, or so many times what a block lasts where that is longer.
NOW_SECONDS, NOW_BLOCKS = 60.0, 3.0

#: Samples of the voxel count that are kept of that time.
SAMPLES = 60

#: Failures whose messages are given at once; a run report has all.
FAILURES = 100


class PassState:
    """What is known of one pass over blocks; every method may be called from any thread.

    ``missing`` are positions in the grid of the blocks to be done. ``one_by_one``: one block of a
    worker computes at a time, as those that share a device do. ``clock`` gives seconds.
    """

    def __init__(
        self, name: str, grid: Sequence[Box], missing: Sequence[int], *, one_by_one: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.name, self.one_by_one, self._clock = name, one_by_one, clock
        self._map = BlockMap(grid, missing)
        self._lock = threading.Lock()
        self._total, self._left = len(grid), self._map.voxels(MISSING)
        self._voxels = self._blocks = self._retries = self._changes = 0
        self._seconds: dict[str, float] = {}
        self._failures: list[tuple[str, str]] = []
        self._note, self._last_retry = "", ""
        self._running: list[Sequence[int]] = []
        self._start = self._seen = clock()
        self._end: float | None = None
        self._lanes, self._lane_seconds = 1, 0.0
        self._samples: deque[tuple[float, int]] = deque([(self._start, 0)])

    def advance(self, box: Box, result: BlockReport | str) -> None:
        with self._lock:
            self._left -= box.size
            self._changes += 1
            if isinstance(result, str):
                self._map.set(box, FAILED)
                self._failures.append((str(box), result))
                return
            self._map.set(box, SKIPPED if result.skipped else DONE)
            self._voxels += box.size
            self._blocks += 1
            for phase, seconds in result.seconds.items():
                self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds
            self._sample()

    def _sample(self) -> None:
        now, span = self._clock(), self._span()
        if now - self._samples[-1][0] >= span / SAMPLES:
            self._samples.append((now, self._voxels))
        while len(self._samples) > 1 and self._samples[1][0] <= now - span:
            self._samples.popleft()

    def _span(self) -> float:
        block = sum(self._seconds.values()) / max(1, self._blocks)
        return max(NOW_SECONDS, NOW_BLOCKS * block)

    def retry(self, box: Box, problem: str) -> None:
        with self._lock:
            self._retries += 1
            self._last_retry = f"{box}: {problem}"

    def note(self, text: str) -> None:
        with self._lock:
            self._note = text

    def see(self, workers: int, slots: int, running: Iterable[Sequence[int]]) -> None:
        """Take what the scheduler says: of blocks that are computed, the first voxels."""
        with self._lock:
            self._pass_time()
            self._lanes = workers if self.one_by_one else slots
            before, self._running = self._running, list(running)
            self._changes += before != self._running

    def _pass_time(self) -> float:
        # Seconds until now; what workers could compute in the meantime is added up.
        now = self._clock() if self._end is None else self._end
        self._lane_seconds += (now - self._seen) * self._lanes
        self._seen = now
        return now

    def finish(self) -> None:
        """Stop the clock."""
        with self._lock:
            self._pass_time()
            self._end, self._running = self._seen, []
            self._changes += 1

    @property
    def changes(self) -> int:
        """How often the map has changed."""
        with self._lock:
            return self._changes

    @property
    def states(self) -> States:
        """The state of every block, shape (z, y, x)."""
        with self._lock:
            return self._map.now(self._running)

    @property
    def layers(self) -> list[tuple[int, int]]:
        """First plane and end of every layer of blocks, ascending."""
        lattice = self._map.lattice
        return list(zip(lattice.starts[0], lattice.stops[0], strict=True))

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Every block that failed for good, with its error."""
        with self._lock:
            return list(self._failures)

    def to_dict(self) -> dict[str, Any]:
        """Give the state as JSON values that are true together.

        Rates are in voxels per second. Seconds are None where nobody can say how many are left,
        and summed over blocks by phase; "busy" is the share of the time that the devices computed.
        """
        with self._lock:
            end = self._pass_time()
            counts = count(self._map.now(self._running))
            elapsed = end - self._start
            now = self._rate_now(end)
            return {
                "pass": self.name,
                "changes": self._changes,
                "finished": self._end is not None,
                "blocks": {"total": self._total, **counts, "retried": self._retries},
                "voxels": {"computed": self._voxels, "left": self._left},
                "voxels_per_second": {"now": now, "overall": self._voxels / max(elapsed, 1e-9)},
                "seconds": {"elapsed": elapsed, "left": self._seconds_left(now), **self._phases()},
                "busy": self._busy(),
                "one_by_one": self.one_by_one,
                "failures": [
                    {"box": box, "error": error} for box, error in self._failures[-FAILURES:]
                ],
                "last_retry": self._last_retry,
                "note": self._note,
            }

    def _phases(self) -> dict[str, float]:
        return {name: self._seconds.get(name, 0.0) for name in ("read", "compute", "write", "wait")}

    def _rate_now(self, end: float) -> float:
        begin = end - self._span()
        # The first sample of the time; the last where no block was finished in it.
        recent = (sample for sample in self._samples if sample[0] >= begin)
        since, before = next(recent, self._samples[-1])
        return (self._voxels - before) / max(end - since, 1e-9)

    def _seconds_left(self, now: float) -> float | None:
        if self._end is not None or not self._left:
            return 0.0
        return self._left / now if now else None

    def _busy(self) -> float | None:
        if not self._blocks or not self._lane_seconds:
            return None
        return min(1.0, self._seconds.get("compute", 0.0) / self._lane_seconds)
