"""What a plan promises beside what happens: wall time after calibration, and peak memory.

``python -m benchmarks.bench_plan [--quick] [--json FILE]``; what the figures mean stands in
``benchmarks/README.md``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.cases import QUICK, Case, Inputs, prepare
from benchmarks.machine import machine
from benchmarks.memory import peak_bytes
from pipelines.cluster import MEMORY_SHARE, ClusterOptions, default_workers, open_client
from pipelines.predict import Choices, Workplace, check_job, request_for, run_prediction
from tilenet.geometry import Box
from tilenet.networks import UNetArchitecture
from tilenet.planning import Costs
from tilenet.volumes import VolumeReference

#: Long enough that the start of the workers is a small part of it. The last two numbers of a case
#: are for other benchmarks.
FULL = (
    (Case("2d-16", UNetArchitecture.planar(16), (48, 1024, 1024), (1, 1, 1), (1, 1, 1)), "float32"),
    (
        Case("2d-64-bf16", UNetArchitecture.planar(64), (8, 768, 768), (1, 1, 1), (1, 1, 1)),
        "bfloat16",
    ),
    (Case("3d-16", UNetArchitecture.volumetric(16), (192,) * 3, (1, 1, 1), (1, 1, 1)), "float32"),
)

#: What is promised: measured time / expected, and peak memory / planned.
TIME, MEMORY = (0.7, 1.3), (0.5, 1.0)

Record = dict[str, Any]


@click.command()
@click.option("--quick", is_flag=True, help="A tiny network, once: checks, and no figures.")
@click.option(
    "--cases",
    "names",
    type=click.Choice([case.name for case, _ in FULL]),
    multiple=True,
    help="Only these; repeatable.",
)
@click.option("--repeats", type=click.IntRange(1), help="Runs of each case; 2, quick 1.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all figures here.")
def main(quick: bool, names: Sequence[str], repeats: int | None, path: Path | None) -> None:
    """Compare what plans promise with what happens."""
    cases = [(QUICK[-1], "float32")] if quick else list(FULL)
    if names:
        cases = [(case, precision) for case, precision in FULL if case.name in names]
    cores = min(2, default_workers(1)) if quick else default_workers(1)
    memory = int(psutil.virtual_memory().available * MEMORY_SHARE) // cores
    cluster = ClusterOptions(workers=cores, slots=2, threads=1, memory=memory)
    records = []
    with tempfile.TemporaryDirectory(prefix="tilenet-bench-") as folder:
        os.environ["TILENET_CACHE"] = str(Path(folder) / "cache")  # measured anew, for this run
        for case, precision in cases:
            inputs = prepare(case, Path(folder))
            choices = Choices(precision=precision)
            records.append(measure(inputs, choices, cluster, repeats or (1 if quick else 2)))
    print_table(records)
    check(records)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine(cores), "cases": records}, indent=2) + "\n")


def measure(inputs: Inputs, choices: Choices, cluster: ClusterOptions, repeats: int) -> Record:
    """Calibrate, then predict for real as often, each time on a cluster of its own."""
    case, source = inputs.case, VolumeReference(inputs.source)
    print(f"{case.name}: calibration", file=sys.stderr, flush=True)
    job = check_job(source, inputs.model, mask=None, choices=choices)
    request = request_for(job, Box.of_shape(job.volume.shape), cluster)
    place = Workplace(cluster, choices.device, choices.codec)
    costs = Costs(place.calibrated(request, anew=True))
    assert costs.rates.measured, "this machine was measured"
    runs = []
    for repeat in range(repeats):
        print(f"{case.name}: {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
        runs.append(predict(inputs, choices, cluster, costs))
    return {
        "case": case.name,
        "shape": case.shape,
        "precision": choices.precision,
        "plan": {**costs.plan.to_dict(), **costs.to_dict()},
        "runs": runs,
        "time_over_expected": median(run["wall"] for run in runs) / costs.wall_seconds,
        "peak_over_planned": max(run["peak"] for run in runs) / costs.plan.worker_bytes,
    }


def predict(inputs: Inputs, choices: Choices, cluster: ClusterOptions, costs: Costs) -> Record:
    """Predict once: seconds from the start of the workers to the end, and the largest worker."""
    output = str(Path(inputs.source).with_suffix(".predicted"))
    shutil.rmtree(output, ignore_errors=True)
    start = time.perf_counter()
    with open_client(cluster) as client, contextlib.redirect_stderr(io.StringIO()) as said:
        outcome = run_prediction(
            VolumeReference(inputs.source),
            output,
            model=inputs.model,
            cluster=dataclasses.replace(cluster, scheduler=client.scheduler.address),
            choices=choices,
        ).outcome
        wall = time.perf_counter() - start
        peak = max(client.run(peak_bytes).values())
    assert not outcome.failed, outcome.failed
    assert f"measured on {costs.rates.measured}" in " ".join(said.getvalue().split())
    assert outcome.computed == len(costs.plan.grid), "it ran as planned"
    return {"wall": wall, "peak": peak, "seconds_per_phase": dict(outcome.seconds)}


def check(records: Sequence[Record]) -> None:
    """Complain about memory above the plan's, which is never to be."""
    for record in records:
        if record["peak_over_planned"] > MEMORY[1]:
            found = f"{record['peak_over_planned']:.2f} x the memory that was planned"
            raise SystemExit(f"{record['case']} took {found}")


def print_table(records: Sequence[Record]) -> None:
    """Print one line per case."""
    table = Table(box=None)
    for name in ("case", "expected", "measured, median", "ratio", "planned", "peak", "ratio "):
        table.add_column(name, justify="left" if name == "case" else "right")
    for record in records:
        plan, runs = record["plan"], record["runs"]
        table.add_row(
            f"{record['case']}, {record['precision']}",
            f"{plan['seconds']['wall']:.1f} s",
            f"{median(run['wall'] for run in runs):.1f} s",
            _judged(record["time_over_expected"], TIME),
            f"{plan['worker_bytes'] / 2**20:.0f} MiB",
            f"{max(run['peak'] for run in runs) / 2**20:.0f} MiB",
            _judged(record["peak_over_planned"], MEMORY),
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _judged(ratio: float, goal: tuple[float, float]) -> str:
    return f"{ratio:.2f} {'met' if goal[0] <= ratio <= goal[1] else 'missed'}"


if __name__ == "__main__":
    main()
