"""What a run over blocks is given, and what became of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pipelines.engine.limits import Limits
from pipelines.progress import Reporter
from pipelines.stopping import Stop
from tilenet.geometry import Box
from tilenet.worker import BlockReport

Task = Callable[[Box], BlockReport]

#: Times that a block is tried again after it failed.
RETRIES = 2


class Reports(Protocol):
    """Keeps reports: a list, or what has them on disk."""

    def append(self, report: BlockReport, /) -> None: ...

    def __iter__(self) -> Iterator[BlockReport]: ...

    def __len__(self) -> int: ...


@dataclass
class Outcome:
    """What became of the blocks.

    Parameters
    ----------
    reports : Reports
        Only when they were asked to be kept.
    computed, voxels : int
        Blocks finished by this run, and their voxels.
    failed : list of (Box, str)
        Blocks that failed for good, and their last error.
    retried : int
        Attempts at a block that failed and were followed by another.
    seconds : dict
        Seconds per phase, summed over blocks; "wall" is the whole run.
    stopped_by : int or None
        Signal that ended the run early.
    ended_by : Exception or None
        What made it impossible to go on.
    stored : int or None
        Blocks that are stored now, by this run or before it, as the store said.
    stopped : str or None
        Why the run ended early although no block was given up for that: an outage, or no worker
        that is fit.
    begun : bool
        Whether it came to run over blocks, however that ended.
    """

    reports: Reports = field(default_factory=list[BlockReport])
    computed: int = 0
    voxels: int = 0
    failed: list[tuple[Box, str]] = field(default_factory=list)
    retried: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    stopped_by: int | None = None
    ended_by: Exception | None = None
    stored: int | None = None
    stopped: str | None = None
    begun: bool = False

    @property
    def complete(self) -> bool:
        return not (self.failed or self.stopped_by or self.ended_by)

    def add(self, report: BlockReport, keep: bool) -> None:
        """Count a finished block."""
        self.computed += 1
        self.voxels += report.box.size
        for phase, seconds in report.seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        if keep:
            self.reports.append(report)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run.

    Parameters
    ----------
    name : str
        What is being done; starts the keys that the dashboard shows.
    reporter : Reporter
        Told of every finished block, and of what is tried again.
    retries : int
        Times that a block is tried again.
    stop : Stop
        Set from outside to stop early.
    keep_reports : bool
        Keep the reports, for tasks that return values.
    resources : dict or None
        Dask resources of a task, for example {"GPU": 1}.
    limits : Limits
        What a cluster's workers may take.
    outcome : Outcome or None
        Filled while it runs, so that it tells what was done by a run that cannot go on; None makes
        a new one for each run.
    """

    name: str
    reporter: Reporter
    retries: int = RETRIES
    stop: Stop = field(default_factory=Stop)
    keep_reports: bool = False
    resources: dict[str, float] | None = None
    limits: Limits = field(default_factory=Limits)
    outcome: Outcome | None = None


@contextlib.contextmanager
def ending(outcome: Outcome) -> Iterator[None]:
    """Keep the error that ends a run over blocks, so that what was done is told before it.

    Parameters
    ----------
    outcome : Outcome
        Of the run; it takes the error.

    Yields
    ------
    None
        While the run is prepared and done. Errors before it are raised.
    """
    try:
        yield
    except Exception as error:
        if not outcome.begun:
            raise
        outcome.ended_by = error
