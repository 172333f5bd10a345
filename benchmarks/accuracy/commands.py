"""Running tilenet's commands, timed, in a folder of their own."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.cli import run
from tilenet.geometry import Box
from tilenet.volumes import open_volume


def data_folder() -> Path:
    """Find the real images."""
    folder = os.environ.get("TILENET_DATA")
    if not folder:
        sys.exit("Set TILENET_DATA to the folder that holds the real images (see the README).")
    return Path(folder)


class Commands:
    """Commands in a folder, which is made if need be, and the seconds that they took."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def path(self, name: str) -> str:
        """Name a file of the folder."""
        return str(self.folder / name)

    def __call__(self, *arguments: str | Path) -> float:
        """Run a command, and give the seconds; stop where it fails."""
        words = [str(argument) for argument in arguments]
        print("tilenet " + " ".join(words), file=sys.stderr, flush=True)
        start = time.perf_counter()
        code = run(words)
        if code:
            sys.exit(code)
        seconds = time.perf_counter() - start
        self.seconds[words[0]] = self.seconds.get(words[0], 0.0) + seconds
        return seconds

    def ingest(self, name: str, values: npt.NDArray[Any], voxel_size: str) -> str:
        """Store an array as a volume."""
        array, volume = self.folder / f"{name}.npy", self.path(f"{name}.zarr")
        np.save(array, values)
        self("ingest", array, volume, "--voxel-size", voxel_size, "--axes", "zyx", "--overwrite")
        return volume

    def read(self, path: str) -> npt.NDArray[Any]:
        """Read a whole volume."""
        volume = open_volume(path)
        return volume.read(Box.of_shape(volume.shape))
