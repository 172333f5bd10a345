"""A prediction as a lazy Dask array."""

from __future__ import annotations

import functools
import uuid
from typing import TYPE_CHECKING

import numpy as np

from pipelines.cluster import ClusterOptions, default_workers
from pipelines.options import region_box
from pipelines.predict.checks import check_inputs, check_job
from pipelines.predict.job import Choices, predict_task
from pipelines.predict.planning import output_dtype, plan_job
from tilenet.errors import InvalidData
from tilenet.inference import compute_block
from tilenet.volumes import OutputReference, VolumeReference

if TYPE_CHECKING:
    import dask.array


def as_array(
    volume: str,
    model: str,
    *,
    memory: int = 4 * 2**30,
    choices: Choices | None = None,
    threads: int = 1,
) -> dask.array.Array:
    """Predict lazily: a Dask array with one task per block.

    Slicing it computes only the blocks that the slice touches. The values are those that
    ``tilenet predict`` stores under the same numeric plan.

    Parameters
    ----------
    volume, model : str
        Path or URL of the input; model file.
    memory : int
        Bytes that one task may use.
    choices : Choices, optional
        Block, data type, precision, device, grey values (not "volume"), orientations to average.
    threads : int
        CPU threads of an evaluation.

    Returns
    -------
    dask.array.Array, shape (z, y, x) or (channels, z, y, x)
        Foreground probability of two classes, or all channels.
    """
    import dask.array  # here, for it takes a second that no command needs

    source = VolumeReference(volume)
    job = check_job(source, model, mask=None, choices=choices or Choices())
    cluster = ClusterOptions(
        workers=default_workers(threads), slots=1, threads=threads, memory=memory
    )
    plan = plan_job(job, region_box(None, job.volume.shape), cluster)
    check_inputs(job, plan)
    intensity = job.choices.intensity.known(job.header, None)
    if intensity is None:
        problem = "needs a pass over the volume"
        raise InvalidData("Intensity rule 'volume'", problem, "Give MEAN,STD or window:LOW,HIGH.")
    output, run = OutputReference("", None), uuid.uuid4().hex
    task = predict_task(job, plan, output, intensity=intensity, facts={}, run=run)
    dtype = output_dtype(job, None)
    shapes: list[tuple[int, ...]] = [
        (size,) * (n // size) + ((n % size,) if n % size else ())
        for n, size in zip(job.volume.shape, plan.block, strict=True)
    ]
    shapes[:0] = [(channels,) for channels in job.header.leading_shape]
    return dask.array.map_blocks(
        functools.partial(compute_block, task, dtype),
        chunks=tuple(shapes),
        dtype=dtype,
        meta=np.empty((0,) * len(shapes), dtype),
    )
