"""Makes such files with the tilenet that is installed: ``python -m tests.old.make FOLDER``.

It was run once, with tilenet 0.1.0 (README.md). Do not run it over the files that are stored here:
they are worth something because an older version made them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.support.oracles import random_network
from tests.support.runs import environment, tilenet_command
from tilenet.inference import ModelHeader, OutputChannel, save_model
from tilenet.networks import UNetArchitecture
from tilenet.synthetic import synthetic_em
from tilenet.volumes import Intensity

#: Voxels of the volume.
SHAPE = (4, 40, 44)

LAYOUT = ("--chunk", "2,24,24", "--shard", "2,24,24")

#: A block is a shard: a region of the first two sections is half of them.
BLOCKS = ("--block", "2,24,24", "--shard", "2,24,24")

#: What `tilenet train` was told, for a model and for a training that was stopped.
RECIPE = """\
[network]
base_channels = 2
depth = 1
[optimization]
steps = 400
patch = [1, 20, 20]
checkpoint_every = 2
"""

TRAINING = ("volume.zarr", "cells.zarr", "--config", "recipe.toml", "--threads", "1")

#: Every prediction: its model, and what else it was told. Those with a region are begun.
PREDICTIONS = {
    "whole.zarr": ("planar.safetensors",),
    "begun.zarr": ("planar.safetensors", "--region", "z=0:2"),
    "sigmoid_begun.zarr": ("sigmoid.safetensors", "--region", "z=0:2"),
    "averaged_begun.zarr": (
        "planar.safetensors", "--rotations", "8", "--dtype", "float16", "--precision", "bfloat16",
        "--intensity", "volume", "--mask", "mask.zarr", "--region", "z=0:2",
    ),
}  # fmt: skip


def predict(output: str) -> tuple[str, ...]:
    """The command that made a prediction."""
    model, *options = PREDICTIONS[output]
    return ("predict", "volume.zarr", output, "--model", model, *BLOCKS, *options)


def main(folder: Path) -> None:
    """Make everything in a folder that is not there yet."""
    folder.mkdir(parents=True)
    em = synthetic_em(SHAPE, seed=3)
    np.save(folder / "em.npy", em.raw)
    np.save(folder / "cells.npy", em.cells)
    mask = np.ones((2, 10, 11), np.uint8)
    mask[:, :6, :6] = 0
    np.save(folder / "mask.npy", mask)
    (folder / "recipe.toml").write_text(RECIPE)
    size = ("--voxel-size", "50,4,4")
    run(folder, "ingest", "em.npy", "volume.zarr", *size, *LAYOUT)
    run(folder, "ingest", "cells.npy", "cells.zarr", *size, *LAYOUT)
    run(folder, "ingest", "mask.npy", "mask.zarr", "--voxel-size", "100,16,16")
    run(folder, "label", "cells.zarr", "instances.zarr", "--by-value", *LAYOUT)
    run(folder, "weights", "instances.zarr", "weights.zarr", *LAYOUT)
    run(folder, "train", *TRAINING, "--output", "planar.safetensors", "--steps", "60")
    stop_training(folder, "stopped.safetensors")
    architecture = UNetArchitecture(
        channels=(2, 3), kernels=((3, 3, 3), (3, 3, 3)), pools=((1, 2, 2),), dropout=0.0,
        out_channels=3,
    )  # fmt: skip
    names = tuple(OutputChannel(name, activation="sigmoid") for name in ("z", "y", "x"))
    header = ModelHeader(architecture, Intensity(127.0, 60.0), names, (50.0, 4.0, 4.0))
    save_model(folder / "sigmoid.safetensors", random_network(architecture, seed=1), header)
    for output in PREDICTIONS:
        run(folder, *predict(output))
    run(folder, "plan", "volume.zarr", "--model", "planar.safetensors", "--calibrate")
    for left in [folder / "cells.npy", folder / "mask.npy", *folder.glob("*.report.*")]:
        left.unlink()


def run(folder: Path, *arguments: str) -> None:
    """Run a command in the folder; measured rates are kept there."""
    env = {**environment(), "TILENET_CACHE": str(folder)}
    subprocess.run(tilenet_command(*arguments), cwd=folder, env=env, check=True)


def stop_training(folder: Path, output: str) -> None:
    """Begin a training, and stop it early."""
    command = tilenet_command("train", *TRAINING, "--output", output)
    process = subprocess.Popen(command, cwd=folder, env=environment())
    while not (folder / f"{output}.checkpoint").exists():
        assert process.poll() is None, "it has to leave a checkpoint"
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM


if __name__ == "__main__":
    main(Path(sys.argv[1]))
