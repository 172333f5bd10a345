"""The tables of ``bench_io``."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.io_measure import Timing
from benchmarks.io_memory import Memory

#: What the figures of a cell are.
CELL = "MB/s, (MB per second of processor time), times tilenet's"


def print_all(
    timings: Sequence[Timing], memory: Sequence[Memory], safety: dict[str, dict[str, str]]
) -> None:
    """Print every table."""

    def of(table: str) -> list[Timing]:
        return [timing for timing in timings if timing.table == table]

    print_pipelines(f"Reading: {CELL}", of("reading"), "decoded / wanted")
    print_pipelines(f"Writing one shard: {CELL}", of("writing"), "stored / raw")
    print_shapes("Compressors, one core: MB/s (MB per processor second)", of("codecs"))
    print_shapes("Shards of a block, one core: MB/s (MB per processor second)", of("shards"))
    for kind in ("sections", "cube"):
        title = f"Chunks, {kind}, one core: MB per processor second, decoded / wanted"
        print_chunks(title, of(f"chunks, {kind}"))
    print_memory(memory)
    print_safety(safety)


def _ratio(timing: Timing, first: Timing) -> float:
    # Formed within each repeat: what else the machine does changes both.
    return statistics.median(a / b for a, b in zip(first.wall, timing.wall, strict=True))


def print_pipelines(title: str, timings: Sequence[Timing], fact: str) -> None:
    """Print one row per case and number of cores, one column per pipeline."""
    methods = list(dict.fromkeys(timing.method for timing in timings))
    rows = []
    for case, cores in dict.fromkeys((t.case, t.cores) for t in timings):
        found = {t.method: t for t in timings if (t.case, t.cores) == (case, cores)}
        first = found[methods[0]]
        cells = [f"{t.rate:.0f} ({t.cpu_rate:.0f}) {_ratio(t, first):.2f}" for t in found.values()]
        rows.append([case, str(cores), f"{first.facts[fact]:.2f}", *cells])
    _print(title, ["", "cores", fact, *methods], rows)


def print_shapes(title: str, timings: Sequence[Timing]) -> None:
    """Print one row per method, one column per case, and what else is known."""
    cases = list(dict.fromkeys(timing.case for timing in timings))
    rows = []
    for method in dict.fromkeys(timing.method for timing in timings):
        found = {t.case: t for t in timings if t.method == method}
        cells = []
        for case in cases:
            timing = found[case]
            cells.append(f"{timing.rate:.0f} ({timing.cpu_rate:.0f})")
            cells[-1] += "".join(f", {value:.3f}" for value in timing.facts.values())
        rows.append([method, *cells])
    _print(f"{title}, stored / raw", ["", *cases], rows)


def print_chunks(title: str, timings: Sequence[Timing]) -> None:
    """Print one row per chunk shape, one column per way through the volume."""
    cases = list(dict.fromkeys(timing.case for timing in timings))
    rows = []
    for method in dict.fromkeys(timing.method for timing in timings):
        found = {t.case: t for t in timings if t.method == method}
        cells = (
            f"{found[case].cpu_rate:.0f}, {next(iter(found[case].facts.values())):.3g}"
            for case in cases
        )
        rows.append([method, *cells])
    _print(title, ["", *cases], rows)


def print_memory(memory: Sequence[Memory]) -> None:
    """Print what reading in groups costs and wins."""
    rows = []
    for row in memory:
        figures = (row.grown / 2**20, row.box / 2**20, *(1e3 * s for s in row.seconds))
        rows.append([row.case, row.method, *(f"{figure:.0f}" for figure in figures)])
    names = ["", "at once", "MiB grown", "MiB wanted", "ms", "processor ms"]
    _print("A cube with halo, bytes of chunks read at once", names, rows)


def print_safety(safety: dict[str, dict[str, str]]) -> None:
    """Print what became of damaged, empty and unfinished shards."""
    names = list(dict.fromkeys(row for found in safety.values() for row in found))
    rows = [[pipeline, *(found.get(n, "") for n in names)] for pipeline, found in safety.items()]
    _print("What goes wrong", ["", *names], rows)


def _print(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None)
    for n, name in enumerate(names):
        table.add_column(name, justify="right" if n else "left")
    for row in rows:
        table.add_row(*row)
    # Not narrower for a pipe than the table is: a wrapped figure is no figure.
    Console(width=None if sys.stdout.isatty() else 180).print(title, table, "")
