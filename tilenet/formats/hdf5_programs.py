"""HDF5 files of programs that store volumes in their own way.

A program is recognised by the names and attributes that it alone writes, under any file name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilenet.errors import UnreadableVolume
from tilenet.formats.hdf5_attributes import text


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """How the program that wrote a dataset means it, where that differs from what HDF5 says."""

    names: str | None = None  # its axes, one letter each
    sizes: tuple[int, ...] | None = None  # without what only fills up chunks
    dtype: np.dtype[Any] | None = None  # what the stored bytes are
    column_major: bool = False  # the program counts the axes from the other end
    voxel_size: tuple[float, float, float] | None = None  # nanometres, (z, y, x)
    # Position of the first voxel's centre, nanometres, (z, y, x).
    translation: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()


# -- MATLAB 7.3 -----------------------------------------------------------------------------------


def is_matlab(dataset: Any) -> bool:
    return "MATLAB_class" in dataset.attrs


def matlab(dataset: Any) -> Written:
    """Show an array as MATLAB does: rows, columns, sections."""
    if dataset.attrs.get("MATLAB_empty", 0):
        location = f"{dataset.file.filename}:{dataset.name}"
        raise UnreadableVolume(location, "is empty", "Give a volume that has voxels")
    sizes = dataset.shape[::-1]
    shown = " x ".join(map(str, sizes))
    note = (
        f"{dataset.name} is MATLAB's, {shown} in its order. These are read as rows, columns and "
        "sections, unless --axes names them otherwise, in this order."
    )
    return Written(names=_rows_first(sizes), column_major=True, notes=(note,))


def _rows_first(sizes: Sequence[int]) -> str:
    if len(sizes) <= 3:
        return "yxz"[: len(sizes)]
    if sum(size > 1 for size in sizes) != 3:
        return "?" * len(sizes)
    left = iter("yxz")
    return "".join(next(left) if size > 1 else "-" for size in sizes)


# -- others ---------------------------------------------------------------------------------------


def cremi(dataset: Any) -> Written | None:
    """Say what the labels of CREMI mean; their size and position are attributes."""
    if not dataset.name.endswith("/labels/clefts") or dataset.dtype.kind != "u":
        return None
    note = "CREMI stores 2^64 - 1, not 0, where no cleft is; it is read as an id like others."
    return Written(notes=(note,))


def nwb(dataset: Any) -> Written | None:
    """Tell the axes of an image series of Neurodata Without Borders, which are t, x, y, z."""
    if "nwb_version" not in dataset.file.attrs or dataset.name.rpartition("/")[2] != "data":
        return None
    kind = text(dataset.parent.attrs.get("neurodata_type")) or ""
    if "Series" not in kind or dataset.ndim not in (3, 4):
        return None
    return Written(names="txyz"[: dataset.ndim])


def dream3d(dataset: Any) -> Written | None:
    """Tell the axes of DREAM.3D, which stores the components of each voxel together."""
    voxels = np.ravel(dataset.attrs.get("TupleDimensions", ())).tolist()
    if not 2 <= len(voxels) <= 3 or tuple(voxels[::-1]) != dataset.shape[: len(voxels)]:
        return None
    names = "zyx"[-len(voxels) :] + "c" * (dataset.ndim - len(voxels))
    spacing = dataset.parent.parent.get("_SIMPL_GEOMETRY/SPACING")
    if spacing is None or len(names) != dataset.ndim:
        return Written(names=names)
    said = ", ".join(f"{value:g}" for value in np.ravel(spacing[()])[::-1].tolist())
    note = f"DREAM.3D states a spacing of {said} (z, y, x) without a unit, which is left out."
    return Written(names=names, notes=(note,))
