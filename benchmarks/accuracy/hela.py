"""DIC-HeLa: what the border weights buy. Train on 8 frames, SEG on the other 2.

``python -m benchmarks.accuracy.hela [--seeds 3] [--folder FOLDER] [-- options of train]``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import tifffile
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy.commands import Commands, data_folder
from benchmarks.machine import machine
from pipelines.cluster import default_workers
from tilenet.metrics import seg_score

#: Frames that the figures are of. All are of one sequence, eight frames of it apart.
HELD_OUT = (3, 8)

#: Probability above which a pixel is of a cell: fixed beforehand.
THRESHOLD = "0.5"

#: Pixels of background between touching cells, in the labels as in the weights.
GAP = "2"

VOXEL_SIZE = "190,190,190"


@click.command()
@click.option("--seeds", default=3, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("accuracy-hela"))
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.argument("more", nargs=-1, type=click.UNPROCESSED)
def main(seeds: int, device: str, folder: Path, path: Path | None, more: tuple[str, ...]) -> None:
    """Train with and without the border term, and print SEG and merged cells."""
    command, data = Commands(folder), data_folder() / "dic-hela"
    raw, masks = (
        np.stack([tifffile.imread(file) for file in sorted((data / kind).glob("*.tif"))])
        for kind in ("images", "masks")
    )
    test = np.isin(np.arange(len(raw)), HELD_OUT)
    em = command.ingest("frames", raw[~test], VOXEL_SIZE)
    cells = command.ingest("cells", masks[~test], VOXEL_SIZE)
    held_out = command.ingest("test", raw[test], VOXEL_SIZE)
    weights = command.path("weights.zarr")
    command("weights", cells, weights, "--per-section", "--gap", GAP, "--overwrite")
    rows = []
    for seed in range(seeds):
        for border in (True, False):
            model = command.path(f"model-{seed}-{border}.safetensors")
            loss = ("--weight-map", weights) if border else ()
            command(
                "train", em, cells, "--config", "dic-hela", "--gap", GAP, "--output", model,
                "--seed", str(seed), "--device", device, "--overwrite", *loss, *more,
            )  # fmt: skip
            output = command.path(f"prediction-{seed}-{border}.zarr")
            command(
                "predict", held_out, output, "--model", model, "--device", device, "--overwrite"
            )
            found = command.path(f"found-{seed}-{border}.zarr")
            command(
                "label", output, found, "--per-section", "--threshold", THRESHOLD, "--overwrite"
            )
            rows.append(judge(masks[test], command.read(found), seed, border))
    report(rows, command.seconds["train"] / 60)
    if path is not None:
        facts = {"machine": machine(default_workers(1)), "minutes": command.seconds["train"] / 60}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**facts, "rows": rows}, indent=2))


def judge(
    truth: npt.NDArray[Any], found: npt.NDArray[Any], seed: int, border: bool
) -> dict[str, Any]:
    """Give SEG, and the cells that share their segment with another."""
    merged = 0
    for cells, segments in zip(truth, found, strict=True):
        owners: dict[int, int] = {}
        for cell in np.unique(cells[cells > 0]):
            inside = segments[cells == cell]
            ids, counts = np.unique(inside[inside > 0], return_counts=True)
            if len(ids) and counts.max() > 0.5 * inside.size:
                owner = int(ids[counts.argmax()])
                owners[owner] = owners.get(owner, 0) + 1
        merged += sum(n for n in owners.values() if n > 1)
    return {
        "seed": seed,
        "border": border,
        "seg": float(seg_score(truth, found)),
        "merged": merged,
        "cells": int(sum(len(np.unique(c[c > 0])) for c in truth)),
    }


def report(rows: list[dict[str, Any]], minutes: float) -> None:
    """Print a row per training."""
    table = Table(box=None, title=f"DIC-HeLa, two frames; trained {minutes:.1f} minutes in all")
    for name in ("border weights", "seed", "SEG", "merged cells", "of"):
        table.add_column(name)
    for row in sorted(rows, key=lambda row: (not row["border"], row["seed"])):
        border = "with" if row["border"] else "without"
        facts = (row["seed"], f"{row['seg']:.4f}", row["merged"], row["cells"])
        table.add_row(border, *map(str, facts))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
