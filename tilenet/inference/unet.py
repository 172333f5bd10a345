"""The network, built from the layers that its architecture lists.

Shapes: B batch, C channels, Z sections, Y rows, X columns. A planar network runs as a 2-D one
with Z folded into B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilenet.errors import IllegalSize
from tilenet.networks import Layer, UNetArchitecture


class UNet(nn.Module):
    """U-Net of valid convolutions (Ronneberger et al. 2015), 2-D, 3-D or mixed.

    Parameters
    ----------
    architecture : UNetArchitecture
        The layers. Weights are drawn from a Gaussian of standard deviation sqrt(2 / N), N the
        number of incoming nodes of one neuron (He et al. 2015), and biases are 0.
    """

    def __init__(self, architecture: UNetArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        named = [layer for layer in architecture.layers() if layer.parameters]
        # "down.0.1" is the second convolution of the contracting level 0.
        self.layers = nn.ModuleDict({layer.key: self._module(layer) for layer in named})

    def _module(self, layer: Layer) -> nn.Module:
        planar = self.architecture.is_planar
        kernel: Any = layer.kernel[1:] if planar else layer.kernel
        module: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d
        if layer.kind == "up":
            up = nn.ConvTranspose2d if planar else nn.ConvTranspose3d
            module = up(layer.inputs, layer.outputs, kernel, stride=kernel)
            incoming = layer.inputs  # kernel = stride: each output sees one input position
        else:
            conv = nn.Conv2d if planar else nn.Conv3d
            module = conv(layer.inputs, layer.outputs, kernel)
            incoming = layer.inputs * math.prod(kernel)
        nn.init.normal_(module.weight, std=math.sqrt(2 / incoming))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        return module

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores of a tile.

        Parameters
        ----------
        x : Tensor, shape (B, C, Z, Y, X), or (B, C, Y, X) for a planar network
            Normalised grey values.

        Returns
        -------
        Tensor, shape (B, classes, Z, Y, X) or (B, classes, Y, X)
            Scores before any activation, smaller than the input by the halo on every side.

        Raises
        ------
        IllegalSize
            When the network cannot take the input's size.
        """
        if not self.architecture.is_planar or x.ndim == 4:
            return self._evaluate(x)
        batch, channels, sections, height, width = x.shape
        folded = x.transpose(1, 2).reshape(batch * sections, channels, height, width)
        y = self._evaluate(folded)
        return y.reshape(batch, sections, *y.shape[1:]).transpose(1, 2)

    def _evaluate(self, x: Tensor) -> Tensor:
        self._check(x.shape[2:])
        skips: list[Tensor] = []
        for layer in self.architecture.layers():
            if layer.kind == "pool":
                skips.append(x)
                x = self._pool(x, layer)
            elif layer.kind == "up":
                x = self.layers[layer.key](x)
                x = torch.cat([x, _centre(skips.pop(), x.shape[2:])], dim=1)
            elif layer.kind == "head":
                x = self.layers[layer.key](x)
            else:
                x = functional.relu(self.layers[layer.key](x), inplace=True)
                if self.training and layer.dropout:
                    x = functional.dropout(x, layer.dropout)
        return x

    def _pool(self, x: Tensor, layer: Layer) -> Tensor:
        if self.architecture.is_planar:
            return functional.max_pool2d(x, layer.kernel[1:])
        return functional.max_pool3d(x, layer.kernel)

    def _check(self, sizes: Sequence[int]) -> None:
        planar = self.architecture.is_planar
        z, y, x = (1, *sizes) if planar else sizes
        try:
            self.architecture.output_of((z, y, x))
        except IllegalSize as error:
            error.what = "A network input"
            raise


def _centre(skip: Tensor, shape: Sequence[int]) -> Tensor:
    for axis, (have, want) in enumerate(zip(skip.shape[2:], shape, strict=True), start=2):
        skip = skip.narrow(axis, (have - want) // 2, want)
    return skip
