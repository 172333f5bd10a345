"""What real faults did to a run, from the tests that cause them.

``python -m benchmarks.bench_faults [--json FILE]``
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine

#: Where the fault tests note what they saw; ``tests.support.faults.RECORD``.
RECORD = "TILENET_FAULTS"

TESTS = (
    "tests/whole/test_faults.py",
    "tests/whole/test_faults_storage.py",
    "tests/whole/test_faults_workers.py",
)

COLUMNS = ("fault", "exit", "said", "stored", "repeated", "computed", "lost")


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write what was seen here.")
def main(path: Path | None) -> None:
    """Run the fault tests, and print what they saw."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "seen"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", *TESTS]
        done = subprocess.run(command, env={**os.environ, RECORD: str(record)}, check=False)
        lines = record.read_text().splitlines() if record.exists() else []
    rows = [json.loads(line) for line in lines]
    show(rows)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({"machine": machine(os.cpu_count() or 1), "faults": rows}, indent=2)
        )
    sys.exit(done.returncode)


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as the tests recorded them."""
    table = Table(*COLUMNS, title="Faults in the middle of a run, and the same command again")
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in COLUMNS))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
