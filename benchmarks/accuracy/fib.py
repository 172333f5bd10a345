"""FIB-25: a 3-D network trained on z < 180, evaluated on z >= 180.

``python -m benchmarks.accuracy.fib [--folder FOLDER] [-- options of train]``
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import tifffile

from benchmarks.accuracy.commands import Commands, data_folder
from benchmarks.machine import machine
from pipelines.options import default_workers
from tilenet.metrics import (
    adapted_rand_error,
    pixel_error,
    variation_of_information,
)

#: The first section that is not trained on.
BORDER = 180

VOXEL_SIZE = "10,10,10"


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("accuracy-fib"))
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.argument("more", nargs=-1, type=click.UNPROCESSED)
def main(seed: int, device: str, folder: Path, path: Path | None, more: tuple[str, ...]) -> None:
    """Train, predict, label at one half, and print the figures."""
    command, data = Commands(folder), data_folder() / "fib25"
    raw, bodies = tifffile.imread(data / "raw.tif"), tifffile.imread(data / "labels.tif")
    em = command.ingest("em", raw[:BORDER], VOXEL_SIZE)
    labels = command.ingest("bodies", bodies[:BORDER], VOXEL_SIZE)
    test = command.ingest("test", raw[BORDER:], VOXEL_SIZE)
    model, output = command.path("model.safetensors"), command.path("prediction.zarr")
    command(
        "train", em, labels, "--config", "fib25-3d", "--output", model, "--seed", str(seed),
        "--device", device, "--overwrite", *more,
    )  # fmt: skip
    command("predict", test, output, "--model", model, "--device", device, "--overwrite")
    found = command.path("found.zarr")
    command("label", output, found, "--threshold", "127.5", "--overwrite")
    truth, segments = bodies[BORDER:], command.read(found)
    rand, information = (
        adapted_rand_error(truth, segments),
        variation_of_information(truth, segments),
    )
    figures = {
        "pixel error": pixel_error(truth > 0, command.read(output) / 255).error,
        "adapted Rand error": rand.error,
        "VI split": information.split,
        "VI merge": information.merge,
        "minutes": command.seconds["train"] / 60,
    }
    for name, value in figures.items():
        print(f"{name:20} {value:.4f}")
    if path is not None:
        facts = {"machine": machine(default_workers(1)), "figures": figures}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
