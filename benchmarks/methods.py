"""The other ways, and the whole in one pass. These run in the processes of a pool."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.cases import Inputs
from tilenet.geometry import ZYX, BlockGrid, Box, round_up, zyx
from tilenet.inference import Model, StreamedNetwork, load_model
from tilenet.networks import UNetArchitecture
from tilenet.volumes import open_volume

Floats = npt.NDArray[np.float32]

#: Seconds after which a process begins no further bare pass, and the passes that it makes at least.
BARE_SECONDS, BARE_PASSES = 4.0, 2

#: Pixels of a section, along y and x, that are computed in float64.
EXACT_SIDES = (256, 256)


@dataclass(frozen=True)
class Timed:
    """A prediction in memory, and the seconds that it took."""

    seconds: float
    values: Floats


@functools.lru_cache(maxsize=1)
def load(path: str) -> Model:
    """Load a network, channels-last: on a CPU the faster format for every method here."""
    model = load_model(path)
    planar = model.architecture.is_planar
    layout = torch.channels_last if planar else torch.channels_last_3d
    model.network.to(memory_format=layout)  # type: ignore[call-overload]
    return model


def foreground(model: Model, grey: Floats) -> Floats:
    """Evaluate tiles of normalised grey values, (b, z, y, x), all of one shape."""
    with torch.inference_mode():
        scores: Tensor = model.network(torch.from_numpy(grey)[:, None])
        values: Floats = torch.softmax(scores, dim=1)[:, 1].numpy()
    return values


def mirrored(model: Model, values: npt.NDArray[Any], output: ZYX) -> Floats:
    """Mirror-pad a whole volume such that outputs of this shape in all come out of it."""
    halo = model.architecture.halo
    pads = [(h, h + o - n) for h, o, n in zip(halo, output, values.shape, strict=True)]
    return model.intensity.apply(np.pad(values, pads, mode="reflect"), np.float32)


# -- bare passes ----------------------------------------------------------------------------------


def bare_passes(path: str, input_shape: ZYX, axis: int, slab: int, wanted: int) -> float:
    """Give the seconds of one evaluation on a tensor in memory, fed by the same slabs."""
    network = StreamedNetwork(load(path).network, axis)
    x, before = torch.zeros(1, *input_shape), (slice(None),) * (1 + axis)
    with torch.inference_mode():
        start, count = time.perf_counter(), 0
        while count < BARE_PASSES or (
            count < wanted and time.perf_counter() - start < BARE_SECONDS
        ):
            for _ in network.evaluate(lambda piece: x[(*before, piece)], input_shape[axis], slab):
                pass
            count += 1
        return (time.perf_counter() - start) / count


# -- the bare loop --------------------------------------------------------------------------------


def tile_loop(inputs: Inputs, threads: int) -> Timed:
    """Predict an array in memory tile after tile, all cores working on each."""
    torch.set_num_threads(threads)
    model, volume = load(inputs.model), open_volume(inputs.source)
    values = volume.read(Box.of_shape(volume.shape))
    start = time.perf_counter()
    result = predict_tiles(model, values, inputs.case.loop_tile)
    return Timed(time.perf_counter() - start, result)


def predict_tiles(model: Model, values: npt.NDArray[Any], tile: ZYX) -> Floats:
    """Predict an array tile after tile."""
    shape, output = zyx(values.shape), model.architecture.output_for(tile)
    legal = model.architecture.input_for(output)
    whole = zyx(round_up(n, t) - t + o for n, t, o in zip(shape, tile, output, strict=True))
    grey, result = mirrored(model, values, whole), np.empty(shape, np.float32)
    for box in BlockGrid(shape, tile):
        cut = Box(box.start, zyx(a + n for a, n in zip(box.start, legal, strict=True)))
        predicted = foreground(model, grey[cut.slices][None])[0]
        result[box.slices] = predicted[tuple(slice(n) for n in box.shape)]
    return result


def loop_operations(inputs: Inputs) -> int:
    """Count the floating-point operations of the bare loop."""
    case = inputs.case
    tiles = len(BlockGrid(case.shape, case.loop_tile))
    return tiles * _operations(case.architecture, case.loop_tile)


def _operations(architecture: UNetArchitecture, kept: ZYX) -> int:
    evaluated = architecture.input_for(architecture.output_for(kept))
    return architecture.evaluation(evaluated).operations


# -- dask.array.map_overlap -----------------------------------------------------------------------


def map_overlap(inputs: Inputs, output: str, threads: int) -> float:
    """Predict from Zarr to Zarr by the usual recipe, and give the seconds."""
    start = time.perf_counter()
    predict_chunks(inputs.source, output, inputs.model, inputs.case.overlap_chunk, threads)
    return time.perf_counter() - start


def predict_chunks(source: str, output: str, model: str, chunk: ZYX, threads: int) -> None:
    """Predict from Zarr to Zarr by the usual recipe."""
    # Here, because no other method needs it.
    import dask
    import dask.array

    # Dask's threads, one PyTorch thread each: measured as fast as processes or faster, and nothing
    # has to be sent. The network releases the GIL.
    with dask.config.set(scheduler="threads", num_workers=threads):
        volume = dask.array.from_zarr(source, component="0").rechunk(chunk)
        predicted = dask.array.map_overlap(
            functools.partial(predict_chunk, model),
            volume,
            depth=load(model).architecture.halo,
            boundary="reflect",
            trim=False,  # the valid convolutions have trimmed it
            chunks=volume.chunks,
            dtype=np.float32,
            meta=np.empty((0, 0, 0), np.float32),
        )
        predicted.to_zarr(output)


def predict_chunk(path: str, padded: npt.NDArray[Any]) -> Floats:
    """Predict a chunk that has its halo: pad it to a legal size, evaluate it, crop it."""
    torch.set_num_threads(1)
    model = load(path)
    architecture = model.architecture
    kept = zyx(n - 2 * h for n, h in zip(padded.shape, architecture.halo, strict=True))
    legal = architecture.input_for(architecture.output_for(kept))
    filled = np.pad(padded, [(0, m - n) for m, n in zip(legal, padded.shape, strict=True)])
    values: Floats = foreground(model, model.intensity.apply(filled, np.float32)[None])[0]
    return values[tuple(slice(n) for n in kept)]


def overlap_operations(inputs: Inputs) -> int:
    """Count the floating-point operations of the recipe with ``map_overlap``."""
    case = inputs.case
    grid = BlockGrid(case.shape, case.overlap_chunk)
    return sum(_operations(case.architecture, box.shape) for box in grid)


# -- the whole in one pass ------------------------------------------------------------------------


def checked_box(inputs: Inputs) -> Box:
    """Give the part that results are compared in: one section of a planar network, else all."""
    z, y, x = inputs.case.shape
    return Box.of_shape((1, y, x) if inputs.case.architecture.is_planar else (z, y, x))


def whole_pass(inputs: Inputs, threads: int) -> Floats:
    """Predict the checked part in one evaluation of the mirror-padded volume."""
    torch.set_num_threads(threads)
    model, box = load(inputs.model), checked_box(inputs)
    values = open_volume(inputs.source).read(box)
    grey = mirrored(model, values, model.architecture.output_for(box.shape))
    predicted: Floats = foreground(model, grey[None])[0]
    return predicted[box.slices]


@dataclass(frozen=True)
class Exact:
    """A part of the whole pass in float64."""

    box: Box
    values: npt.NDArray[np.float64]

    def error(self, values: npt.NDArray[Any]) -> float:
        """Give the largest absolute error of a prediction of the whole."""
        return float(np.abs(values[self.box.slices] - self.values).max())


def exact_part(inputs: Inputs, threads: int) -> Exact | None:
    """Predict a part in the middle of a section in float64.

    None of a network that is not planar: PyTorch unfolds convolutions in float64 into memory, and
    in 3-D that is too much.
    """
    torch.set_num_threads(threads)
    model, checked = load_model(inputs.model), checked_box(inputs)
    law = model.architecture
    if not law.is_planar:
        return None
    start = zyx(n // 2 // a * a for n, a in zip(checked.shape, law.alignment, strict=True))
    size = zip((1, *EXACT_SIDES), start, checked.shape, strict=True)
    box = Box(start, zyx(a + min(s, n - a) for s, a, n in size))
    output = law.output_for(box.shape)
    values = open_volume(inputs.source).read(checked)
    whole = mirrored(model, values, law.output_for(checked.shape)).astype(np.float64)
    cut = Box(start, zyx(a + n for a, n in zip(start, law.input_for(output), strict=True)))
    with torch.inference_mode():
        scores = model.network.double()(torch.from_numpy(whole[cut.slices])[None, None])
        found = torch.softmax(scores, dim=1)[0, 1].numpy()
    return Exact(box, found[tuple(slice(n) for n in box.shape)])
