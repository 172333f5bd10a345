"""What is away for a while, as a file system at times is: a run waits for it.

Blocks that fail one after another, with none finished in between, say little of the blocks. The run
pauses then, tries one of them, and pauses longer while that fails too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from pipelines.engine.attempts import Failure, Work
from pipelines.progress import clock as clock_text
from tilenet.errors import (
    ArchitectureError,
    GeometryError,
    InvalidData,
    ModelMismatch,
    NonFiniteOutput,
    NonFiniteValues,
    NotEnoughMemory,
    OutageLasted,
    UnreadableBlock,
    VoxelSizeMismatch,
)

#: Blocks that fail in a row until it counts as an outage: so many, or so many times the slots.
FAILURES_IN_A_ROW, FAILURES_PER_SLOT = 8, 2

#: Outages in which the failures of one block count for nothing. Neighbours that stay unreadable
#: look like an outage time and again, and have to come to an end while the others are done.
MAX_FORGIVEN_OUTAGES = 3

#: Seconds of one pause after another; the last for all further ones.
PAUSES = (1.0, 5.0, 15.0, 30.0, 60.0)

# What says of itself that it stays as it is: values, and mistakes of a program.
_PERMANENT = (
    ArchitectureError, GeometryError, InvalidData, ModelMismatch, NonFiniteOutput, NonFiniteValues,
    NotEnoughMemory, VoxelSizeMismatch,
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError,
    ValueError,
)  # fmt: skip


def is_transient(error: BaseException) -> bool:
    """Tell whether what failed may go well later without a change of the block.

    Of what may not there may be many in a row, and the other blocks have to go on.
    """
    if isinstance(error, UnreadableBlock):
        return not error.damaged
    return not isinstance(error, _PERMANENT)


class CircuitBreaker:
    """Pauses a run whose blocks fail one after another: open while it is paused.

    ``limit`` is the seconds of pauses in all until the run ends; ``note`` says a line to the user.
    """

    def __init__(
        self, limit: float, note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._limit, self._note, self._clock = limit, note, clock
        self._row: list[tuple[Work, Failure]] = []  # failures since a block was finished
        self._until: float | None = None  # when the pause is over; None where there is none
        self._pauses, self._paused = 0, 0.0  # their number and seconds, in this outage
        self._number = 1  # of this outage
        self._probe: Work | None = None
        #: What ends the run once nothing is computed any more.
        self.error: OutageLasted | None = None

    @property
    def open(self) -> bool:
        """Whether the run is paused, or tries one block to see whether it may go on."""
        return self._until is not None

    @property
    def paused(self) -> bool:
        """Whether nothing is begun at the moment."""
        return self.open and self._probe is None and self.error is None

    @property
    def probe_untried(self) -> bool:
        """Whether a block that has not failed yet is to be tried: every second time."""
        return self._pauses % 2 == 0

    @property
    def failed_workers(self) -> set[str]:
        """Addresses of the workers on which the blocks of the row failed, as far as known."""
        return {failure.worker for _, failure in self._row if failure.worker is not None}

    @property
    def may_probe(self) -> bool:
        """Whether a block may be tried: the pause is over, and none is tried yet."""
        return self.paused and self._clock() >= (self._until or 0.0)

    def begin_probe(self, work: Work) -> None:
        """Note which block is tried."""
        self._probe = work

    def withdrawn(self, work: Work) -> None:
        """Note that a block neither failed nor was finished, but is in flight no more."""
        if work is self._probe:
            self._probe = None

    def block_finished(self) -> None:
        """Note that a block was finished: what was away is back."""
        if self.open:
            self._note(f"Going on after {clock_text(self._paused)} of pauses: a block was finished")
            self._number += 1
        self._row.clear()
        self._until, self._probe, self.error = None, None, None
        self._pauses, self._paused = 0, 0.0

    def may_forgive(self, work: Work) -> bool:
        """Tell whether failures of a block may still be an outage's.

        Not where it was forgiven several outages, and others were done meanwhile.
        """
        return len(work.outages - {self._number}) < MAX_FORGIVEN_OUTAGES

    def block_failed(
        self, work: Work, failure: Failure, slots: int, *, spent: bool = False
    ) -> bool:
        """Note that a block failed for what may pass, and tell whether that pauses the run.

        The try is counted already; one that an outage met is none. ``slots`` blocks are computed at
        once; ``spent`` says that it was the block's last try.
        """
        was_probe, was_open = work is self._probe, self.open
        self._row.append((work, failure))
        if was_open:
            self._forgive()
            if was_probe:
                self._probe = None
                self._pause(failure)
        elif len(self._row) >= max(FAILURES_IN_A_ROW, FAILURES_PER_SLOT * slots) or (
            spent and self._is_all(work)
        ):
            self._forgive()
            self._pause(failure)
        return self.open and not was_open

    def _is_all(self, work: Work) -> bool:
        # Few are left, and none of them ends well: all tries of this one are in the row, and
        # another block failed beside it.
        tries = sum(other is work for other, _ in self._row)
        return tries == len(work.failures) and tries < len(self._row)

    def _forgive(self) -> None:
        # An outage is no try of any block that it met.
        for work, failure in self._row:
            work.failures = [kept for kept in work.failures if kept is not failure]
            work.outages.add(self._number)

    def _pause(self, last: Failure) -> None:
        count = len(self._row)
        if self._paused >= self._limit:
            self.error = OutageLasted(count, clock_text(self._paused), last.why)
            return
        pause = min(PAUSES[min(self._pauses, len(PAUSES) - 1)], self._limit - self._paused)
        self._pauses += 1
        self._paused += pause
        self._until = self._clock() + pause
        if self._pauses == 1:
            self._note(
                f"Paused: {count} blocks in a row failed and none was finished. The last: "
                f"{last.why}"
            )
        limit = "for ever" if math.isinf(self._limit) else clock_text(self._limit)
        self._note(
            f"One block is tried in {clock_text(pause)}; paused {clock_text(self._paused)} of "
            f"{limit} (--outage-timeout)"
        )
