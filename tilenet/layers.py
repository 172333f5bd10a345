"""Layers of a network, and what evaluating them costs. Pure: standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tilenet.geometry import ZYX, zyx


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the network, in the order of evaluation.

    Parameters
    ----------
    kind : {"conv", "pool", "up", "score"}
        ``conv`` is a valid convolution with ReLU, ``pool`` a max-pooling, ``up`` an
        up-convolution followed by the concatenation with the cropped skip, ``score`` the final
        1x1x1 convolution.
    level : int
        0 at full resolution. For ``pool`` the level it leaves, for ``up`` the one it reaches.
    name : str
        Name of its parameters in the model file; empty for a pooling.
    kernel : tuple of int
        Kernel, or window and stride of ``pool`` and ``up``, (z, y, x).
    inputs, outputs : int
        Channels.
    """

    kind: Literal["conv", "pool", "up", "score"]
    level: int
    name: str
    kernel: ZYX
    inputs: int
    outputs: int

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        if self.kind == "pool":
            return 0
        return self.outputs * (self.inputs * math.prod(self.kernel) + 1)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluation of the network on one tile costs.

    Parameters
    ----------
    output_shape : tuple of int
        Shape of the output, (z, y, x).
    operations : int
        Floating-point operations, a multiplication and an addition counted as two.
    peak_elements : int
        Largest number of values that are alive at once, input and output included.
    """

    output_shape: ZYX
    operations: int
    peak_elements: int


#: PyTorch convolves volumes of no more than so many channels x sections x rows on the CPU by
#: unfolding every kernel position into memory. Seen in its dispatch, and in the memory used.
UNFOLDED = 20480


def evaluate(layers: Iterable[Layer], input_shape: ZYX) -> Evaluation:
    """Count what one evaluation costs.

    Parameters
    ----------
    layers : iterable of Layer
        The layers in the order of evaluation.
    input_shape : tuple of int
        A legal input shape, (z, y, x).

    Returns
    -------
    Evaluation
        Output shape, operations and the peak number of live values.
    """
    shape, held, peak, operations = input_shape, 0, 0, 0
    skips: list[int] = []
    for layer in layers:
        before = layer.inputs * math.prod(shape)
        thin = shape[0] > 1 and layer.inputs * shape[0] * shape[1] <= UNFOLDED
        shape = _shape_after(layer, shape)
        values = layer.outputs * math.prod(shape)
        operations += round(_operations(layer, before, values))
        # An up-convolution's result is copied into the concatenation before it is freed.
        work = before + values if layer.kind != "up" else max(before + values, 3 * values)
        if thin and layer.kind == "conv":
            work += layer.inputs * math.prod(layer.kernel) * math.prod(shape)
        peak = max(peak, held + work)
        if layer.kind == "pool":
            skips.append(before)
            held += before
        elif layer.kind == "up":
            held -= skips.pop()
    return Evaluation(shape, operations, peak)


def operations_per_voxel(layers: Iterable[Layer]) -> float:
    """Count the operations per output voxel of one infinite tile: nothing is computed twice.

    Parameters
    ----------
    layers : iterable of Layer
        The layers in the order of evaluation.

    Returns
    -------
    float
        Floating-point operations.
    """
    total, share = 0.0, 1.0  # the share of voxels that a level has of full resolution
    for layer in layers:
        before = layer.inputs * share
        if layer.kind == "pool":
            share /= math.prod(layer.kernel)
        elif layer.kind == "up":
            share *= math.prod(layer.kernel)
        total += _operations(layer, before, layer.outputs * share)
    return total


def _shape_after(layer: Layer, shape: ZYX) -> ZYX:
    if layer.kind == "conv":
        return zyx(n - k + 1 for n, k in zip(shape, layer.kernel, strict=True))
    if layer.kind == "pool":
        return zyx(n // k for n, k in zip(shape, layer.kernel, strict=True))
    if layer.kind == "up":
        return zyx(n * k for n, k in zip(shape, layer.kernel, strict=True))
    return shape


def _operations(layer: Layer, before: float, values: float) -> float:
    if layer.kind == "pool":
        return 0.0
    if layer.kind == "up":  # every input value meets one kernel, and the kernels do not overlap
        return 2 * before * math.prod(layer.kernel) * layer.outputs
    return 2 * values * math.prod(layer.kernel) * layer.inputs
