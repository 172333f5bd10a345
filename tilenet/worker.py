"""What every task shares: its report, its clock, and loading a thing once per process."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from tilenet.geometry import Box

P = ParamSpec("P")


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What a task says of a block that it finished.

    Parameters
    ----------
    box : Box
        The block.
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
        A decorator of functions that take hashable arguments and call no other function made by
        ``once``.
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
