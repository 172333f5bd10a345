"""Ways to apply bias and ReLU that are tried on a GPU; none is tilenet's.

PyTorch 2.13 adds the bias of a convolution on CUDA in a pass over memory of its own, and the
stream's ReLU is another. Either of these saves one:

- ``cudnn``: cuDNN convolves, adds and rectifies in one kernel. Not tilenet's way, because PyTorch
  does not promise its algorithm to be deterministic (it asks cuDNN without that condition), and
  because a NaN need not survive its ReLU: an overflow in float16 would look like a result.
- ``compiled``: the convolution has no bias, and ``torch.compile`` makes one kernel that adds,
  rectifies and writes where the next convolution reads. It needs a C compiler where it runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tilenet.inference import streaming

VARIANTS = ("plain", "cudnn", "compiled")


def use(name: str) -> None:
    """Let every stream of this process apply bias and ReLU in a way of :data:`VARIANTS`."""
    if name == "cudnn":
        _replace(convolve=_fused)
    elif name == "compiled":
        # One kernel per data type; beyond the limit PyTorch would go on uncompiled, silently.
        torch._dynamo.config.recompile_limit = 32
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        _replace(convolve=_without_bias, rectify=_compiled)


def _replace(**methods: Any) -> None:
    for name, method in methods.items():
        setattr(streaming._Prepared, name, method)


def _fused(layer: Any, x: Tensor) -> Tensor:
    if x.dtype == torch.float64:  # cuDNN would add and rectify in float32
        return torch.clamp_min(_without_bias(layer, x) + layer.bias, 0)
    image, axes = streaming._image(x), len(layer.kernel)
    ones, zeros = [1] * axes, [0] * axes
    y = torch.cudnn_convolution_relu(image, layer.weight, layer.bias, ones, zeros, ones, 1)
    return streaming._features(y)


def _without_bias(layer: Any, x: Tensor) -> Tensor:
    image = streaming._image(x)
    convolve = torch.conv2d if len(layer.kernel) == 2 else torch.conv3d
    return streaming._features(convolve(image, layer.weight))


def _compiled(layer: Any, x: Tensor, out: Tensor) -> Tensor:
    features = layer.layer.outputs
    _finish(x.view(-1, features), layer.bias, out.view(-1, features))
    return out


@torch.compile(dynamic=True)
def _finish(x: Tensor, bias: Tensor, out: Tensor) -> None:
    out.copy_((x + bias).clamp_min(0))
