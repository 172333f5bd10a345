"""Reading with halo and writing shards: codec pipelines, compressors, chunk and shard shapes.

``python -m benchmarks.bench_io [--quick] [--json FILE] [--repeats N] [--folder DIR]``
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from benchmarks.io_cases import QUICK
from benchmarks.io_measure import Timing, measure_all
from benchmarks.io_memory import measure_memory
from benchmarks.io_pipelines import HAS_TENSORSTORE
from benchmarks.io_report import print_all
from benchmarks.io_safety import facts
from benchmarks.machine import machine
from pipelines.cluster import default_workers


@click.command()
@click.option("--quick", is_flag=True, help="Small volumes, once, one core: checks, no figures.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all figures here.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option(
    "--folder", type=click.Path(exists=True), help="Where to write; else for temporary files."
)
def main(quick: bool, path: Path | None, repeats: int, folder: str | None) -> None:
    """Measure codec pipelines, compressors, and the shapes of chunks and shards."""
    if not HAS_TENSORSTORE:
        print("tensorstore is left out: pip install 'tilenet[bench]'", file=sys.stderr)
    repeats, k = (1, QUICK) if quick else (repeats, 1)
    cores = sorted({1} if quick else {1, min(2, default_workers(1))})
    timings: list[Timing] = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for count in cores:
            timings += _alone(measure_all, place, count, repeats=repeats, k=k)
        memory = measure_memory(Path(place), cores[-1], repeats=repeats, k=k)
        safety = _alone(facts, place)
    print_all(timings, memory, safety)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {
            "machine": machine(cores[-1]),
            "timings": [asdict(timing) for timing in timings],
            "memory": [asdict(row) for row in memory],
            "safety": safety,
        }
        path.write_text(json.dumps(values, indent=2) + "\n")


def _alone(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Threads are bound and pipelines configured once, before they start: a process for each count.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return fresh.submit(function, *args, **kwargs).result()


if __name__ == "__main__":
    main()
