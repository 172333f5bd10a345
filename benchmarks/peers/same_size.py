"""A valid network for libraries that want an output as large as the input, in two usual ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilenet.geometry import ZYX, zyx
from tilenet.inference import Model


def pad(x: Tensor, low: ZYX, high: ZYX, mode: str = "constant") -> Tensor:
    """Pad (b, c, z, y, x) on both sides of the last three axes."""
    pads = [n for pair in zip(low[::-1], high[::-1], strict=True) for n in pair]
    return functional.pad(x, pads, mode=mode)


class Mirrored(nn.Module):
    """Mirror-pads what it is given by the halo, and returns probabilities for all of it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network, self.architecture = model.network, model.architecture

    @torch.inference_mode()
    def forward(self, given: Tensor) -> Tensor:
        law, size = self.architecture, zyx(given.shape[2:])
        legal = law.input_for(law.output_for(size))
        high = zyx(m - n - h for m, n, h in zip(legal, size, law.halo, strict=True))
        scores = self.network(pad(given, law.halo, high, "reflect"))
        z, y, x = size
        return torch.softmax(scores, dim=1)[:, 1:, :z, :y, :x]


class Embedded(nn.Module):
    """Evaluates blocks with a halo, and returns probabilities with zeros where the halo is.

    The network returns more than a block. What it sees for that is the halo's further part, so the
    halo is larger than the network's, and what is too much of it lies at the low end.
    """

    def __init__(self, model: Model, block: ZYX) -> None:
        super().__init__()
        self.network, self.block, law = model.network, block, model.architecture
        self.more = zyx(o - n for o, n in zip(law.output_for(block), block, strict=True))
        self.halo = zyx(h + n for h, n in zip(law.halo, self.more, strict=True))

    @torch.inference_mode()
    def forward(self, given: Tensor) -> Tensor:
        low_z, low_y, low_x = self.more
        scores = self.network(given[:, :, low_z:, low_y:, low_x:])
        z, y, x = self.block
        return pad(torch.softmax(scores, dim=1)[:, 1:, :z, :y, :x], self.halo, self.halo)
