"""A million blocks: what a scheduler and a client of their own spend, and what a resume takes.

``python -m benchmarks.bench_scale [--quick] [--blocks N] [--shards N] [--cold] [--json FILE]``;
what the figures mean stands in ``benchmarks/README.md``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.scale_cluster import Sample, run_blocks
from benchmarks.scale_paper import Measured, petabyte
from benchmarks.scale_resume import Resume, measure
from pipelines.cluster import default_workers

#: Mebibytes by which scheduler and client may grow from a tenth of the blocks to all of them: some
#: 70 bytes for each of a million. Dask's scheduler grows by 50, see ``benchmarks/README.md``.
GROWTH = 64

#: Seconds within which a resume has to know what is missing, for a million shards.
RESUME_SECONDS = 60

#: Blocks of the paper's plans, in minutes.
MINUTES = (10.0, 1.0)

Record = dict[str, Any]


@click.command()
@click.option("--quick", is_flag=True, help="1,000 blocks, 2,000 shards: checks, and no figures.")
@click.option("--blocks", type=click.IntRange(0), help="1,000,000; 0 leaves them out.")
@click.option("--shards", type=click.IntRange(0), help="1,000,000; 0 leaves the resume out.")
@click.option("--cold", is_flag=True, help="Resume with dropped caches too (root; hurts others).")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all figures here.")
def main(
    quick: bool, blocks: int | None, shards: int | None, cold: bool, path: Path | None
) -> None:
    """Measure what a million blocks cost."""
    blocks = (1_000 if quick else 1_000_000) if blocks is None else blocks
    shards = (2_000 if quick else 1_000_000) if shards is None else shards
    record: Record = {"machine": machine(default_workers(1))}
    resumes, samples = list[Resume](), list[Sample]()
    if shards:
        with tempfile.TemporaryDirectory(prefix="tilenet-scale-") as folder:
            resumes = measure(Path(folder), shards, drop_caches=cold)
        record["resume"] = [asdict(found) for found in resumes]
        print_resumes(resumes)
    if blocks:
        samples = in_fresh_process(blocks)
        record["samples"] = [asdict(sample) for sample in samples]
        print_samples(samples)
        record["paper"] = [petabyte(minutes, costs(samples, resumes)) for minutes in MINUTES]
        print_paper(record["paper"])
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=2) + "\n")
    check(samples, resumes)


def in_fresh_process(blocks: int) -> list[Sample]:
    """Run the blocks; the client's memory is to be that of the engine alone."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return fresh.submit(run_blocks, blocks, min(2, default_workers(1))).result()


def costs(samples: Sequence[Sample], resumes: Sequence[Resume]) -> Measured:
    """Give what was measured per block and per shard."""
    last = samples[-1]
    each = {name: seconds / last.blocks for name, seconds in last.cpu.items()}
    listing = max((found.listing_cpu / found.shards for found in resumes), default=None)
    return Measured(each["scheduler"], each["client"], last.memory["client"], listing)


def at(samples: Sequence[Sample], share: float) -> Sample:
    """Give the first look after a share of the blocks."""
    return next(s for s in samples if s.blocks >= share * samples[-1].blocks)


def growth(samples: Sequence[Sample], part: str) -> float:
    """Give the MiB by which a part grew from a tenth of the blocks to all."""
    return (samples[-1].memory[part] - at(samples, 0.1).memory[part]) / 2**20


def check(samples: Sequence[Sample], resumes: Sequence[Resume]) -> None:
    """Complain where memory grows, or where a resume takes long."""
    for part in ("scheduler", "client") if samples else ():
        grown = growth(samples, part)
        assert grown <= GROWTH, f"the {part} grew by {grown:.0f} MiB, {GROWTH} are allowed"
    for found in resumes:
        allowed = RESUME_SECONDS * max(1.0, found.shards / 1e6)
        assert found.listing <= allowed, f"a listing took {found.listing:.0f} s"
        assert found.command is None or found.command <= allowed, f"{found.command:.0f} s"


def print_samples(samples: Sequence[Sample]) -> None:
    """Print milliseconds per block, and memory on the way."""
    last = samples[-1]
    table = Table(box=None)
    for name in (f"{last.blocks:,} blocks", "CPU ms per block", "MiB at 10 %", "50 %", "100 %"):
        table.add_column(name, justify="left" if "blocks" in name else "right")
    for part, seconds in last.cpu.items():
        memory = (f"{at(samples, s).memory[part] / 2**20:.0f}" for s in (0.1, 0.5, 1))
        table.add_row(part, f"{1e3 * seconds / last.blocks:.3f}", *memory)
    _print(table)
    print(f"wall time per block: {1e3 * last.seconds / last.blocks:.2f} ms", flush=True)


def print_resumes(resumes: Sequence[Resume]) -> None:
    """Print one row per resume."""
    table = Table(box=None)
    for name in ("shards", "stored", "caches", "listing s (CPU)", "command s (CPU)", "MiB", "peak"):
        table.add_column(name, justify="left" if name == "caches" else "right")
    for found in resumes:
        memory = (f"{n / 2**20:.0f}" for n in (found.before, found.peak))
        table.add_row(
            f"{found.shards:,}", f"{found.stored:,}", found.caches,
            _seconds(found.listing, found.listing_cpu),
            _seconds(found.command, found.command_cpu), *memory,
        )  # fmt: skip
    _print(table)


def _seconds(wall: float | None, cpu: float | None) -> str:
    return "" if wall is None else f"{wall:.2f} ({cpu:.2f})"


def print_paper(columns: Sequence[dict[str, float]]) -> None:
    """Print a plan per column."""
    table = Table("a petabyte, on paper", *(["plan"] * len(columns)), box=None)
    for name in columns[0]:
        table.add_row(name.replace("_", " "), *(f"{column[name]:,.4g}" for column in columns))
    _print(table)


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
