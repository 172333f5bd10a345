"""The status of a run in the text format that Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.watching.block_map import NAMES

#: A metric's samples: labels and value.
Samples = Iterable[tuple[Mapping[str, str], float | None]]


def metrics_text(status: Mapping[str, Any]) -> str:
    """Put the status of a run into version 0.0.4 of the format; what is unknown has no sample."""
    about = {name: str(status[name]) for name in ("command", "output", "tilenet")}
    parts = [_metric("info", "gauge", "What is being computed.", [(about, 1)])]
    parts += [_metric(name, kind, text, samples) for name, kind, text, samples in _of_pass(status)]
    return "".join(parts)


def _of_pass(status: Mapping[str, Any]) -> Iterable[tuple[str, str, str, Samples]]:
    blocks, seconds, here = status["blocks"], status["seconds"], {"pass": status["pass"]}
    states = [({**here, "state": name}, blocks[name]) for name in NAMES.values()]
    yield "blocks", "gauge", "Blocks by state.", states
    retried = [(here, blocks["retried"])]
    yield "block_retries_total", "counter", "Blocks that failed and were tried again.", retried
    computed = [(here, status["voxels"]["computed"])]
    yield "voxels_total", "counter", "Voxels that this run has computed.", computed
    rates = [({**here, "over": over}, value) for over, value in status["voxels_per_second"].items()]
    yield "voxels_per_second", "gauge", "Voxels per second, now and over the whole pass.", rates
    phases = ("read", "compute", "write", "wait")
    spent = [({**here, "phase": name}, seconds[name]) for name in phases]
    yield "phase_seconds_total", "counter", "Seconds per phase, summed over blocks.", spent
    yield "elapsed_seconds", "gauge", "Seconds since the pass began.", [(here, seconds["elapsed"])]
    yield "left_seconds", "gauge", "Seconds until the pass ends.", [(here, seconds["left"])]
    yield (
        "busy_ratio",
        "gauge",
        "Share of the time that devices computed.",
        [(here, status["busy"])],
    )
    workers: Samples = [({}, status["workers"]["count"])]
    yield "workers", "gauge", "Worker processes.", workers


def _metric(name: str, kind: str, text: str, samples: Samples) -> str:
    lines = [f"# HELP tilenet_{name} {text}", f"# TYPE tilenet_{name} {kind}"]
    for labels, value in samples:
        if value is None:
            continue
        inside = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
        lines.append(f"tilenet_{name}{{{inside}}} {value!r}")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
