"""Ctrl-C, SIGTERM, a closed terminal: the first asks to stop, the second stops at once."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

#: Signals that ask to stop: Ctrl-C, a queueing system or a service manager, a closed terminal.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@dataclass(eq=False)
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

    def check(self) -> None:
        """Go no further when a stop was asked for: before something is begun, or overwritten."""
        if self.signal is not None:
            raise Stopped(self.signal)


class Stopped(Exception):
    """A run ended early because a signal, by its number, asked for it.

    Parameters
    ----------
    signal : int
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


# The requests of the contexts that are open, the innermost last: signals are the process's.
_open: list[Stop] = []


def check_stop() -> None:
    """Raise :class:`Stopped` when a signal asked to stop, whoever was told of it."""
    for stop in _open:
        stop.check()


@contextlib.contextmanager
def stop_on_signals(*, at_once: bool = False) -> Iterator[Stop]:
    """Turn the first of the signals into a request to stop, and the second into a stop.

    A closed terminal is one of them, unless it was to be ignored, as ``nohup`` says.

    Parameters
    ----------
    at_once : bool
        Stop by the first one already: where nothing is begun there is nothing to bring to an end.

    Yields
    ------
    Stop
        Set when a signal arrived; what fails after that is raised as :class:`Stopped`.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            _leave_terminal()
        if stop:
            raise KeyboardInterrupt
        stop.signal = number
        if at_once:
            stop.check()

    with _handling(handle) as before:
        _open.append(stop)
        try:
            yield stop
        except Exception as error:
            # A terminal that is closed refuses what is said before its signal arrives.
            if stop.signal is None and _is_of_closed_terminal(error) and signal.SIGHUP in before:
                handle(signal.SIGHUP, None)
            # A signal to the whole process group ends workers too: what they say then is no error.
            if stop.signal is None:
                raise
            raise Stopped(stop.signal) from error
        finally:
            _open.remove(stop)


@contextlib.contextmanager
def undisturbed(text: str) -> Iterator[None]:
    """Let no signal interrupt what has to be brought to its end.

    Parameters
    ----------
    text : str
        What is said when one comes: whoever is impatient presses Ctrl-C again.

    Yields
    ------
    None
        Signals are answered, and do nothing.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)  # noqa: T201

    with _handling(handle):
        yield


@contextlib.contextmanager
def _handling(handle: Callable[[int, FrameType | None], None]) -> Iterator[dict[int, Any]]:
    # Gives what handled them before; nothing outside the main thread, which alone may change it.
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {
            number: signal.signal(number, handle)
            for number in SIGNALS
            if number in (signal.SIGINT, signal.SIGTERM)
            or signal.getsignal(number) != signal.SIG_IGN
        }
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_of_closed_terminal(error: Exception) -> bool:
    if not (isinstance(error, OSError) and error.errno == errno.EIO):
        return False
    nothing = os.stat(os.devnull).st_rdev  # noqa: PTH116
    for stream in (1, 2):
        with contextlib.suppress(OSError):  # it was closed from the start
            found = os.fstat(stream)
            if stat.S_ISCHR(found.st_mode) and found.st_rdev != nothing and not os.isatty(stream):
                return True
    return False


def _leave_terminal() -> None:
    # What is said from now on nobody reads, and every attempt would fail. A terminal that is closed
    # is none any more by its own account, but a device still.
    with open(os.devnull, "r+b") as nowhere:  # noqa: PTH123
        for stream in (0, 1, 2):
            with contextlib.suppress(OSError):
                if stat.S_ISCHR(os.fstat(stream).st_mode):
                    os.dup2(nowhere.fileno(), stream)
