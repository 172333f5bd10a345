"""Targets that do what no target may do: each has to be found out, and put down to its case."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from tests.fuzz.targets import Target
from tilenet.errors import InvalidData

#: What it is before it is damaged: the worker's first round over all targets sees it so.
_sound: list[bytes] = []


def _trap(path: Path) -> bool:
    data = path.read_bytes()
    if not _sound:
        _sound.append(data)
    return data != _sound[0]


def crash(path: Path) -> None:
    if _trap(path):
        os.abort()


def hang(path: Path) -> None:
    if _trap(path):
        time.sleep(3600)


def stumble(path: Path) -> None:
    if _trap(path):
        raise KeyError("shape")


def ramble(path: Path) -> None:
    if _trap(path):
        raise InvalidData("x", "y" * 10**6, "z")


def allocate(path: Path) -> None:
    if _trap(path):
        np.ones(10**18)


def swell(path: Path) -> None:
    _trap(path)
    np.ones(2**26)  # also before it is damaged: an earlier peak must not hide it


def escape(path: Path) -> None:
    if _trap(path):
        (path.parent.parent / "outside" / "notes.txt").write_text("touched")


def leave(path: Path) -> None:
    if _trap(path):
        Path("core").write_text("left in the current folder")


TARGETS = {
    run.__name__: Target("x.npy", run, 1, links=False)
    for run in (crash, hang, stumble, ramble, allocate, swell, escape, leave)
}
