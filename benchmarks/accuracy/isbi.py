"""ISBI 2012: train on sections 0 to 19, evaluate on sections 20 to 23.

``python -m benchmarks.accuracy.isbi [--config RECIPE] [--folder FOLDER] [-- options of train]``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import tifffile
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy.commands import Commands, data_folder
from benchmarks.machine import machine
from pipelines.cluster import default_workers
from tilenet.metrics import isbi_figures

#: Sections in all, and those that the figures are of. Nothing of the latter touches training,
#: statistics or the choice of a model: the last weights are taken.
SECTIONS, HELD_OUT = 24, 4

VOXEL_SIZE = "50,4,4"

#: Errors, the lower the better, and then scores, the higher the better.
FIGURES = ("warping", "rand", "pixel", "v_rand_thinned", "v_info_thinned")


@click.command()
@click.option("--config", default="isbi2012-cpu", show_default=True, help="Recipe.")
@click.option("--seed", default=0, show_default=True)
@click.option("--first", default=20, show_default=True, help="First of the held-out sections.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("accuracy-isbi"))
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.argument("more", nargs=-1, type=click.UNPROCESSED)
def main(
    config: str, seed: int, first: int, device: str, folder: Path, path: Path | None,
    more: tuple[str, ...],
) -> None:  # fmt: skip
    """Train, predict and evaluate, and print all five figures."""
    command, data = Commands(folder), data_folder() / "isbi2012"
    raw = tifffile.imread(data / "train-volume.tif")
    cells = tifffile.imread(data / "train-labels.tif")
    held_out = slice(first, first + HELD_OUT)
    trained = [z for z in range(SECTIONS) if not first <= z < first + HELD_OUT]
    em = command.ingest("em", raw[trained], VOXEL_SIZE)
    labels = command.ingest("cells", cells[trained], VOXEL_SIZE)
    test = command.ingest("test", raw[held_out], VOXEL_SIZE)
    instances, weights = command.path("instances.zarr"), command.path("weights.zarr")
    command("label", labels, instances, "--per-section", "--overwrite")
    command("weights", instances, weights, "--per-section", "--overwrite")
    model = command.path("model.safetensors")
    command(
        "train", em, labels, "--weight-map", weights, "--config", config, "--output", model,
        "--seed", str(seed), "--device", device, "--overwrite", *more,
    )  # fmt: skip
    figures: dict[str, Any] = {}
    for name, options in {
        "one pass": (),
        "7 orientations": ("--rotations", "7"),
        "8 orientations": ("--rotations", "8"),
    }.items():
        output = command.path(f"prediction-{name.replace(' ', '-')}.zarr")
        command(
            "predict", test, output, "--model", model, "--device", device, "--overwrite",
            "--dtype", "float32", *options,
        )  # fmt: skip
        found = isbi_figures(cells[held_out], command.read(output))
        figures[name] = {figure: float(getattr(found, figure)) for figure in FIGURES}
    report(figures, first, command.seconds["train"] / 60)
    if path is not None:
        facts = {"machine": machine(default_workers(1)), "minutes": command.seconds["train"] / 60}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({**facts, "config": config, "first": first, "figures": figures}, indent=2)
        )


def report(figures: dict[str, Any], first: int, minutes: float) -> None:
    """Print a row per prediction."""
    sections = f"sections {first} to {first + HELD_OUT - 1}"
    table = Table(box=None, title=f"ISBI 2012, {sections}; trained {minutes:.1f} minutes")
    for name in ("prediction", *FIGURES):
        table.add_column(name)
    for row, values in figures.items():
        table.add_row(row, *(f"{values[name]:.6g}" for name in FIGURES))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
