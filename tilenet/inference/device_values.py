"""Grey values to what the network is given, and results to what is stored, on the device.

So the bus carries the input's own data type one way and the output's the other, not float32. The
bits are those of :meth:`tilenet.volumes.grey_values.Intensity.apply` and of NumPy's rounding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilenet.networks import STORED_TYPES, UINT8
from tilenet.volumes import Intensity

#: Also float64, in which predictions are compared in memory.
_STORED = {name: getattr(torch, name) for name in (*STORED_TYPES, "float64")}


class DeviceIntensity:
    """A rule for grey values, ready on a device.

    Parameters
    ----------
    intensity : Intensity
    device : torch.device
    dtype : float32 or float64, of torch
        Precision to compute in and to return.
    """

    def __init__(self, intensity: Intensity, device: torch.device, dtype: torch.dtype) -> None:
        self.intensity, self.dtype = intensity, dtype
        # Tensors: CUDA turns a division by a number of Python's into a product with its reciprocal,
        # which is another rounding. Filled on the device, so nothing waits for a copy.
        std = -intensity.std if intensity.invert else intensity.std
        self._mean = torch.full((), intensity.mean, dtype=dtype, device=device)
        self._std = torch.full((), std, dtype=dtype, device=device)

    def apply(self, values: Tensor) -> Tensor:
        """Give the bits that :meth:`Intensity.apply` gives.

        Where -0.0 is clipped at 0, the sign of zero is as NumPy's version has it there.
        """
        low, high = self.intensity.low, self.intensity.high
        result = values.to(self.dtype, copy=True)
        if low is not None or high is not None:
            result.clamp_(low, high)
        return result.sub_(self._mean).div_(self._std)


def stored(values: Tensor, dtype: npt.DTypeLike) -> Tensor:
    """Convert probabilities to what is stored.

    Parameters
    ----------
    values : Tensor of float32 or float64, any shape
        Probabilities, or scores for a floating-point ``dtype``.
    dtype : uint8, float16, float32 or float64

    Returns
    -------
    Tensor, same shape
        Of ``dtype``, with the bits that NumPy would give. Only float64 that is to become float16
        stays float64: PyTorch would round it twice, to float32 in between. NumPy rounds it once, as
        it is assigned to the output.
    """
    target = _STORED[np.dtype(dtype).name]
    if target == torch.float16 and values.dtype == torch.float64:
        return values
    if target == torch.uint8:
        values = torch.round(values * UINT8.one)  # halves to even
    return values.to(target)


def broken(values: Tensor, dtype: npt.DTypeLike) -> Tensor:
    """Count values that are not finite, or would not be as they are stored, on the device.

    As uint8 a NaN would look like a result, and float16 ends at 65504. The count is
    downloaded with the values that it is of, so that nothing waits for it.

    Parameters
    ----------
    values : Tensor of float, any shape
        Before :func:`stored`.
    dtype : uint8, float16, float32 or float64

    Returns
    -------
    Tensor of int64, shape ()
        The count.
    """
    if np.dtype(dtype) == np.float16:
        values = values.to(torch.float16)
    return torch.sum(~torch.isfinite(values))
