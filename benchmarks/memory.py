"""Memory of a process, asked for from inside it."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import psutil


def peak_bytes() -> int:
    """Give the most memory that this process has had resident."""
    # Linux counts a parent's memory into the getrusage figure of a process that it started.
    if Path("/proc/self/status").exists():
        return _high_water("self")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tree_peak_bytes() -> int:
    """Add up the peaks of this process and of all that it has started."""
    children = psutil.Process().children(recursive=True)
    if Path("/proc/self/status").exists():
        return peak_bytes() + sum(_high_water(str(child.pid)) for child in children)
    # Only Linux keeps another process's peak; those of a benchmark do not give freed memory back.
    return peak_bytes() + sum(int(child.memory_info().rss) for child in children)


def give_back() -> None:
    """Return freed memory to the system, where the C library is glibc."""
    if sys.platform.startswith("linux"):
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


def _high_water(process: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
