"""Prediction from Zarr to Zarr beside bare passes, a bare loop and ``dask.array.map_overlap``.

``python -m benchmarks.bench_predict [--quick] [--json FILE]``; what the figures mean stands in
``benchmarks/README.md``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import psutil

from benchmarks.cases import FULL, QUICK, Case
from benchmarks.machine import machine
from benchmarks.processes import Pool
from benchmarks.report import Record, print_table
from pipelines.cluster import MEMORY_SHARE, ClusterOptions, default_workers

NAMES = [case.name for case in (*FULL, *QUICK)]


@click.command()
@click.option("--quick", is_flag=True, help="Tiny networks, once: checks, and no figures.")
@click.option("--cases", type=click.Choice(NAMES), multiple=True, help="Only these; repeatable.")
@click.option("--repeats", type=click.IntRange(1), help="Per method; 3 by default, quick 1.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all figures here.")
def main(quick: bool, cases: Sequence[str], repeats: int | None, path: Path | None) -> None:
    """Measure prediction from Zarr to Zarr beside other ways."""
    chosen: tuple[Case, ...] = QUICK if quick else FULL
    if cases:
        chosen = tuple(case for case in (*FULL, *QUICK) if case.name in cases)
    cores = min(2, default_workers(1)) if quick else default_workers(1)
    records = measure_all(chosen, cores, repeats or (1 if quick else 3))
    print_table(records)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {"machine": machine(cores), "cases": records}
        path.write_text(json.dumps(values, indent=2) + "\n")


def measure_all(cases: Sequence[Case], cores: int, repeats: int) -> list[Record]:
    """Measure cases, each checked before the next one begins."""
    # Here, because every process that is started imports this module: those of the cluster shall
    # hold no more than those of a user.
    from benchmarks.measure import Bench
    from benchmarks.yardsticks import check, record, yardsticks

    memory = int(psutil.virtual_memory().available * MEMORY_SHARE) // cores
    cluster = ClusterOptions(workers=cores, slots=2, threads=1, memory=memory)
    records = []
    with (
        tempfile.TemporaryDirectory(prefix="tilenet-bench-") as folder,
        Pool(cores, threads=1) as workers,
        Pool(1, threads=cores) as solo,
    ):
        bench = Bench(Path(folder), cluster, workers, solo, _note)
        for case in cases:
            measured = bench.measure(case, repeats)
            found = yardsticks(measured)
            check(found)
            records.append(record(measured, found))
    return records


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
