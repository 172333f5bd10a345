"""Ctrl-C and SIGTERM: the first asks to stop, the second stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """A request to stop: no further block is begun.

    Parameters
    ----------
    signal : int or None
        Number of the signal that asked for it.
    """

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


class Stopped(Exception):
    """A run ended early because a signal asked for it.

    Parameters
    ----------
    signal : int
        Number of the signal.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop, and the second into a stop.

    Yields
    ------
    Stop
        Set when a signal arrived.

    Raises
    ------
    Stopped
        When something failed after a signal had arrived.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.signal = number

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except Exception as error:
        # A signal to the whole process group ends workers too: what they say then is no error.
        if stop.signal is None:
            raise
        raise Stopped(stop.signal) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
