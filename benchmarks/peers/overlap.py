"""``dask.array.map_overlap``, the usual recipe, from Zarr to Zarr."""

from __future__ import annotations

from benchmarks import methods
from benchmarks.cases import Inputs
from benchmarks.peers.contestant import Contestant, Run, Setting, timed


def run(inputs: Inputs, output: str, setting: Setting, cores: int) -> Run:
    """Predict chunk by chunk, on a thread per core."""
    with timed(methods.load(inputs.model)) as watch:
        methods.predict_chunks(inputs.source, output, inputs.model, setting.kept, cores)
    return watch


CONTESTANTS = (
    Contestant(
        name="map_overlap",
        title="dask map_overlap",
        run=run,
        choose=lambda inputs, _: Setting(inputs.case.overlap_chunk),
        code=(
            methods.load,
            methods.foreground,
            methods.predict_chunks,
            methods.predict_chunk,
        ),
    ),
)
