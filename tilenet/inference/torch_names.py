"""The one place that knows an operator of PyTorch that it does not promise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

#: PyTorch's own way to oneDNN. It takes weight, bias, padding, stride, dilation and groups.
Operator = Callable[[Tensor, Tensor, Tensor, list[int], list[int], list[int], int], Tensor]


def find_operator() -> Operator | None:
    """Look for the operator, and try it once.

    None where it is missing or does something else by now: then PyTorch's public convolutions are
    used, which give other last bits and are slower on slabs of a few planes.
    """
    found: Operator | None = getattr(torch, "mkldnn_convolution", None)
    if found is None or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    x, weight, bias = torch.arange(16.0).view(1, 1, 4, 4), torch.ones(1, 1, 3, 3), torch.ones(1)
    try:
        there = found(x, weight, bias, [0, 0], [1, 1], [1, 1], 1)
    except (RuntimeError, TypeError):  # how PyTorch refuses arguments
        return None
    # Whole numbers, which no order of summing changes.
    return found if torch.equal(there, functional.conv2d(x, weight, bias)) else None


#: None where there is none.
onednn_convolution = find_operator()
