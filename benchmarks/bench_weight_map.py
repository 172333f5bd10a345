"""Border weights of a section: the array function against the usual loop over instances.

``python -m benchmarks.bench_weight_map [--quick] [--json FILE]``
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import tifffile
from rich.console import Console
from rich.table import Table
from scipy.ndimage import distance_transform_edt

from benchmarks.machine import machine
from tilenet.labels import ClassCounts, LabelRule, WeightRule, border_weights, label
from tilenet.synthetic import synthetic_em

RULE = WeightRule(per_section=True)

#: Instances that the usual loop is timed on, spread over the section. Its time is scaled to all of
#: them, in its favour: sorting takes longer per instance the more there are.
SUBSET = 20


@dataclass(frozen=True)
class Timing:
    """One section."""

    section: str
    instances: int  # how many it has
    # ours, transforms, sorting: seconds, per repeat; both parts of the usual loop are scaled to all
    # instances.
    ours: list[float]
    transforms: list[float]
    sorting: list[float]

    def ratio(self, *, sorting: bool) -> float:
        """Median over the repeats of usual / ours, with or without its sorting."""
        return statistics.median(
            (t + s * sorting) / o
            for o, t, s in zip(self.ours, self.transforms, self.sorting, strict=True)
        )


def usual_loop(labels: npt.NDArray[Any], values: Sequence[int]) -> npt.NDArray[np.float64]:
    """Compute distances as most implementations do: of each instance, over the full image."""
    return np.stack([distance_transform_edt(labels != value) for value in values], axis=-1)


def usual_weights(labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Compute the usual weight map, with the same class weights and without a radius."""
    values = [value for value in np.unique(labels).tolist() if value]
    nearest = np.sort(usual_loop(labels, values), axis=-1)[..., :2].sum(axis=-1)
    term = RULE.w0 * np.exp(-(nearest**2) / (2 * RULE.sigma**2))
    outside, inside = ClassCounts.of(labels).weights
    return np.where(labels == 0, outside + term, inside)


def sections(quick: bool) -> dict[str, npt.NDArray[np.bool_]]:
    """Cells of an ISBI section where TILENET_DATA has it, else of a synthetic one."""
    folder = os.environ.get("TILENET_DATA")
    if folder and not quick:
        stack = tifffile.imread(Path(folder) / "isbi2012" / "train-labels.tif")
        return {f"ISBI 2012, section {z}": stack[z] > 0 for z in (0, 12, 23)}
    side = 96 if quick else 512
    return {"synthetic": synthetic_em((1, side, side), seed=0).cells[0] > 0}


def measure(name: str, cells: npt.NDArray[np.bool_], repeats: int) -> Timing:
    """Time both, in turns."""
    labels, first = label(cells[None], LabelRule(connectivity=4))
    border_weights(labels[:, :64, :64], RULE)
    count = len(first)
    chosen = list(range(1, count + 1, max(1, count // SUBSET)))
    scale = count / len(chosen)
    timing = Timing(name, count, [], [], [])
    for _ in range(repeats):
        times = [time.perf_counter()]
        border_weights(labels, RULE)
        times.append(time.perf_counter())
        distances = usual_loop(labels[0], chosen)
        times.append(time.perf_counter())
        distances.sort(axis=-1)
        times.append(time.perf_counter())
        ours, transforms, sorting = (b - a for a, b in itertools.pairwise(times))
        timing.ours.append(ours)
        timing.transforms.append(transforms * scale)
        timing.sorting.append(sorting * scale)
    return timing


def check(cells: npt.NDArray[np.bool_]) -> float:
    """Compare both on a corner of a section: the greatest difference."""
    labels, _ = label(cells[None, :96, :96], LabelRule(connectivity=4))
    return float(np.abs(border_weights(labels, RULE)[0] - usual_weights(labels[0])).max())


@click.command()
@click.option("--quick", is_flag=True, help="A small synthetic section, once: checks, no figures.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all figures here.")
def main(quick: bool, path: Path | None) -> None:
    """Measure border weights against the usual loop."""
    found = sections(quick)
    difference = max(check(cells) for cells in found.values())
    assert difference < 1e-5, f"the weights differ by {difference}"
    timings = [measure(name, cells, 1 if quick else 5) for name, cells in found.items()]
    print_table(timings)
    print(f"largest difference on 96 x 96 pixels: {difference:.1e}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {"machine": machine(1), "timings": [asdict(timing) for timing in timings]}
        path.write_text(json.dumps(values, indent=2) + "\n")


def print_table(timings: Sequence[Timing]) -> None:
    """Print one row per section."""
    table = Table(box=None)
    columns = (
        "section",
        "instances",
        "ours, s",
        "transforms, s",
        "sorting, s",
        "ratio",
        "unsorted",
    )
    for name in columns:
        table.add_column(name, justify="left" if name == "section" else "right")
    for timing in timings:
        parts = (timing.ours, timing.transforms, timing.sorting)
        seconds = (f"{statistics.median(part):.3g}" for part in parts)
        ratios = (f"{timing.ratio(sorting=sorting):.0f}" for sorting in (True, False))
        table.add_row(timing.section, str(timing.instances), *seconds, *ratios)
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
