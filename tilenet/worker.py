"""What every task shares: its report, its clock, its errors, and loading a thing once."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from tilenet.errors import TilenetError
from tilenet.geometry import Box

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What a task says of a block that it finished.

    Parameters
    ----------
    box : Box
    seconds : dict
        Seconds per phase: "read", "compute", "write"; waiting for the device counts as "wait".
    value : object
        What the task computed, if that is not stored.
    skipped : bool
        Whether it lies outside of the mask as a whole: a constant was stored, nothing computed.
    """

    box: Box
    seconds: dict[str, float]
    value: Any = None
    skipped: bool = False


_loading = threading.Lock()


def once(keep: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function that loads something do so once per process for the same arguments.

    Parameters
    ----------
    keep : int
        How many of its last results it remembers.

    Returns
    -------
    callable
        For functions that take hashable arguments and call no other function made by ``once``.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        # functools.lru_cache alone would let two threads load the same network side by side.
        cached = functools.lru_cache(maxsize=keep)(function)

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> T:
            with _loading:
                return cached(*args, **kwargs)  # type: ignore[arg-type]

        return locked

    return decorate


class Clock:
    """Adds up seconds per phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def phase(self, name: str) -> None:
        """Count the time since the last call."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


@dataclass(frozen=True)
class Portable:
    """A task whose errors arrive as what they are.

    Dask sends an error with its causes and their tracebacks, and where any of these cannot be read
    (errors of zarr-python cannot) only the text arrives, as a bare ``Exception``: what kind of
    error it was decides whether it may pass, and whether it is the worker's own.

    Parameters
    ----------
    task : callable
        Takes a box and returns a report.
    """

    task: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self.task(*arguments)
        except Exception as error:
            found = portable(error)
        raise found


def portable(error: Exception) -> Exception:
    """Give an error that can be sent: without causes, and of a plain type where its own cannot.

    Parameters
    ----------
    error : Exception

    Returns
    -------
    Exception
        The same where it is one of ours or of Python's, else one with its text.
    """
    error.__cause__ = error.__context__ = None
    if isinstance(error, TilenetError) or type(error).__module__ == "builtins":
        return error
    # Types of other libraries fail to be read in their own ways, or are not installed there.
    text = f"{type(error).__name__}: {error}"
    for plain in (OSError, MemoryError, ImportError, LookupError, ValueError, TypeError):
        if isinstance(error, plain):
            return plain(text)
    return RuntimeError(text)
