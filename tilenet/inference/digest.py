"""What a processor computes, tried: a digest of the bits of a few small networks of real widths."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tilenet.geometry import ZYX
from tilenet.inference.cuda_determinism import set_arithmetic
from tilenet.inference.streaming import StreamedNetwork
from tilenet.inference.unet import UNet
from tilenet.networks import UNetArchitecture

#: Networks, shapes of their inputs, stream axes and slabs. Kernels and the order of their sums are
#: chosen by widths and shapes: the paper's widths in 2-D, narrower ones, and 3-D.
CASES: tuple[tuple[UNetArchitecture, ZYX, int, int], ...] = (
    (UNetArchitecture.planar(64, 1), (1, 36, 60), 1, 16),
    (UNetArchitecture.planar(16, 1), (1, 36, 124), 2, 40),
    (UNetArchitecture.volumetric(16, 1), (20, 20, 28), 0, 16),
)


@functools.cache
def digest(device: str, dtype: torch.dtype, threads: int) -> str:
    """Run the networks, as a prediction runs its own: alike where all bits are."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    if device != "cpu":
        set_arithmetic()
    try:
        return _digest(torch.device(device), dtype)
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def _digest(device: torch.device, dtype: torch.dtype) -> str:
    found = hashlib.sha256()
    for architecture, shape, axis, slab in CASES:
        with torch.random.fork_rng(devices=()):  # its first weights are drawn, for nothing
            network = UNet(architecture)
        for parameter in network.parameters():
            parameter.copy_(_values(parameter.shape))
        streamed = StreamedNetwork(network.to(device=device, dtype=dtype), axis)
        grey = _values((1, *shape)).to(device=device, dtype=dtype)
        for scores in _planes(streamed, grey, axis, slab):
            wide = scores.to(torch.float64 if dtype == torch.float64 else torch.float32)
            for values in (wide, torch.softmax(wide, dim=0), torch.sigmoid(wide)):
                found.update(values.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _planes(streamed: StreamedNetwork, grey: Tensor, axis: int, slab: int) -> Iterator[Tensor]:
    slices = [slice(None)] * 4

    def load(piece: slice) -> Tensor:
        slices[1 + axis] = piece
        return grey[tuple(slices)]

    return streamed.evaluate(load, grey.shape[1 + axis], slab)


def _values(shape: tuple[int, ...]) -> Tensor:
    # The same on every machine: whole numbers that are mixed, and a power of two that divides them.
    size = math.prod(shape)
    mixed = torch.arange(1, size + 1, dtype=torch.int64) * 2654435761 % 2**32 >> 8
    scale = 2.0 ** -(23 + math.ceil(math.log2(max(1, size // shape[0])) / 2))
    return ((mixed - 2**23).to(torch.float32) * scale).reshape(shape)
