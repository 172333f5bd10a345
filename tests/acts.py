"""Blocks that do something bad; for test_limits, in a module that workers import quickly."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Sequence

from tilenet.geometry import Box
from tilenet.tasks import BlockReport

#: Bytes that a worker may use.
MEMORY = 700 * 10**6


@dataclasses.dataclass(frozen=True)
class Act:
    """Does something bad in some blocks, and nothing in the others."""

    bad: Sequence[Box]
    how: str
    seconds: float = 0.01
    #: Before it dies or eats: by then the worker has said that it computes it.
    before: float = 2.5

    def __call__(self, box: Box) -> BlockReport:
        if box not in self.bad:
            time.sleep(self.seconds)
        elif self.how == "die":
            time.sleep(self.before)
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.how == "hang":
            threading.Event().wait()
        else:
            time.sleep(self.before)
            held = bytearray(MEMORY)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(20)
        return BlockReport(box, {})


def stay() -> None:
    """Ignore what asks a process to end, as workers do."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Event().wait()
