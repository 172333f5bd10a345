"""MONAI's ``sliding_window_inference``: windows that overlap, blended by Gaussian weights.

Its network returns as much as it is given, so each window is mirror-padded by the halo.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from benchmarks import methods
from benchmarks.cases import Inputs
from benchmarks.peers import arrays, same_size
from benchmarks.peers.contestant import Contestant, Run, Setting, timed
from tilenet.geometry import ZYX

#: Windows and how many are a batch, by overlap and case. An operation costs the same in windows and
#: batches of many sizes (388 to 1380 wide, one or four: 91.5 to 92.6 GFLOP/s on one core), so these
#: are the windows of fewest operations: two along each axis, overlapping by hardly more than that.
SETTINGS = {
    0.25: {
        "2d-16": Setting((1, 2356, 2356)),
        "2d-64": Setting((1, 1172, 1172)),
        "3d-16": Setting((148, 148, 148)),
        "2d-quick": Setting((1, 96, 96), 2),
        "3d-quick": Setting((48, 48, 48)),
    },
    0.5: {
        "2d-16": Setting((1, 2740, 2740)),
        "2d-64": Setting((1, 1380, 1380)),
        "3d-16": Setting((172, 172, 172)),
        "2d-quick": Setting((1, 96, 96), 2),
        "3d-quick": Setting((48, 48, 48)),
    },
}


def predict(source: str, output: str, path: str, window: ZYX, batch: int, overlap: float) -> None:
    """Predict from Zarr to Zarr, all in memory in between."""
    # Here, because it need not be installed.
    from monai.inferers import sliding_window_inference

    model = methods.load(path)
    grey = model.intensity.apply(arrays.loaded(source), np.float32)
    volume, network = torch.from_numpy(grey)[None, None], same_size.Mirrored(model)
    with torch.inference_mode():
        values = sliding_window_inference(
            volume, window, batch, network, overlap=overlap, mode="gaussian"
        )
    arrays.save(output, values[0, 0].numpy())


def run(inputs: Inputs, output: str, setting: Setting, cores: int, *, overlap: float) -> Run:
    """Predict window by window, all cores working on each batch."""
    torch.set_num_threads(cores)
    cut = setting.kept, setting.at_once
    with timed(methods.load(inputs.model)) as watch:
        predict(inputs.source, output, inputs.model, *cut, overlap)
    return watch


def _contestant(name: str, overlap: float) -> Contestant:
    return Contestant(
        name=name,
        title=f"MONAI, overlap {overlap}",
        run=functools.partial(run, overlap=overlap),
        choose=lambda inputs, _: SETTINGS[overlap][inputs.case.name],
        code=(methods.load, same_size.pad, same_size.Mirrored, predict),
        package="monai",
    )


CONTESTANTS = (_contestant("monai-25", 0.25), _contestant("monai-50", 0.5))
