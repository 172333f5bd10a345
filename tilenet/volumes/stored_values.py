"""Stored values that are probabilities, and others: what they mean, and how far they reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.networks import UINT8

#: Whole numbers of as many bytes as a float: those of positive floats are in their order.
_BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def probabilities(values: npt.NDArray[Any], *, invert: bool = False) -> npt.NDArray[Any]:
    """Scale stored values to probabilities of interior.

    Parameters
    ----------
    values : ndarray of uint8, bool or float
        uint8 holds 255 p, as predictions store it.
    invert : bool
        Give 1 - p.

    Returns
    -------
    ndarray of float32 or float64, same shape
        p; of uint8 in float32, as the official figures hold an image of 32 bits.
    """
    if values.dtype == UINT8.name:
        grey = UINT8.one - values if invert else values
        return grey.astype(np.float32) / np.float32(UINT8.one)
    if values.dtype.kind not in "bf":
        problem = f"the dtype {values.dtype} holds no probabilities"
        raise InvalidData(
            "prediction", problem, f"Give uint8 ({UINT8.meaning}) or floating-point values."
        )
    exact = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
    return 1 - exact if invert else exact


def stored_cut(probability: float, dtype: npt.DTypeLike, *, invert: bool = False) -> float:
    """Find the stored value beyond which probabilities exceed a threshold.

    Parameters
    ----------
    probability : float
        The threshold, 0 to less than 1.
    dtype : dtype
        Of stored probabilities: uint8, bool, or floating-point.
    invert : bool
        What is compared is 1 - p.

    Returns
    -------
    float
        The largest stored value whose probability is not above the threshold; where inverted, the
        largest whose 1 - p is. Values above it are on the other side.
    """
    kind = np.dtype(dtype)
    # Stored values from 0 to 1 in their order, as whole numbers.
    if kind.kind == "f":
        bits = _BITS[kind.itemsize]
        codes, last = bits, int(np.ones(1, kind).view(bits)[0])
    else:
        codes, last = np.uint8, 1 if kind.kind == "b" else UINT8.one

    def value(code: int) -> npt.NDArray[Any]:
        return np.array([code], codes).view(kind)

    low, high = 0, last  # of 0 it is true, of the last it is not
    while high - low > 1:
        middle = (low + high) // 2
        scaled = probabilities(value(middle), invert=invert).astype(np.float64)
        if bool(scaled[0] > probability) == invert:
            low = middle
        else:
            high = middle
    return float(value(low)[0])


@dataclass(frozen=True)
class ValueRange:
    """Smallest and largest of some values that are not 0.

    Parameters
    ----------
    lowest, highest : int, float or None
        None where all values are 0.
    """

    lowest: float | None = None
    highest: float | None = None

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> ValueRange:
        """Look at an array.

        Parameters
        ----------
        values : ndarray

        Returns
        -------
        ValueRange
        """
        # Whole numbers stay whole: a float cannot tell large ones apart.
        nonzero = values[values != 0]
        return cls(nonzero.min().item(), nonzero.max().item()) if nonzero.size else cls()

    def plus(self, other: ValueRange) -> ValueRange:
        """Give the range of both.

        Parameters
        ----------
        other : ValueRange

        Returns
        -------
        ValueRange
        """
        found = [self.lowest, self.highest, other.lowest, other.highest]
        known = [value for value in found if value is not None]
        return ValueRange(min(known), max(known)) if known else self
