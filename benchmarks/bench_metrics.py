"""What judging a prediction costs: seconds per figure, and memory per pixel.

``python -m benchmarks.bench_metrics [--quick] [--json FILE]``
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import psutil
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from benchmarks.machine import machine
from benchmarks.memory import peak_bytes
from pipelines.cluster import ClusterOptions, default_workers
from pipelines.evaluate import SECTION_BYTES, Judgement, check_comparison, run_evaluation
from tilenet import metrics
from tilenet.geometry import Box, zyx
from tilenet.metrics import segments, tally_section
from tilenet.synthetic import synthetic_em
from tilenet.volumes import NewVolume, VolumeReference, create_volume, reopen_for_writing

Array = npt.NDArray[Any]

#: Sections that are drawn; the stack repeats them.
DRAWN = 2


@dataclass(frozen=True)
class Cost:
    """What a figure costs."""

    what: str
    where: str  # on what it was computed
    seconds: float  # for the whole stack
    pixels_per_second: float  # of the stack


def stack(sections: int, side: int) -> tuple[Array, Array, Array]:
    """Draw instances of cells, a blurred and noisy prediction of them, and instances of that."""
    em = synthetic_em((DRAWN, side, side), seed=1)
    rng = np.random.default_rng(1)
    blurred = ndimage.gaussian_filter((em.cells > 0).astype(np.float32), (0, 1.5, 1.5))
    noise = ndimage.gaussian_filter(rng.standard_normal(blurred.shape), (0, 2, 2))
    grey = np.rint(255 * np.clip(blurred + 1.5 * noise, 0, 1)).astype(np.uint8)
    found = np.stack([segments(section > 140) for section in grey]).astype(np.uint32)
    times = (math.ceil(sections / DRAWN), 1, 1)
    labels, prediction, instances = (
        np.tile(drawn, times)[:sections] for drawn in (em.instances, grey, found)
    )
    return labels, prediction, instances


def in_one_process(labels: Array, grey: Array, found: Array) -> list[Cost]:
    """Time the figures on arrays, in this process and on one core."""
    proposal = grey / np.float32(255)

    def one(figure: str) -> None:
        metrics.isbi_figures(labels, proposal, figures=[figure])

    figures: dict[str, Callable[[], object]] = {
        "warping error, 10 thresholds": partial(one, "warping"),
        "pixel error, 11 thresholds": partial(one, "pixel"),
        "Rand error, 11 thresholds": partial(one, "rand"),
        "V_Rand and V_Info, 11 thresholds": partial(one, "thinned"),
        "all five": lambda: metrics.isbi_figures(labels, proposal),
        "SEG by section": lambda: metrics.seg_score(labels, found),
        "adapted Rand, 3-D": lambda: metrics.adapted_rand_error(labels, found),
        "variation of information, 3-D": lambda: metrics.variation_of_information(labels, found),
    }
    metrics.isbi_figures(labels[:1, :32, :32], proposal[:1, :32, :32])  # compiled
    return [_timed(what, "arrays, one core", labels.size, run) for what, run in figures.items()]


def _timed(what: str, where: str, pixels: int, run: Callable[[], object]) -> Cost:
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return Cost(what, where, seconds, pixels / seconds)


def on_all_cores(labels: Array, grey: Array, found: Array, folder: Path) -> list[Cost]:
    """Time the command's work, cluster start included, from Zarr."""
    paths = {"labels": labels, "grey": grey, "found": found}
    for name, values in paths.items():
        _store(folder / f"{name}.zarr", values)
    truth = VolumeReference(str(folder / "labels.zarr"))
    cluster = ClusterOptions(workers=default_workers(1), memory=2 * 2**30)
    where = f"Zarr, {cluster.workers} workers, start included"
    costs = []
    for what, name in (("evaluate: all five", "grey"), ("evaluate: SEG and 3-D", "found")):
        wanted = Judgement(segmentation=name == "found")
        reference = VolumeReference(str(folder / f"{name}.zarr"))
        run = partial(run_evaluation, check_comparison(reference, truth, wanted), cluster)
        with contextlib.redirect_stderr(io.StringIO()):
            costs.append(_timed(what, where, labels.size, run))
    return costs


def _store(path: Path, values: Array) -> None:
    shape = zyx(values.shape)
    chunk = zyx(min(n, m) for n, m in zip(shape, (16, 256, 256), strict=True))
    create_volume(
        str(path),
        NewVolume(shape=shape, dtype=str(values.dtype), chunk=chunk, shard=chunk, attributes={}),
    )
    reopen_for_writing(str(path)).write(Box.of_shape(shape), values)


def section_bytes(side: int) -> float:
    """Measure the bytes per pixel that a section takes beside what was read, in a process."""
    # Tiled from a small drawing, because drawing takes more memory than judging.
    times = (math.ceil(side / 96),) * 2
    labels, grey = (np.tile(drawn[0], times) for drawn in stack(1, 96)[:2])
    proposal = grey / np.float32(255)
    tally_section(labels[:32, :32], proposal[:32, :32])  # loaded and compiled
    before = psutil.Process().memory_info().rss
    tally_section(labels, proposal)
    taken: int = peak_bytes() - before
    return max(0, taken) / int(proposal.size)


@click.command()
@click.option("--quick", is_flag=True, help="A tiny stack: checks, and no figures.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all figures here.")
def main(quick: bool, path: Path | None) -> None:
    """Measure what judging a 30 x 512 x 512 stack costs."""
    sections, side = (3, 96) if quick else (30, 512)
    print(f"{sections} x {side} x {side}", file=sys.stderr, flush=True)
    arrays = stack(sections, side)
    costs = in_one_process(*arrays)
    with tempfile.TemporaryDirectory() as folder:
        costs += on_all_cores(*arrays, Path(folder))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        needed = fresh.submit(section_bytes, 96 if quick else 2048).result()
    print_table(costs)
    print(f"a section takes {needed:.0f} bytes per pixel; counted with: {SECTION_BYTES}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {
            "machine": machine(default_workers(1)),
            "costs": [asdict(cost) for cost in costs],
            "section_bytes_per_pixel": needed,
        }
        path.write_text(json.dumps(values, indent=2) + "\n")


def print_table(costs: Sequence[Cost]) -> None:
    """Print one row per figure."""
    table = Table(box=None)
    for name in ("figure", "from", "seconds", "Mpixel/s"):
        table.add_column(name, justify="left" if name in ("figure", "from") else "right")
    for cost in costs:
        speed = f"{cost.pixels_per_second / 1e6:.3g}"
        table.add_row(cost.what, cost.where, f"{cost.seconds:.2f}", speed)
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
