"""One patch per voxel, after Ciresan et al. 2012: a classifier that slides over the volume.

The same network is given the smallest patch that it takes around a voxel, and one voxel of what it
returns is kept. So slow that only the middle of the volume is predicted.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import methods
from benchmarks.cases import Inputs
from benchmarks.peers import arrays
from benchmarks.peers.contestant import Contestant, Run, Setting, middle, timed
from tilenet.geometry import Box, zyx

#: Voxels that are predicted, and patches that are a batch, by case.
SETTINGS = {
    "2d-16": Setting((1, 16, 16), 8),
    "2d-64": Setting((1, 8, 8), 4),
    "3d-16": Setting((2, 2, 2)),
    "2d-quick": Setting((1, 4, 4), 8),
    "3d-quick": Setting((2, 2, 2)),
}


def predict(source: str, output: str, path: str, part: Box, batch: int) -> None:
    """Predict a part of a volume from Zarr to Zarr."""
    model, raw = methods.load(path), arrays.loaded(source)
    law = model.architecture
    patch, centre = law.input_for(law.smallest_output), zyx(n // 2 for n in law.smallest_output)
    pads = [(h + c, n) for h, c, n in zip(law.halo, centre, patch, strict=True)]
    grey = model.intensity.apply(np.pad(raw, pads, mode="reflect"), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(grey, patch)
    patches = windows[part.slices].reshape(-1, *patch)
    values = [
        methods.foreground(model, patches[start : start + batch])[:, *centre]
        for start in range(0, len(patches), batch)
    ]
    arrays.save(output, np.concatenate(values).reshape(part.shape))


def run(inputs: Inputs, output: str, setting: Setting, cores: int) -> Run:
    """Predict the middle voxel by voxel, all cores working on each batch."""
    torch.set_num_threads(cores)
    part = middle(inputs.case.shape, setting.kept)
    with timed(methods.load(inputs.model)) as watch:
        predict(inputs.source, output, inputs.model, part, setting.at_once)
    return watch


CONTESTANTS = (
    Contestant(
        name="per-voxel",
        title="patch per voxel",
        run=run,
        choose=lambda inputs, _: SETTINGS[inputs.case.name],
        code=(methods.load, methods.foreground, predict),
    ),
)
