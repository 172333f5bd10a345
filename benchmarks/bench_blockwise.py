"""What scheduling a block costs: a task that does nothing, through the engine and beside it.

``python -m benchmarks.bench_blockwise [--quick] [--json FILE]``
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self

import click
import psutil
from distributed import Client, wait
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.memory import peak_bytes
from benchmarks.noop import NoOp
from pipelines.cluster import ClusterOptions, default_workers, open_client
from pipelines.engine import RunOptions, run_in_loop, run_on_cluster
from tilenet.geometry import BlockGrid, Box
from tilenet.worker import BlockReport

#: Blocks before the measurement, so that every worker has imported what it needs.
WARM_UP = 100


class Silent:
    """A reporter that says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def advance(self, box: Box, result: BlockReport | str) -> None:
        """Count nothing."""

    def retry(self, box: Box, problem: str, *, noted: bool = False) -> None:
        """Regret nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Cost:
    """What a number of blocks cost."""

    method: str
    blocks: int
    milliseconds: float  # wall time per block
    # before, peak, after: bytes of the process in which scheduler and client live; the peak is that
    # of its whole life.
    before: int
    peak: int
    after: int


def _options() -> RunOptions:
    return RunOptions(name="noop", reporter=Silent())


def _loop(blocks: BlockGrid, _: Client) -> int:
    return run_in_loop(NoOp(), blocks, _options()).computed


def _engine(blocks: BlockGrid, client: Client) -> int:
    return run_on_cluster(NoOp(), blocks, _options(), client=client).computed


def _map(blocks: BlockGrid, client: Client) -> int:
    futures = client.map(NoOp(), list(blocks), pure=False)
    wait(futures)
    return len(client.gather(futures))


METHODS: dict[str, Callable[[BlockGrid, Client], int]] = {
    "plain loop": _loop,
    "engine": _engine,
    "client.map of all": _map,
}


def measure_all(count: int) -> list[Cost]:
    """Run blocks that do nothing, in this process with a cluster of its own."""
    cluster = ClusterOptions(workers=default_workers(1), slots=2, memory=2**30)
    with open_client(cluster) as client:
        for run in METHODS.values():
            run(BlockGrid((WARM_UP, 1, 1), (1, 1, 1)), client)
        return [measure(method, count, client) for method in METHODS]


def measure(method: str, count: int, client: Client) -> Cost:
    """Run blocks that do nothing by one method."""
    process, blocks = psutil.Process(), BlockGrid((count, 1, 1), (1, 1, 1))
    gc.collect()
    before = process.memory_info().rss
    start = time.perf_counter()
    done = METHODS[method](blocks, client)
    seconds = time.perf_counter() - start
    gc.collect()
    after = process.memory_info().rss
    assert done == count, f"{done} of {count} blocks were done"
    return Cost(method, count, 1e3 * seconds / count, before, peak_bytes(), after)


@click.command()
@click.option("--quick", is_flag=True, help="200 blocks: checks, and no figures.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all figures here.")
def main(quick: bool, path: Path | None) -> None:
    """Measure what scheduling a block costs."""
    costs = []
    for count in (200,) if quick else (2_000, 20_000):
        print(f"{count} blocks", file=sys.stderr, flush=True)
        # Memory once taken is seldom given back, so every number of blocks has a process.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            costs.extend(fresh.submit(measure_all, count).result())
    print_table(costs)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {"machine": machine(default_workers(1)), "costs": [asdict(c) for c in costs]}
        path.write_text(json.dumps(values, indent=2) + "\n")


def print_table(costs: Sequence[Cost]) -> None:
    """Print one row per measurement."""
    table = Table(box=None)
    for name in ("method", "blocks", "ms per block", "MiB before", "MiB peak", "MiB after"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for cost in costs:
        memory = (f"{n / 2**20:.0f}" for n in (cost.before, cost.peak, cost.after))
        table.add_row(cost.method, f"{cost.blocks:,}", f"{cost.milliseconds:.3g}", *memory)
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
