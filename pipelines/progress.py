"""What a person sees while blocks are computed: a bar on a terminal, plain lines elsewhere.

Everything here goes to stderr, so that stdout carries results only.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tilenet.errors import TilenetError, one_line
from tilenet.geometry import Box
from tilenet.worker import BlockReport

#: Seconds between two plain lines.
LINE_SECONDS = 10.0

#: Seconds between two lines that tell of a block that is tried again: a storm of them is counted.
RETRY_SECONDS = 10.0


class Reporter(Protocol):
    """Told of every block that is finished."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: Any, error: Any, trace: Any, /) -> None: ...

    def advance(self, box: Box, result: BlockReport | str) -> None:
        """Count one block; its result is a text where it failed for good."""

    def retry(self, box: Box, problem: str, *, noted: bool = False) -> None:
        """Hear that a block failed and is tried again, and whether a note has said so."""

    def note(self, text: str) -> None:
        """Say something without spoiling the display."""


def make_reporter(name: str, total: int, done: int) -> Reporter:
    """Choose how to report: a bar on a terminal, plain lines elsewhere.

    Parameters
    ----------
    name : str
        What is being done.
    total, done : int
        Blocks in all, and those stored already.

    Returns
    -------
    Reporter
        A context manager.
    """
    if sys.stderr.isatty():
        return BarReporter(name, total, done)
    return LineReporter(name, total, done)


class LineReporter:
    """A line now and then, for log files.

    Parameters
    ----------
    name : str
        What is being done.
    total, done : int
        Blocks in all, and those stored already.
    """

    def __init__(self, name: str, total: int, done: int) -> None:
        self.name, self.total, self.before = name, total, done
        self.blocks = self.voxels = self.failed = self.retried = 0
        self.start = self._last = time.monotonic()
        self._unsaid, self._told = 0, -math.inf

    def __enter__(self) -> Self:
        self.start = self._last = time.monotonic()
        self.note(f"{self.name}: {self.total} blocks, {self.before} of them done before")
        return self

    def __exit__(self, *error: object) -> None:
        self._line()

    def advance(self, box: Box, result: BlockReport | str) -> None:
        self._count(box, isinstance(result, str))
        if time.monotonic() - self._last >= LINE_SECONDS:
            self._line()

    def retry(self, box: Box, problem: str, *, noted: bool = False) -> None:
        """Say that a block failed and is tried again, or count it with the next that is said."""
        self.retried += 1
        if noted:
            return
        if time.monotonic() - self._told < RETRY_SECONDS:
            self._unsaid += 1
            return
        others = f" (and {self._unsaid:,} more since the last such line)" if self._unsaid else ""
        self.note(f"{self.name}: {box} is tried again{others}: {problem}")
        self._unsaid, self._told = 0, time.monotonic()

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    def _count(self, box: Box, failed: bool) -> None:
        self.blocks += 1
        self.failed += failed
        self.voxels += 0 if failed else box.size

    def _line(self) -> None:
        self._last = time.monotonic()
        seconds = self._seconds()
        done = self.before + self.blocks
        text = (
            f"{done}/{self.total} blocks, {rate(self.voxels / seconds)}, {clock(seconds)} elapsed"
        )
        left = self.total - done
        if left and self.blocks:
            text += f", {clock(left * seconds / self.blocks)} left"
        self.note(f"{self.name}: {text}{self._trouble()}")

    def _seconds(self) -> float:
        return max(1e-9, time.monotonic() - self.start)

    def _trouble(self) -> str:
        # What went wrong so far, as the end of a line; empty where all goes well.
        counts = {"tried again": self.retried, "failed": self.failed}
        return "".join(f", {count:,} {what}" for what, count in counts.items() if count)


class BarReporter(LineReporter):
    """A bar with rate and time left, for terminals.

    Parameters
    ----------
    name : str
        What is being done.
    total, done : int
        Blocks in all, and those stored already.
    """

    def __init__(self, name: str, total: int, done: int) -> None:
        super().__init__(name, total, done)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("blocks {task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(name, total=total, completed=done, rate="")

    def __enter__(self) -> Self:
        self.start = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def advance(self, box: Box, result: BlockReport | str) -> None:
        self._count(box, isinstance(result, str))
        text = rate(self.voxels / self._seconds()) + self._trouble()
        self._bar.update(self._task, advance=1, rate=text)

    def note(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)


def rate(per_second: float) -> str:
    """Put a rate into words.

    Parameters
    ----------
    per_second : float
        Voxels per second.

    Returns
    -------
    str
        For example "3.2 Mvoxel/s".
    """
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if per_second >= factor:
            return f"{per_second / factor:.3g} {unit}voxel/s"
    return f"{per_second:.3g} voxel/s"


def clock(seconds: float) -> str:
    """Put a duration into words.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    str
        Hours, minutes and seconds, h:mm:ss.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def error_text(error: BaseException) -> str:
    """Put an error of a block into one line.

    Parameters
    ----------
    error : BaseException
        What the task raised, or what Dask says of a lost worker.

    Returns
    -------
    str
        The message; its type too when the error is not one of ours.
    """
    text = one_line(str(error), None)
    return text if isinstance(error, TilenetError) else f"{type(error).__name__}: {text}"
