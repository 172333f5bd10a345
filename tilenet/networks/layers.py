"""Layers of a network, and what evaluating them costs. Pure: standard library only."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tilenet.geometry import ZYX, zyx


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the network, in the order of evaluation: the one place that says what it is.

    Parameters
    ----------
    kind : {"conv", "pool", "up", "head"}
        ``conv`` is a valid convolution with ReLU, ``pool`` a max-pooling of what is kept as the
        skip of its level, ``up`` an up-convolution followed by the concatenation with the cropped
        skip of the level that it reaches, ``head`` the final 1x1x1 convolution.
    level : int
        0 at full resolution. For ``pool`` the level it leaves, for ``up`` the one it reaches.
    name : str
        Of its parameters; empty for a pooling. Only where they are found, never what it is.
    kernel : tuple of int
        Kernel, or window and stride of ``pool`` and ``up``, (z, y, x).
    inputs, outputs : int, channels
    dropout : float
        Probability of dropping a feature of its output while training.
    """

    kind: Literal["conv", "pool", "up", "head"]
    level: int
    name: str
    kernel: ZYX
    inputs: int
    outputs: int
    dropout: float = 0.0

    @property
    def key(self) -> str:
        """Name of its module among the network's layers, and in the model file."""
        return self.name.replace(".", "_")

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        if self.kind == "pool":
            return 0
        return self.outputs * (self.inputs * math.prod(self.kernel) + 1)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluation of the network on one tile costs."""

    output_shape: ZYX  # shape of the output, (z, y, x)
    operations: int  # floating-point operations, a multiplication and an addition counted as two


@functools.lru_cache(maxsize=4096)
def evaluate(layers: tuple[Layer, ...], input_shape: ZYX) -> Evaluation:
    shape, operations = input_shape, 0
    for layer in layers:
        before = layer.inputs * math.prod(shape)
        shape = shape_after(layer, shape)
        operations += round(_operations(layer, before, layer.outputs * math.prod(shape)))
    return Evaluation(shape, operations)


def operations_per_voxel(layers: Iterable[Layer]) -> float:
    """Count the operations per output voxel of one infinite tile: nothing is computed twice."""
    total, share = 0.0, 1.0  # the share of voxels that a level has of full resolution
    for layer in layers:
        before = layer.inputs * share
        if layer.kind == "pool":
            share /= math.prod(layer.kernel)
        elif layer.kind == "up":
            share *= math.prod(layer.kernel)
        total += _operations(layer, before, layer.outputs * share)
    return total


def shape_after(layer: Layer, shape: ZYX) -> ZYX:
    """Give the shape after a layer; of an up-convolution before the skip is cropped to it."""
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
