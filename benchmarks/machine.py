"""What a benchmark was run on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: What the extra ``peers`` installs.
PEERS = ("chunkflow", "monai", "torch-em")


def machine(cores: int) -> dict[str, Any]:
    """Say what it was measured on."""
    packages = ("torch", "numpy", "zarr", "zarrs", "dask", "distributed", "tilenet", *PEERS)
    return {
        "processor": _processor(),
        "cores": cores,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
