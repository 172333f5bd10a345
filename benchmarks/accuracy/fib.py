"""FIB-25: a 3-D network trained on z < 180, evaluated on z >= 180.

``python -m benchmarks.accuracy.fib [--folder FOLDER] [-- options of train]``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy.typing as npt
import tifffile

from benchmarks.accuracy.commands import Commands, data_folder
from benchmarks.machine import machine
from pipelines.cluster import default_workers
from tilenet.labels import separate
from tilenet.metrics import adapted_rand_error, isbi_figures, variation_of_information

#: The first section that is not trained on; and the first of those trained on that the threshold is
#: chosen on.
BORDER, SEEN = 180, 120

#: Voxels of background between touching bodies, in the labels as in the weights.
GAP = 2

#: Grey values of the prediction that instances may be cut at.
THRESHOLDS = (127, 153, 178, 204, 217, 230, 242)

VOXEL_SIZE = "10,10,10"


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("accuracy-fib"))
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.argument("more", nargs=-1, type=click.UNPROCESSED)
def main(seed: int, device: str, folder: Path, path: Path | None, more: tuple[str, ...]) -> None:
    """Train, predict, choose a threshold on sections trained on, and print the figures."""
    command, data = Commands(folder), data_folder() / "fib25"
    raw, bodies = tifffile.imread(data / "raw.tif"), tifffile.imread(data / "labels.tif")
    em = command.ingest("em", raw[:BORDER], VOXEL_SIZE)
    labels = command.ingest("bodies", bodies[:BORDER], VOXEL_SIZE)
    test = command.ingest("test", raw[BORDER:], VOXEL_SIZE)
    model, weights = command.path("model.safetensors"), command.path("weights.zarr")
    command("weights", labels, weights, "--gap", str(GAP), "--overwrite")
    command(
        "train", em, labels, "--weight-map", weights, "--config", "fib25-3d", "--gap", str(GAP),
        "--output", model, "--seed", str(seed), "--device", device, "--overwrite", *more,
    )  # fmt: skip
    seen, output = command.path("prediction-seen.zarr"), command.path("prediction.zarr")
    options = ("--model", model, "--device", device, "--overwrite")
    command("predict", command.ingest("seen", raw[SEEN:BORDER], VOXEL_SIZE), seen, *options)
    command("predict", test, output, *options)
    known = bodies[SEEN:BORDER]
    errors = {
        threshold: adapted_rand_error(known, segments(command, seen, threshold)).error
        for threshold in THRESHOLDS
    }
    threshold = min(THRESHOLDS, key=lambda value: errors[value])
    truth, found = bodies[BORDER:], segments(command, output, threshold)
    inside = separate(truth, GAP, per_section=False) > 0
    rand, information = adapted_rand_error(truth, found), variation_of_information(truth, found)
    figures = {
        "pixel error": isbi_figures(inside, command.read(output) / 255, figures=["pixel"]).pixel,
        "threshold": threshold,
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


def segments(command: Commands, prediction: str, threshold: int) -> npt.NDArray[Any]:
    """Give the connected pieces above a threshold."""
    found = command.path(f"found-{threshold}.zarr")
    command("label", prediction, found, "--raw-threshold", str(threshold), "--overwrite")
    return command.read(found)


if __name__ == "__main__":
    main()
