"""Plain Zarr, as a script uses it, in calls whose types are known."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import zarr

from tilenet.geometry import ZYX


def opened(source: str) -> Any:
    """Open the array of an OME-Zarr."""
    return zarr.open_array(f"{source}/0", mode="r")


def loaded(source: str) -> npt.NDArray[Any]:
    """Read the array of an OME-Zarr."""
    values: npt.NDArray[Any] = opened(source)[...]
    return values


def created(output: str, shape: ZYX, chunk: ZYX) -> Any:
    """Create an array of float32."""
    return zarr.create_array(output, shape=shape, chunks=chunk, dtype="float32")


def save(output: str, values: Any) -> None:
    zarr.save_array(output, values)
