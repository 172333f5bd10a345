"""Blocks that do something bad; in a module that workers import quickly."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from distributed import get_worker

from tilenet.errors import DeviceUnavailable, UnreadableVolume, WorkerUnfit
from tilenet.geometry import Box
from tilenet.worker import BlockReport

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


@dataclasses.dataclass(frozen=True)
class Faulty:
    """Fails on workers whose environment names a fault; reports the name of the worker."""

    tries: str
    #: Blocks that fail everywhere.
    bad: Sequence[Box] = ()
    #: Name of a worker whose first process fails.
    first: str = ""
    #: The first try of a block fails, wherever it is.
    once: bool = False
    seconds: float = 0.05

    def __call__(self, box: Box) -> BlockReport:
        name = str(get_worker().name)
        folder = Path(self.tries)
        folder.mkdir(exist_ok=True)
        with (folder / str(box).replace(":", "_")).open("a") as file:
            file.write(f"{name}\n")
        if name == self.first:
            (folder / "process").touch(exist_ok=True)
            process = (folder / "process").read_text() or str(os.getpid())
            (folder / "process").write_text(process)
            if process == str(os.getpid()):
                raise OSError(5, "Input/output error")
        if box in self.bad or (self.once and len(self.workers(box)) == 1):
            raise OSError(5, "Input/output error")
        _fail(os.environ.get("TILENET_TEST_FAULT", ""))
        time.sleep(self.seconds)
        return BlockReport(box, {}, name)

    def workers(self, box: Box) -> list[str]:
        """The workers that it was tried on."""
        return (Path(self.tries) / str(box).replace(":", "_")).read_text().split()


def _fail(fault: str) -> None:
    if fault == "kind":
        problem = "differs from the workers that the run began with: device is 'b', not 'a'"
        raise WorkerUnfit("node", problem, "Stop it.")
    if fault == "device":
        raise DeviceUnavailable("cuda:0", "PyTorch finds no CUDA device here")
    if fault == "library":
        raise ModuleNotFoundError("No module named 'h5py'")
    if fault == "mount":
        raise UnreadableVolume("em.zarr", "does not exist", "Mount it")
    if fault == "system":
        raise OSError(5, "Input/output error")


def stay() -> None:
    """Ignore what asks a process to end, as workers do."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Event().wait()
