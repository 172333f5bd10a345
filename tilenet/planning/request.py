"""What is to be predicted, and with what: the question that a plan answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tilenet.geometry import ZYX, Box
from tilenet.networks import IDENTITY, Orientation, UNetArchitecture

#: Memory of a GPU where the user says nothing: that of the paper's.
DEVICE_BYTES = 6 * 10**9

#: A block lasts about this long where the user says nothing.
BLOCK_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast one worker is, while all workers of its machine work.

    Parameters
    ----------
    compute, read, write, start : float
        Floating-point operations per second; bytes of voxels per second, decoded and encoded;
        seconds until its first evaluation begins.
    measured : str
        The device and the day that they were measured on; empty where they are assumed.
    """

    compute: float
    read: float
    write: float
    start: float
    measured: str = ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be predicted, and with what.

    Parameters
    ----------
    volume_shape : tuple of int, voxels, (z, y, x)
    region : Box
    architecture : UNetArchitecture
    input_bytes, output_bytes : int
        Bytes of a stored voxel of the input and of the output, all channels.
    chunk_shape : tuple of int, voxels of a chunk of the input, (z, y, x)
    chunk_bytes, output_channels : int
        Bytes of a decoded chunk of the input, all channels that it holds; channels that are stored,
        each in objects of its own.
    masked : bool
        Whether a mask says where to predict.
    precision, device : str
        One of :data:`tilenet.networks.VALUE_BYTES`; "cpu" or "cuda".
    workers, slots, threads : int
        Worker processes, tasks at once in each, and threads of each evaluation.
    memory, device_memory : int
        Bytes that one worker, and on a GPU an evaluation, may use.
    block, shard : tuple of int, optional
        Chosen by the user, (z, y, x).
    block_seconds : float
        How long a block is to last, about: what a preemption loses.
    orientations : tuple of Orientation
    rates : Rates or None
        Of one worker, as they were measured; None where they are to be assumed.
    """

    volume_shape: ZYX
    region: Box
    architecture: UNetArchitecture
    input_bytes: int
    output_bytes: int
    chunk_shape: ZYX = (1, 1, 1)
    chunk_bytes: int = 0
    output_channels: int = 1
    masked: bool = False
    precision: str = "float32"
    device: str = "cpu"
    workers: int = 1
    slots: int = 2
    threads: int = 1
    memory: int = 4 * 2**30
    device_memory: int = DEVICE_BYTES
    block: ZYX | None = None
    shard: ZYX | None = None
    block_seconds: float = BLOCK_SECONDS
    orientations: tuple[Orientation, ...] = (IDENTITY,)
    rates: Rates | None = None
