"""What a run may take: seconds of a block, memory of a worker, seconds of pauses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pipelines.cluster import OUTAGE_SECONDS

#: Seconds in which a worker has to finish some block where nothing is known of their length.
DEFAULT_BLOCK_TIMEOUT = 3600.0

#: So many times what a block is expected to last it may last, and so many seconds at least: rates
#: are guesses before they are measured, and a first block loads libraries and the network.
HANG_FACTOR, MIN_HANG_SECONDS = 10.0, 600.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may take.

    Parameters
    ----------
    block : float
        Seconds in which a worker that computes has to finish some block.
    memory : int
        Bytes that a worker has to have.
    outage : float
        Seconds that the run waits in all while block after block fails.
    """

    block: float = DEFAULT_BLOCK_TIMEOUT
    memory: int = 0
    outage: float = OUTAGE_SECONDS

    @classmethod
    def expecting(
        cls, seconds: float, *, timeout: float | None, memory: int, outage: float = OUTAGE_SECONDS
    ) -> Self:
        """Give generous limits for blocks of so many seconds; a ``timeout`` is the user's."""
        block = timeout or max(MIN_HANG_SECONDS, HANG_FACTOR * seconds)
        return cls(block=block, memory=memory, outage=outage)
