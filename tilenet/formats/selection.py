"""A part of a source, and values of another type: exactly, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.formats.files import check_inside
from tilenet.formats.source import Source
from tilenet.geometry import ZYX, Box, zyx


@dataclass(frozen=True)
class Selection:
    """A region of a source, whose first voxel is (0, 0, 0), with values of another type.

    Parameters
    ----------
    source : Source
    region : Box, inside the source
    dtype : numpy.dtype
        A value that it cannot hold exactly is refused when it is read.
    """

    source: Source
    region: Box
    dtype: np.dtype[Any]

    @property
    def location(self) -> str:
        return self.source.location

    @property
    def shape(self) -> ZYX:
        return self.region.shape

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        return self.source.voxel_size

    @property
    def translation(self) -> tuple[float, float, float] | None:
        return translated(self.source.translation, self.region.start, self.voxel_size)

    @property
    def notes(self) -> tuple[str, ...]:
        return self.source.notes

    @property
    def channels(self) -> tuple[str, ...] | None:
        return self.source.channels

    @property
    def kind(self) -> str:
        return self.source.kind

    @property
    def stored_axes(self) -> str:
        return self.source.stored_axes

    @property
    def piece_shape(self) -> ZYX:
        return zyx(min(p, n) for p, n in zip(self.source.piece_shape, self.shape, strict=True))

    def read(self, box: Box) -> npt.NDArray[Any]:
        check_inside(box, self.shape)
        there = box.relative_to(zyx(-n for n in self.region.start))
        values = self.source.read(there)
        if values.dtype == self.dtype:
            return values
        out = np.empty(values.shape, self.dtype)
        for z in range(box.shape[0]):  # section by section, for what is compared takes memory too
            section = values[..., z, :, :]
            out[..., z, :, :] = _exactly(section, self.dtype, f"{self.location}, {there}")
        return out

    def identity(self) -> dict[str, Any]:
        return self.source.identity()


def translated(
    position: tuple[float, float, float] | None,
    start: ZYX,
    voxel_size: tuple[float, float, float] | None,
) -> tuple[float, float, float] | None:
    """Give the position of a voxel of a volume, nanometres, (z, y, x).

    Parameters
    ----------
    position : tuple of float or None
        Of the volume's first voxel.
    start : tuple of int
        Of the voxel.
    voxel_size : tuple of float or None

    Returns
    -------
    tuple of float or None
        None where nothing says it.
    """
    if start == (0, 0, 0) or voxel_size is None:
        return position if start == (0, 0, 0) else None
    z, y, x = (
        at + n * size
        for at, n, size in zip(position or (0.0, 0.0, 0.0), start, voxel_size, strict=True)
    )
    return z, y, x


def _exactly(values: npt.NDArray[Any], dtype: np.dtype[Any], where: str) -> npt.NDArray[Any]:
    with np.errstate(over="ignore", invalid="ignore"):
        converted = values.astype(dtype)
        same = _same(values, converted)
    if not same.all():
        value = values[~same].flat[0]
        problem = f"holds {value} ({values.dtype}), which {dtype} cannot hold exactly"
        cure = "Give a --dtype that holds all values, or leave it out."
        raise InvalidData(where, problem, cure)
    return converted


def _same(values: npt.NDArray[Any], converted: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    # What lies outside of an integer type's range is converted to anything, and from there perhaps
    # back to where it was: so whether it lies inside is asked first.
    floats, whole = (converted, values) if converted.dtype.kind == "f" else (values, converted)
    same: npt.NDArray[np.bool_] = converted.astype(values.dtype) == values
    if whole.dtype.kind == "f":
        same |= np.isnan(values) & np.isnan(converted)
    elif floats.dtype.kind == "f":
        same &= _inside(floats, whole.dtype)
    else:
        same &= _inside(values, converted.dtype)
    return same


def _inside(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[np.bool_]:
    limits = np.iinfo(dtype)
    if values.dtype.kind == "f":
        # Powers of two, which float64 holds as they are; NaN is not inside.
        wide = values.astype(np.float64)
        inside: npt.NDArray[np.bool_] = (wide >= float(limits.min)) & (wide < float(limits.max + 1))
        return inside
    own = np.iinfo(values.dtype)
    low, high = max(own.min, limits.min), min(own.max, limits.max)
    return (values >= low) & (values <= high)
