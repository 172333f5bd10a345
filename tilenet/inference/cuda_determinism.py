"""How a CUDA device computes: with the digits that were asked for, and the same ones every time."""

from __future__ import annotations

import torch


def set_arithmetic(*, tf32: bool = False) -> None:
    """Let every run of one numeric plan give the same bits, in the precision that it names.

    For the whole process; without effect on CPUs. PyTorch's own setting would let convolutions of
    float32 run in TF32, with 10 bits of fraction instead of 23.

    - ``cudnn.benchmark`` stays off. It times cuDNN's algorithms and takes the fastest; another run
      may time them otherwise, and another algorithm sums in another order. Without it cuDNN's
      heuristics choose, by shape, data type and device model.
    - ``cudnn.deterministic``: algorithms whose sums depend on the order of threads are left out.
    - Products of matrices add up in float32, not in the precision of the factors.

    Not ``torch.use_deterministic_algorithms``: it would fill every new buffer with NaN, and nothing
    here calls what it refuses.

    Parameters
    ----------
    tf32 : bool
        Round the factors of float32 products to TF32: several times faster, as inexact as float16.
    """
    precision = "tf32" if tf32 else "ieee"
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    cudnn.benchmark, cudnn.deterministic = False, True
    # Of all that is CUDA's, products of matrices too. PyTorch's older names for it
    # (``allow_tf32``) may not be read after that.
    cudnn.fp32_precision = precision
    matmul.allow_bf16_reduced_precision_reduction = False
    matmul.allow_fp16_reduced_precision_reduction = False
