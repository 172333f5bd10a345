"""The figures of a race, as JSON values and as a table."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cases import Case
from benchmarks.peers.race import Entry, Result

#: What is known of a case: see :func:`record`.
Record = dict[str, Any]


def record(case: Case, result: Result) -> Record:
    """Put a case into JSON values: what it is, every run, and the figures."""
    return {
        "case": case.name,
        "architecture": case.architecture.to_dict(),
        "shape": case.shape,
        "plan": result.plan.to_dict(),
        "contestants": [_contestant(entry) for entry in result.entries],
        "one_pass_error": result.rounding,
        "figures": figures(case, result.entries),
    }


def _contestant(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.contestant.name,
        "title": entry.contestant.title,
        "setting": dataclasses.asdict(entry.setting),
        "predicted_part": entry.part,
        "runs": [dataclasses.asdict(run) for run in entry.runs],
    }


def figures(case: Case, entries: Sequence[Entry]) -> dict[str, dict[str, float]]:
    """Derive the figures of every contestant, scaled to the whole volume."""
    law = case.architecture
    whole = law.evaluation(law.input_for(law.output_for(case.shape))).operations
    (tilenet,) = (entry for entry in entries if entry.contestant.name == "tilenet")
    return {
        entry.contestant.name: {
            "seconds": median(run.seconds for run in entry.runs) / entry.part,
            # Runs of one repeat; a slow contestant has fewer.
            "seconds_over_tilenet": median(
                run.seconds / entry.part / beside.seconds
                for run, beside in zip(entry.runs, tilenet.runs, strict=False)
            ),
            "peak_bytes": entry.peak,
            "difference": entry.difference,
            "error": entry.error,
            "lines": entry.contestant.lines,
            "operation_efficiency": whole * entry.part / entry.runs[0].operations,
        }
        for entry in entries
    }


Text = Callable[[dict[str, Any], dict[str, float]], str]

#: Columns: heading, and the text of a contestant and its figures.
COLUMNS: list[tuple[str, Text]] = [
    ("", lambda entry, _: str(entry["title"])),
    ("cut into", lambda entry, _: _cut(entry)),
    ("runs", lambda entry, _: str(len(entry["runs"]))),
    ("seconds", lambda _, found: f"{found['seconds']:,.2f}"),
    ("/ tilenet's", lambda _, found: f"{found['seconds_over_tilenet']:,.2f}"),
    ("GiB", lambda _, found: f"{found['peak_bytes'] / 2**30:.2f}"),
    ("difference", lambda _, found: f"{found['difference']:.1e}"),
    ("lines", lambda _, found: str(found["lines"])),
    ("op. efficiency", lambda _, found: f"{found['operation_efficiency']:.2g}"),
]


def print_tables(records: Sequence[Record]) -> None:
    """Print a table per case, with one row per contestant."""
    # Not narrower for a pipe than the table is: a wrapped figure is no figure.
    console = Console(width=None if sys.stdout.isatty() else 140)
    for values in records:
        table = Table(box=None, title=f"{values['case']}: {_shape(values['shape'])}")
        for name, _ in COLUMNS:
            table.add_column(name, justify="left" if name in ("", "cut into") else "right")
        for entry in values["contestants"]:
            found = values["figures"][entry["name"]]
            table.add_row(*(text(entry, found) for _, text in COLUMNS))
        console.print(table)


def _cut(entry: dict[str, Any]) -> str:
    setting = entry["setting"]
    kept, at_once = _shape(setting["kept"]), setting["at_once"]
    if entry["predicted_part"] < 1:
        return f"voxels, of {kept} only"
    return f"{kept}, {at_once} at once" if at_once > 1 else kept


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
