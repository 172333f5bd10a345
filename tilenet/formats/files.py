"""Files, read box by box.

Sources hold places and facts only, so that they can be pickled. Every process opens the files
that it reads when it first needs them, and keeps the latest :data:`MAX_OPEN` open.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import (
    AmbiguousVolume,
    RegionOutside,
    TilenetError,
    UnreadableBlock,
    UnreadableVolume,
)
from tilenet.formats.axes import StoredArray, agree, choose_axes, overridden, readable_dtype
from tilenet.formats.channel_names import channel_names
from tilenet.formats.hdf5 import open_hdf5
from tilenet.formats.npy import open_npy, open_npz
from tilenet.formats.png import open_png
from tilenet.formats.tiff import open_tiff
from tilenet.geometry import ZYX, Box
from tilenet.volumes import AxisMap, is_of_system, why_unreadable
from tilenet.volumes.stores import file_kind

#: Files kept open in a process: many sections of a stack, few of the 256 that macOS allows.
MAX_OPEN = 64

#: Files are told apart by their sizes and this many samples of this many bytes, spread evenly.
SAMPLES, SAMPLE_BYTES = 64, 4096

TIFF = (".tif", ".tiff", ".btf", ".tf8")
PNG = (".png",)
HDF5 = (".h5", ".hdf5", ".hdf", ".ims", ".mat", ".nwb", ".dream3d")

#: How each kind of file is opened.
OPENERS: dict[str, Callable[[str, str | None], StoredArray]] = {
    **dict.fromkeys(TIFF, open_tiff),
    **dict.fromkeys(PNG, open_png),
    **dict.fromkeys(HDF5, open_hdf5),
    ".npy": open_npy,
    ".npz": open_npz,
}


@dataclass(frozen=True)
class FileSource:
    """An array in one file, seen as (z, y, x) or (c, z, y, x)."""

    location: str  # what the user called it
    path: str  # the file, absolute
    inner: str | None  # name of the array inside the file
    axes: AxisMap  # what its axes are
    shape: ZYX  # voxels of the volume
    piece_shape: ZYX  # voxels of what is decoded as one piece
    dtype: np.dtype[Any]  # of the values that :meth:`read` gives
    voxel_size: tuple[float, float, float] | None  # nanometres, (z, y, x), when the file says so
    # Position of the first voxel's centre, nanometres, (z, y, x), when the file says so.
    translation: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()  # what was assumed in opening it, a sentence each
    channels: tuple[str, ...] | None = None  # their names; None where it is seen as (z, y, x)
    series: int | None = None  # which of several images of a TIFF file, as the user gave it
    files: tuple[str, ...] = ()  # all that it is read from, where that is not the file alone
    # Nanometres, (y, x), where the file states no size along z.
    pixel_size: tuple[float, float] | None = None

    @property
    def kind(self) -> str:
        found = file_kind(Path(self.path))
        return "a file" if found is None else found.name

    @property
    def stored_axes(self) -> str:
        return "".join(self.axes.axes)

    def read(self, box: Box) -> npt.NDArray[Any]:
        check_inside(box, self.shape)
        try:
            stored = _open(self.path, self.inner, self.series)
            count = None if self.channels is None else len(self.channels)
            if (self.axes.along_zyx(stored.sizes), _channel_count(self.axes, stored.sizes)) != (
                self.shape, count,
            ):  # fmt: skip
                raise ValueError("the file has changed since it was opened")
            index = zip(self.axes.index(box), stored.sizes, strict=True)
            ranges = [slice(*part.indices(size)[:2]) for part, size in index]
            values = self.axes.arrange(stored.read(ranges))
            return np.ascontiguousarray(values, dtype=readable_dtype(values.dtype))
        except TilenetError:
            raise
        except Exception as error:  # decoders raise what they like
            damaged = not is_of_system(error)
            raise UnreadableBlock(
                self.location, str(box), why_unreadable(error), damaged
            ) from error

    def identity(self) -> dict[str, Any]:
        return {
            **identity_of_channels(self.channels),
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "axes": self.stored_axes,
            "channel": self.axes.channel,
            "inner": self.inner,
            **identity_of_series(self.series),
            "sha256_of_samples": fingerprint(self.files or [self.path]),
        }


def open_file(
    path: str,
    inner: str | None = None,
    *,
    location: str | None = None,
    axes: str | None = None,
    channel: int | None = None,
    series: int | None = None,
) -> FileSource:
    location = path if location is None else location
    stored = _open(path, inner, series, axes)
    if stored.contradiction and axes is None:
        problem = "states its axes in several ways"
        cure = "Say which is right, for example --axes zyx"
        raise AmbiguousVolume(location, problem, stored.contradiction, cure)
    chosen = choose_axes(location, stored.sizes, named=stored.names, given=axes, channel=channel)
    note = overridden(stored.sizes, stored.names, axes)
    agreed = agree(chosen, stored.names)
    if not agreed and (stored.voxel_size or stored.pixel_size):
        note = f"{note} Its voxel size and position are left out." if note else None
    shape, pixel_size = chosen.along_zyx(stored.sizes), stored.pixel_size if agreed else None
    voxel_size = stored.voxel_size if agreed else None
    notes = [*stored.notes, *([note] if note else [])]
    if pixel_size is not None and shape[0] == 1:
        voxel_size = (1.0, *pixel_size)  # of a single section, any size along z serves
    elif pixel_size is not None:
        notes.append(without_depth(pixel_size))
    return FileSource(
        location,
        path,
        inner,
        chosen,
        shape=shape,
        piece_shape=chosen.along_zyx(stored.pieces),
        dtype=readable_dtype(stored.dtype),
        voxel_size=voxel_size,
        translation=stored.translation if agreed else None,
        notes=tuple(notes),
        channels=channel_names(_channel_count(chosen, stored.sizes), stored.channels),
        series=series,
        files=stored.files,
        pixel_size=pixel_size,
    )


def without_depth(pixel_size: tuple[float, float]) -> str:
    """Say that sections have a size along y and x only."""
    y, x = (f"{nm:.6g}" for nm in pixel_size)
    return (
        f"Its voxel size is stated in part and is not used: y {y}, x {x} nm, not z; "
        f"give --voxel-size Z,{y},{x}."
    )


def _channel_count(axes: AxisMap, sizes: Sequence[int]) -> int | None:
    return sizes[axes.axes.index("c")] if axes.channel is None else None


def identity_of_channels(channels: tuple[str, ...] | None) -> dict[str, int]:
    # Nothing of one channel: so old outputs say it.
    return {} if channels is None else {"channels": len(channels)}


def identity_of_series(series: int | None) -> dict[str, int]:
    return {} if series is None else {"series": series}


def _open(
    path: str, inner: str | None, series: int | None, given: str | None = None
) -> StoredArray:
    if series is not None:
        inner = str(series)  # the only name that images in a TIFF file have
    try:
        found = Path(path).stat()
    except OSError as error:
        cure = "Check that its disk is there and that you may read it"
        raise UnreadableVolume(path, f"cannot be opened: {error.strerror}", cure) from error
    version = found.st_ino, found.st_size, found.st_mtime_ns
    is_hdf5 = Path(path).suffix.lower() in HDF5  # which lists sizes in the order of the axes
    return _open_version(path, inner, version, given if is_hdf5 else None)


@lru_cache(maxsize=MAX_OPEN)
def _open_version(
    path: str, inner: str | None, version: tuple[int, ...], given: str | None
) -> StoredArray:
    del version  # a file that was written anew is opened anew
    suffix = Path(path).suffix.lower()
    try:
        return open_hdf5(path, inner, given) if given else OPENERS[suffix](path, inner)
    except TilenetError:
        raise
    except Exception as error:  # a damaged header can fail anywhere in the library that reads it
        kind = None if is_of_system(error) else file_kind(Path(path), by_name=False)
        if kind is not None and suffix not in kind.suffixes:
            cure = f"Rename it to end in {kind.suffixes[0]}" if kind.is_ingested else kind.cure
            raise UnreadableVolume(path, f"is not {suffix}, but {kind.name}", cure) from error
        problem = f"cannot be read as {suffix}: {why_unreadable(error)}"
        cure = "Copy it again, close programs that write to it, or save it anew"
        raise UnreadableVolume(path, problem, cure) from error


def check_inside(box: Box, shape: ZYX) -> None:
    whole = Box.of_shape(shape)
    if not whole.contains(box):
        raise RegionOutside(str(box), str(whole))


def fingerprint(paths: Sequence[str]) -> str:
    """Give the SHA-256 of the sizes of files and of samples spread evenly over all of them."""
    sizes = [Path(path).stat().st_size for path in paths]
    ends = list(accumulate(sizes))
    digest = hashlib.sha256(repr(sizes).encode())
    for i in range(SAMPLES):
        position = i * ends[-1] // SAMPLES
        which = bisect_right(ends, position)
        with Path(paths[which]).open("rb") as file:
            file.seek(position - ends[which] + sizes[which])
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
