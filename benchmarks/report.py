"""The table of ``bench_predict``: one column per case."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tilenet.networks import UNetArchitecture

#: What is known of a case: see :func:`benchmarks.yardsticks.record`.
Record = dict[str, Any]


def _text(field: str, pattern: str = "{:.2f}", scale: float = 1.0) -> Callable[[Record], str]:
    def read(values: Record) -> str:
        found = values["yardsticks"]
        for name in field.split("."):
            found = found[name]
        return pattern.format(found * scale)

    return read


def _phases(values: Record) -> str:
    phases = values["yardsticks"]["seconds_per_phase"]
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items())


def _work(values: Record) -> str:
    plan = values["plan"]
    return f"{plan['blocks']} blocks, {plan['tiles']} tiles of {_shape(plan['tile'])}"


GIGA = "{:.1f} GFLOP/s"
ROWS: list[tuple[str, Callable[[Record], str]]] = [
    ("volume", lambda values: _shape(values["shape"])),
    ("plan", _work),
    ("operation efficiency", _text("operation_efficiency")),
    ("device efficiency", _text("device_efficiency")),
    ("efficiency", _text("efficiency")),
    ("read amplification", _text("read_amplification")),
    ("peak memory / plan", _text("peak_over_plan")),
    ("cluster start-up", _text("cluster_start_seconds", "{:.2f} s")),
    ("first run, cold", _text("first_run_seconds", "{:.2f} s")),
    ("wall, warm", _text("seconds", "{:.2f} s")),
    ("summed over blocks, s", _phases),
    ("speed", _text("voxels_per_second", "{:.0f} kvoxel/s", 1e-3)),
    ("rate", _text("operations_per_second", GIGA, 1e-9)),
    ("largest difference", _text("difference", "{:.1e}")),
    ("bare loop: time / tilenet's", _text("loop.seconds_over_tilenet")),
    ("  operation efficiency", _text("loop.operation_efficiency")),
    ("  rate", _text("loop.operations_per_second", GIGA, 1e-9)),
    ("  largest difference", _text("loop.difference", "{:.1e}")),
    ("map_overlap: time / tilenet's", _text("map_overlap.seconds_over_tilenet")),
    ("  operation efficiency", _text("map_overlap.operation_efficiency")),
    ("  rate", _text("map_overlap.operations_per_second", GIGA, 1e-9)),
    ("  largest difference", _text("map_overlap.difference", "{:.1e}")),
]


def print_table(records: Sequence[Record]) -> None:
    """Print one column per case."""
    table = Table(box=None)
    table.add_column("")
    for values in records:
        table.add_column(_network(values), justify="right")
    for name, read in ROWS:
        table.add_row(name, *(read(values) for values in records))
    # Not narrower for a pipe than the table is: a wrapped figure is no figure.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)


def _network(values: Record) -> str:
    architecture = UNetArchitecture.from_dict(values["architecture"])
    kind = "2-D" if architecture.is_planar else "3-D"
    return f"{kind}, depth {architecture.depth}, {architecture.channels[0]} channels"
