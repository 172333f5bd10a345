"""chunkflow's ``Inferencer``: patches of a chunk in memory, blended where outputs overlap.

It knows networks whose output is smaller than their input, but mirrors nothing.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import methods
from benchmarks.cases import Inputs
from benchmarks.peers import arrays, chunkflow_network
from benchmarks.peers.contestant import Contestant, Run, Setting, timed
from tilenet.geometry import ZYX, round_up

#: Steps from patch to patch, and how many are a batch, by case. An operation costs the same in
#: patches of 512 and 1024 and in batches of two (85.8 to 89.9 GFLOP/s on one core), so these are
#: large. Not larger: the mask that chunkflow makes first holds 27 times a patch in float64.
SETTINGS = {
    "2d-16": Setting((1, 1024, 1024)),
    "2d-64": Setting((1, 1024, 1024)),
    "3d-16": Setting((128, 128, 256)),
    "2d-quick": Setting((1, 80, 80), 2),
    "3d-quick": Setting((24, 24, 24), 2),
}


def predict(source: str, output: str, path: str, step: ZYX, batch: int) -> None:
    """Predict from Zarr to Zarr, all in memory in between."""
    # Here, because it need not be installed.
    from chunkflow.chunk import Chunk
    from chunkflow.flow.divid_conquer.inferencer import Inferencer

    raw, law = arrays.loaded(source), methods.load(path).architecture
    patch = law.output_for(step)
    # Outputs overlap by what the network returns beyond a step that keeps its poolings in phase.
    overlap = tuple(p - s for p, s in zip(patch, step, strict=True))
    high = (round_up(n, s) - n + o for n, s, o in zip(raw.shape, step, overlap, strict=True))
    pads = [(h, h + more) for h, more in zip(law.halo, high, strict=True)]
    infer = Inferencer(
        chunkflow_network.__file__,
        path,
        law.input_for(patch),
        output_patch_size=patch,
        output_patch_overlap=overlap,
        output_crop_margin=law.halo,
        num_output_channels=1,
        batch_size=batch,
        framework="universal",
    )
    values = infer(Chunk(np.pad(raw, pads, mode="reflect"))).array[0]
    arrays.save(output, values[tuple(slice(n) for n in raw.shape)])


def run(inputs: Inputs, output: str, setting: Setting, cores: int) -> Run:
    """Predict patch by patch, all cores working on each batch."""
    torch.set_num_threads(cores)
    with timed(methods.load(inputs.model)) as watch:
        predict(inputs.source, output, inputs.model, setting.kept, setting.at_once)
    return watch


CONTESTANTS = (
    Contestant(
        name="chunkflow",
        title="chunkflow",
        run=run,
        choose=lambda inputs, _: SETTINGS[inputs.case.name],
        code=(methods.load, methods.foreground, chunkflow_network.PatchInferencer, predict),
        package="chunkflow",
    ),
)
