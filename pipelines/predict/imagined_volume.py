"""Predictions on paper: a volume's shape instead of a volume, GPUs that are elsewhere."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.cluster import ClusterOptions
from pipelines.outputs import storage_shapes
from pipelines.predict.checks import check_choices
from pipelines.predict.job import Choices
from tilenet.geometry import ZYX
from tilenet.inference import ModelHeader, read_header
from tilenet.networks import UNetArchitecture

#: Networks that are planned for where no model is given.
NETWORKS = {
    "planar": UNetArchitecture.planar(),
    "volumetric": UNetArchitecture.volumetric(),
}

#: Host memory that a GPU's worker is assumed to have, where the user says nothing.
HOST_BYTES = 32 * 2**30


@dataclass(frozen=True)
class PaperVolume:
    """An input that does not exist."""

    shape: ZYX  # voxels, (z, y, x)
    dtype: np.dtype[Any]  # data type of the values
    channels: int | None  # number of channels; None without such an axis
    chunk_shape: ZYX  # voxels of a chunk, (z, y, x)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk; channels are chunked singly."""
        return math.prod(self.chunk_shape) * self.dtype.itemsize


@dataclass(frozen=True)
class PaperJob:
    """A prediction of a volume that does not exist."""

    volume: PaperVolume  # the input
    header: ModelHeader  # of the model, or of one with the same network
    choices: Choices  # what the user chose
    mask: None = None  # there is none


def paper_job(
    shape: ZYX, dtype: str, choices: Choices, *, model: str | None, network: str
) -> PaperJob:
    """Describe the prediction of a volume that does not exist.

    Parameters
    ----------
    shape : tuple of int
        Voxels, (z, y, x).
    dtype : str
    choices : Choices
    model : str or None
    network : str
        One of :data:`NETWORKS`, instead of a model.

    Returns
    -------
    PaperJob
        Its volume is stored as ``tilenet ingest`` would store it.
    """
    header = ModelHeader(NETWORKS[network]) if model is None else read_header(model)
    check_choices(model or f"The {network} network", header, choices)
    architecture = header.architecture
    chunk, _ = storage_shapes(shape, None, flat=architecture.is_planar)
    channels = None if architecture.in_channels == 1 else architecture.in_channels
    return PaperJob(PaperVolume(shape, np.dtype(dtype), channels, chunk), header, choices)


def describe_network(architecture: UNetArchitecture) -> str:
    kind = "2-D" if architecture.is_planar else "3-D"
    return f"{kind}, depth {architecture.depth}, {architecture.channels[0]} channels"


def cluster_of_gpus(cluster: ClusterOptions, count: int, memory: int | None) -> ClusterOptions:
    """Describe workers with a GPU each, wherever they are.

    Parameters
    ----------
    cluster : ClusterOptions
    count : int
    memory : int or None
        Host memory of all workers together, bytes.

    Returns
    -------
    ClusterOptions
        Not to be opened.
    """
    each = HOST_BYTES if memory is None else memory // count
    return dataclasses.replace(cluster, workers=count, memory=each, cores=None)
