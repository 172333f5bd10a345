"""How fast this machine is, measured in seconds: what runs in every worker at once.

The network of a plan is fed as the plan feeds it, in the steady state: noise, slab after slab, as
soon as all its queues are filled. Cores share the bandwidth of the memory and the clock, so all
workers have to measure at the same time.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.inference.allocator import keep_freed_memory
from tilenet.inference.predictor import PRECISIONS, check_device
from tilenet.inference.streaming import Stream, StreamedNetwork
from tilenet.inference.unet import UNet
from tilenet.networks import STORED_TYPES, Execution, UNetArchitecture
from tilenet.planning import Plan, assumed_rates
from tilenet.volumes import NewVolume, create_volume, open_volume, reopen_for_writing

#: Seconds that a rate is measured for.
MEASURED_SECONDS = 2.0

#: Seconds that the queues may take to fill, at the rate that is assumed: a wider slab is measured
#: on a part of its width.
FILL_SECONDS = 4.0

#: Seconds that this may take with the narrowest slab; a network that needs more is not measured.
MOST_SECONDS = 30.0

#: Bytes of a shard that is written and read.
SHARD_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class ComputeTrial:
    architecture: UNetArchitecture  # the network, with random weights
    execution: Execution  # device, precision, threads, stream axis and slab
    # Its cross-section; along the stream axis the shortest input that is legal, (z, y, x).
    input_shape: ZYX


@dataclass(frozen=True, slots=True)
class StoreTrial:
    # shard, chunk: voxels, (z, y, x).
    shard: ZYX
    chunk: ZYX
    dtype: str  # of the stored values
    codec: str  # compressor


def compute_trial(plan: Plan, device: str) -> ComputeTrial | None:
    """Choose what to evaluate.

    Parameters
    ----------
    plan : Plan
    device : "cpu", "cuda" or "cuda:N"

    Returns
    -------
    ComputeTrial or None
        None where even the narrowest slab would take minutes.
    """
    request = plan.request
    execution = Execution(
        device, request.precision, request.threads, axis=plan.axis, slab=plan.slab
    )
    architecture, rate = request.architecture, assumed_rates(request).compute
    kept, seconds = plan.tile, math.inf
    while True:
        kept = zyx(1 if n == plan.axis else size for n, size in enumerate(kept))
        if architecture.is_planar:
            kept = zyx((1, *kept[1:]))
        shape = architecture.input_for(architecture.output_for(kept))
        seconds = _operations(architecture, shape, plan.axis, 2 * plan.slab) / rate
        widest = max(range(3), key=lambda n: kept[n])
        if seconds <= FILL_SECONDS or kept[widest] == 1:
            break
        kept = zyx(-(-size // 2) if n == widest else size for n, size in enumerate(kept))
    return ComputeTrial(architecture, execution, shape) if seconds <= MOST_SECONDS else None


def _operations(architecture: UNetArchitecture, shape: ZYX, axis: int, more: int) -> int:
    # Of an evaluation that is longer by so many planes.
    longer = zyx(size + more if n == axis else size for n, size in enumerate(shape))
    return architecture.evaluation(longer).operations


def prepare(trial: ComputeTrial) -> None:
    """Do what a new worker does before its first evaluation.

    Parameters
    ----------
    trial : ComputeTrial
    """
    _network(trial)


def _network(trial: ComputeTrial) -> StreamedNetwork:
    device, execution = check_device(trial.execution.device), trial.execution
    keep_freed_memory()
    torch.set_num_threads(execution.threads)
    network = UNet(trial.architecture).eval()
    network.requires_grad_(False)
    return StreamedNetwork(network.to(device, PRECISIONS[execution.precision]), execution.axis)


def compute_rate(trial: ComputeTrial, seconds: float = MEASURED_SECONDS) -> float:
    """Measure the rate of a stream in the steady state.

    Parameters
    ----------
    trial : ComputeTrial
    seconds : float
        How long to measure; one slab at least is.

    Returns
    -------
    float
        Floating-point operations per second.
    """
    device = trial.execution.device
    with torch.inference_mode():
        stream = steady_stream(trial)
        while next(stream) is None:
            pass
        _timed(stream, 1, device)  # the first that gives all its planes: kernels are chosen
        count = max(1, math.ceil(seconds / _timed(stream, 1, device)))
        taken = _timed(stream, count, device)
    return count * slab_operations(trial) / taken


def slab_operations(trial: ComputeTrial) -> int:
    """Count the operations of a slab in the steady state."""
    shape, axis = trial.input_shape, trial.execution.axis
    slab = trial.execution.slab or shape[axis]
    longer = _operations(trial.architecture, shape, axis, slab)
    return longer - _operations(trial.architecture, shape, axis, 0)


def steady_stream(trial: ComputeTrial) -> Iterator[Tensor | None]:
    """Feed a network with noise, slab after slab, without an end."""
    architecture, execution = trial.architecture, trial.execution
    slab = execution.slab or trial.input_shape[execution.axis]
    stream = Stream(_network(trial))
    # What slabs() begins with, so that no pooling is left with a remainder.
    rest = architecture.laws[execution.axis].gain % slab
    if rest:
        yield stream.feed(_noise(trial, rest))
    planes = _noise(trial, slab)
    while True:
        yield stream.feed(planes)


def _noise(trial: ComputeTrial, planes: int) -> Tensor:
    # Not zeros: a GPU that multiplies them takes less power, and so is faster.
    execution, size = trial.execution, [trial.architecture.in_channels, *trial.input_shape]
    size[1 + execution.axis] = planes
    values = torch.rand(size, generator=torch.Generator().manual_seed(0))
    return values.to(execution.device, PRECISIONS[execution.precision])


def _timed(stream: Iterator[Tensor | None], count: int, device: str) -> float:
    # A GPU is given work ahead of time; only waiting for it on both sides times the work itself.
    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        next(stream)
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def store_trial(plan: Plan, codec: str) -> StoreTrial:
    """Choose what to write and read.

    Parameters
    ----------
    plan : Plan
    codec : str

    Returns
    -------
    StoreTrial
        A shard of the plan, or a part of it.
    """
    request = plan.request
    itemsize = request.output_bytes // request.output_channels
    shard = plan.shard
    while math.prod(shard) * itemsize > SHARD_BYTES:
        counts = [n // c for n, c in zip(shard, plan.chunk, strict=True)]
        longest = counts.index(max(counts))
        if counts[longest] == 1:
            break
        counts[longest] //= 2
        shard = zyx(n * c for n, c in zip(counts, plan.chunk, strict=True))
    names = {stored.size: stored.name for stored in STORED_TYPES.values()}
    return StoreTrial(shard, plan.chunk, names[itemsize], codec)


def store_rates(trial: StoreTrial, seconds: float = MEASURED_SECONDS / 4) -> tuple[float, float]:
    """Measure how fast shards are read and written, in the system's temporary folder.

    What was just written is read, so reading is decoding; the disk takes part in writing only.

    Parameters
    ----------
    trial : StoreTrial
    seconds : float
        How long to measure each; one shard at least is.

    Returns
    -------
    tuple of float
        Bytes of voxels per second, read and written.
    """
    # As coarse as the grey values of EM: they lose about a sixth of their size.
    noise = np.random.default_rng(0).normal(128, 28, trial.chunk).clip(0, 255)
    values = np.empty(trial.shard, trial.dtype)
    for chunk in BlockGrid(trial.shard, trial.chunk):  # one noise for all: numbers take memory
        values[chunk.slices] = noise[Box.of_shape(chunk.shape).slices]
    with tempfile.TemporaryDirectory(prefix="tilenet-calibration-") as folder:
        path = str(Path(folder) / "volume.zarr")
        new = NewVolume(
            shape=trial.shard,
            dtype=trial.dtype,
            chunk=trial.chunk,
            shard=trial.shard,
            codec=trial.codec,
            attributes={},
        )
        create_volume(path, new)
        box, output = Box.of_shape(trial.shard), reopen_for_writing(path)
        written = _rate(lambda: output.write(box, values), values.nbytes, seconds)
        volume = open_volume(path)
        return _rate(lambda: volume.read(box), values.nbytes, seconds), written


def _rate(call: Callable[[], object], size: int, seconds: float) -> float:
    call()  # opens and compiles what only the first one does
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < seconds:
        call()
        count += 1
    return count * size / (time.perf_counter() - start)
