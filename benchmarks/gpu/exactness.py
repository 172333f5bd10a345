"""How exact a stream on a device is: against one pass, in float64, on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.cases import Precision
from tilenet.geometry import ZYX, zyx
from tilenet.inference import StreamedNetwork, UNet, set_arithmetic
from tilenet.networks import UNetArchitecture

Record = dict[str, Any]

#: Networks of every kind whose sums stay below 2^24, where float32 is exact too.
NETWORKS = {
    "2-D": UNetArchitecture.planar(4, 2),
    "3-D": UNetArchitecture.volumetric(4, 2),
    "anisotropic": UNetArchitecture(
        channels=(4, 4, 8),
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        pools=((1, 2, 2), (2, 2, 2)),
    ),
}
OUTPUT: ZYX = (5, 12, 17)

#: Most that a probability may differ, by precision. More is not rounding but a broken kernel.
TOLERANCES = {"float32": 1e-5, "tf32": 0.02, "float16": 0.02, "bfloat16": 0.1}


def whole_numbers(device: torch.device, dtype: torch.dtype) -> Record:
    """Compare with a network of whole-number weights: every sum is exact, so every bit is equal."""
    set_arithmetic()
    largest = 0.0
    for architecture in NETWORKS.values():
        network = _sparse(architecture).double()
        for axis in range(3):
            x = _input(architecture, axis)
            with torch.inference_mode():
                expected = network(x[None])[0]
                slab = 2 * architecture.alignment[axis]
                found = _streamed(network, x, axis, slab, device, dtype)
            largest = max(largest, float((found - expected).abs().max()))
            assert float(expected.abs().max()) < 2**24, "beyond that float32 is not exact"
            assert float(expected.std()) > 0, "the truth must not be constant"
    return {"dtype": str(dtype).removeprefix("torch."), "difference": largest}


def rounding(device: torch.device, precision: Precision) -> Record:
    """Give how much probabilities of networks of random weights differ from the truth."""
    set_arithmetic(tf32=precision.tf32)
    largest = 0.0
    for architecture in NETWORKS.values():
        torch.manual_seed(0)
        network = UNet(architecture).eval().double()
        axis = 1 if architecture.is_planar else 0
        x = (_input(architecture, axis) - 1.5) / 1.1
        with torch.inference_mode():
            expected = torch.softmax(network(x[None])[0], 0)
            slab = 2 * architecture.alignment[axis]
            found = _streamed(network, x, axis, slab, device, precision.dtype)
        difference = (torch.softmax(found, 0) - expected).abs().max()
        largest = max(largest, float(difference))
    limit = TOLERANCES[precision.name]
    return {"precision": precision.name, "difference": largest, "tolerance": limit}


def _streamed(
    network: UNet, x: Tensor, axis: int, slab: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    _poison(device)
    placed, given = copy.deepcopy(network).to(device, dtype), x.to(device, dtype)
    before = (slice(None),) * (1 + axis)
    planes = StreamedNetwork(placed, axis).evaluate(
        lambda piece: given[(*before, piece)], given.shape[1 + axis], slab
    )
    return torch.cat(list(planes), dim=1 + axis).double().cpu()


def _poison(device: torch.device) -> None:
    # Buffers that are not filled shall not happen to hold the results of the last evaluation.
    for power in range(9, 25):
        torch.full((2**power,), torch.nan, device=device)


def _input(architecture: UNetArchitecture, axis: int) -> Tensor:
    shape = architecture.input_for(architecture.output_for(OUTPUT))
    if architecture.is_planar and axis > 0:
        shape = zyx((1, *shape[1:]))  # fed one section at a time
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 4, (1, *shape), generator=generator).double()


def _sparse(architecture: UNetArchitecture) -> UNet:
    # About six weights of every neuron are -1 or 1, the others 0.
    network, generator = UNet(architecture).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            values = torch.randint(-1, 2, parameter.shape, generator=generator).float()
            if name.endswith("weight"):
                share = min(1.0, 6 / parameter[0].numel())
                values *= torch.rand(parameter.shape, generator=generator) < share
            parameter.copy_(values)
    return network
