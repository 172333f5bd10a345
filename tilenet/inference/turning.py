"""Sections turned by quarters and mirrored, and turned back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.networks import Orientation


def turn(values: npt.NDArray[Any], orientation: Orientation) -> npt.NDArray[Any]:
    if orientation.transposed or any(orientation.flips):
        values = values[_reversal(orientation)]
        values = values.swapaxes(-1, -2) if orientation.transposed else values
        # One memory layout for every evaluation; PyTorch takes no negative strides.
        values = np.ascontiguousarray(values)
    return values


def turn_back(values: npt.NDArray[Any], orientation: Orientation) -> npt.NDArray[Any]:
    values = values.swapaxes(-1, -2) if orientation.transposed else values
    back: npt.NDArray[Any] = values[_reversal(orientation)]
    return back


def _reversal(orientation: Orientation) -> tuple[Any, ...]:
    return (..., *(slice(None, None, -1 if flipped else 1) for flipped in orientation.flips))
