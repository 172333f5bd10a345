"""The rates that were measured on this machine, in a file of the user's cache folder.

A measurement counts for the same device, PyTorch, network, precision, threads, workers and codec,
and for slabs that are fed along the same axis and are up to twice as thick and as wide, or half.
No PyTorch is loaded here: a plan is made in a fraction of a second.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tilenet.planning import Plan, Rates, device_kind
from tilenet.volumes.stores import write_durably

#: Raised by one whenever what is stored means something else than before.
FORMAT_VERSION = 1

#: Measurements that are kept, the latest.
KEPT = 200

#: Thickness and width of two slabs differ by this factor at most if one is to stand for the other.
NEAR = 2.0


@dataclass(frozen=True)
class RateCache:
    """The measurements of a file.

    Parameters
    ----------
    path : pathlib.Path
    entries : tuple of mapping, the latest last
    problem : str or None
        Why nothing could be read from a file that is there.
    """

    path: Path
    entries: tuple[Mapping[str, Any], ...] = ()
    problem: str | None = None

    @classmethod
    def load(cls) -> RateCache:
        path = cache_folder() / "calibration.json"
        try:
            values = json.loads(path.read_text())
            if values["format_version"] != FORMAT_VERSION:
                return cls(path, problem=f"{path} is of another version of tilenet, and not used")
            entries = tuple(values["measurements"])
            for entry in entries:
                _check(entry)
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            return cls(
                path, problem=f"{path} cannot be read: {error.strerror or error}; it is not used"
            )
        except (
            ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError
        ):  # fmt: skip
            return cls(path, problem=f"{path} is no file of measured rates, and not used")
        return cls(path, entries)

    def find(self, plan: Plan, machine: str, codec: str) -> Rates | None:
        key, shape = _key(plan, machine, codec), _fed(plan)
        near = [
            (_distance(shape, _shape(entry)), -n, entry)
            for n, entry in enumerate(self.entries)
            if entry["key"] == key
        ]
        distance, _, entry = min(near, key=lambda item: item[:2], default=(math.inf, 0, None))
        return None if entry is None or distance > math.log2(NEAR) else _rates(entry)

    def add(self, plan: Plan, machine: str, codec: str, rates: Rates) -> RateCache:
        key, fed = _key(plan, machine, codec), _fed(plan)
        new = {"key": key, "fed": asdict(fed), "rates": asdict(rates)}
        others = (e for e in self.entries if (e["key"], e["fed"]) != (new["key"], new["fed"]))
        entries = (*others, new)[-KEPT:]
        values = {"format_version": FORMAT_VERSION, "measurements": entries}
        try:
            write_durably(self.path, json.dumps(values, indent=1).encode())
        except OSError as error:
            problem = (
                f"{self.path} cannot be written, so rates are not kept: {error.strerror or error}"
            )
            return RateCache(self.path, entries, problem)
        return RateCache(self.path, entries)


def cache_folder() -> Path:
    chosen = os.environ.get("TILENET_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "tilenet"
    try:
        return Path.home() / ".cache" / "tilenet"
    except RuntimeError:  # a user without a home, as in containers
        return Path(tempfile.gettempdir()) / f"tilenet-{os.getuid()}"


def machine_name(device: str) -> str:
    """Say what this process computes with: the device's model and the version of PyTorch.

    Parameters
    ----------
    device : "cpu", "cuda" or "cuda:N"

    Returns
    -------
    str
        For people, and to tell machines apart.
    """
    name = cpu_name() if device_kind(device) == "cpu" else gpu_name()
    try:
        return f"{name or 'no GPU'}, torch {version('torch')}"
    except PackageNotFoundError:
        return f"{name or 'no GPU'}, no torch"


def cpu_name() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


@functools.lru_cache(maxsize=1)
def gpu_name() -> str | None:
    """Give the models of the NVIDIA GPUs of this machine.

    Returns
    -------
    str or None
        None where there is none.
    """
    # The driver says it in a file; where that is hidden, its tool does.
    folder = Path("/proc/driver/nvidia/gpus")
    facts = [path.read_text() for path in sorted(folder.glob("*/information"))]
    lines = [line for text in facts for line in text.splitlines() if line.startswith("Model:")]
    names = {line.split(":", 1)[1].strip() for line in lines}
    tool = shutil.which("nvidia-smi")
    if not names and tool is not None:
        query = [tool, "--query-gpu=name", "--format=csv,noheader"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:  # a driver that hangs: its device has no name then
            return None
        names = set(done.stdout.split("\n")) - {""} if done.returncode == 0 else set()
    return " and ".join(sorted(names)) or None


# -- what has to be alike --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fed:
    # How a network is fed: the axis, planes at once, voxels of a plane.
    axis: int
    slab: int
    plane: int


def _key(plan: Plan, machine: str, codec: str) -> dict[str, Any]:
    request = plan.request
    network = request.architecture.to_dict()
    network.pop("dropout")  # takes no part in a prediction
    text = json.dumps(network, sort_keys=True)
    return {
        "machine": machine,
        "architecture": hashlib.sha256(text.encode()).hexdigest()[:16],
        "precision": request.precision,
        "threads": request.threads,
        # GPUs have a worker each; the workers of a CPU share its memory's bandwidth.
        "workers": request.workers if request.device == "cpu" else 1,
        "codec": codec,
    }


def _fed(plan: Plan) -> _Fed:
    depth, height, width = plan.tile_input
    if plan.request.architecture.is_planar:
        depth = 1  # one section at a time
    return _Fed(plan.axis, plan.slab, depth * height * width // (depth, height, width)[plan.axis])


def _shape(entry: Mapping[str, Any]) -> _Fed:
    return _Fed(**{name: int(value) for name, value in entry["fed"].items()})


def _rates(entry: Mapping[str, Any]) -> Rates:
    values = dict(entry["rates"])
    measured = str(values.pop("measured"))
    numbers = {name: float(value) for name, value in values.items()}
    if not all(0 < value < math.inf for value in numbers.values()):
        raise ValueError(values)
    return Rates(**numbers, measured=measured)


def _check(entry: Mapping[str, Any]) -> None:
    _rates(entry)
    _shape(entry)
    if not isinstance(entry["key"], dict):
        raise TypeError(entry["key"])


def _distance(one: _Fed, other: _Fed) -> float:
    if one.axis != other.axis or min(other.slab, other.plane) < 1:
        return math.inf
    pairs = ((one.slab, other.slab), (one.plane, other.plane))
    return max(abs(math.log2(a / b)) for a, b in pairs)
