"""Volumes in foreign files, read box by box: what ``tilenet ingest`` converts into OME-Zarr.

TIFF, PNG, HDF5, NumPy and Zarr. A box costs the pages, strips, tiles or chunks that it touches;
the whole volume is never in memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilenet.errors import UnreadableVolume
from tilenet.formats.axes import readable_dtype
from tilenet.formats.channel_names import channel_names
from tilenet.formats.files import (
    HDF5,
    OPENERS,
    TIFF,
    check_inside,
    open_file,
)
from tilenet.formats.section_files import ACCEPTED, section_files
from tilenet.formats.stacks import open_stack
from tilenet.geometry import ZYX, Box, zyx
from tilenet.volumes import Volume, find_layer, identify, open_volume
from tilenet.volumes.stores import ZARR_FILES, is_remote, local_path, recognise

#: Files that hold an array under a name, written as file:name.
_INNER = re.compile(
    rf"(?P<path>.+(?:{'|'.join(map(re.escape, (*HDF5, '.npz')))})):(?P<inner>.+)", re.I
)


class Source(Protocol):
    """A volume that gives boxes; it can be pickled and be read from several threads.

    It is seen as (z, y, x), or as (c, z, y, x) where it has several channels and none is chosen.
    """

    @property
    def location(self) -> str:
        """What the user called it."""

    @property
    def shape(self) -> ZYX:
        """Voxels, (z, y, x)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the values, in native byte order."""

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        """Nanometres, (z, y, x), when the file says so reliably."""

    @property
    def translation(self) -> tuple[float, float, float] | None:
        """Position of the first voxel's centre, nanometres, (z, y, x), when the file says so."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed in opening it, a sentence each, for people."""

    @property
    def channels(self) -> tuple[str, ...] | None:
        """Names of the channels; None where it is seen as (z, y, x)."""

    @property
    def kind(self) -> str:
        """What it is stored as, for people."""

    @property
    def stored_axes(self) -> str:
        """Axes of the stored array, of every file of several, a letter each."""

    @property
    def piece_shape(self) -> ZYX:
        """Shape of what is decoded as one piece; whole pieces are decoded once only."""

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Read the voxels of a box."""

    def identity(self) -> dict[str, Any]:
        """Recognise the content without reading it all, independent of where it lies."""


def open_source(
    location: str,
    *,
    axes: str | None = None,
    channel: int | None = None,
    level: str | None = None,
    series: int | None = None,
    missing: str | None = None,
) -> Source:
    """Open a volume of any kind for reading.

    Parameters
    ----------
    location : str
        A file (``FILE.h5:/DATASET`` and ``FILE.npz:NAME`` for arrays inside one), a folder or a
        glob pattern of TIFF or PNG files, one after the other along z in natural order, or a Zarr,
        local or by URL.
    axes : str, optional
        Meaning of the stored axes of each file, for example "zyx", where the file does not say or
        is wrong. Axes of length 1 that a TIFF file has are not counted.
    channel : int, optional
        The channel to read; without it all are, but for the samples of a colour image.
    level : str, optional
        Path or index of a pyramid level of a Zarr; the finest by default.
    series : int, optional
        Which of several images a TIFF file holds, counted from 0.
    missing : {"skip", "repeat", "blank"}, optional
        What stands for sections that are missing in the numbers of a stack's files: nothing, the
        section before or zeros. Without it a stack with gaps is refused.

    Returns
    -------
    Source
        Only headers have been read.

    Raises
    ------
    UnreadableVolume, AmbiguousVolume
        When there is no readable volume, or several readings of it.
    """
    location = str(location)
    match = _INNER.fullmatch(location)
    name, inner = (match["path"], match["inner"]) if match else (location, None)
    if is_remote(location):
        _refuse_remote_file(location, name)
        _refuse_series(location, series)
        return _open_zarr(location, axes=axes, channel=channel, level=level)
    try:
        return _open_local(
            location, name, inner,
            axes=axes, channel=channel, level=level, series=series, missing=missing,
        )  # fmt: skip
    except PermissionError as error:
        raise UnreadableVolume.unreachable(location, error) from error


def _open_local(
    location: str,
    name: str,
    inner: str | None,
    *,
    axes: str | None,
    channel: int | None,
    level: str | None,
    series: int | None,
    missing: str | None,
) -> Source:
    path = _absolute(name)
    if path.is_dir() and _is_zarr(path):
        _refuse_series(location, series)
        return _open_zarr(str(path), axes=axes, channel=channel, level=level)
    if path.is_file():
        _check_suffix(location, path)
        _refuse_level(location, level)
        if path.suffix.lower() not in TIFF:
            _refuse_series(location, series)
        return open_file(
            str(path), inner, location=location, axes=axes, channel=channel, series=series
        )
    sections = section_files(location, path)
    _refuse_level(location, level)
    if sections[0].suffix.lower() not in TIFF:
        _refuse_series(location, series)
    return open_stack(
        location, sections, is_folder=path.is_dir(),
        axes=axes, channel=channel, series=series, missing=missing,
    )  # fmt: skip


def _absolute(name: str) -> Path:
    if name.startswith("file://"):
        return local_path(name)
    # Links are not followed: the name of a link says the kind and the order, its target need not.
    return Path(name).expanduser().absolute()


def _refuse_remote_file(location: str, name: str) -> None:
    if Path(name).suffix.lower() in OPENERS:
        cure = "Copy it to a local disk"
        raise UnreadableVolume(location, "is a file behind a URL; only Zarr is read there", cure)


def _check_suffix(location: str, path: Path) -> None:
    if path.suffix.lower() in OPENERS:
        return
    kind = recognise(str(path))
    if kind is None:
        problem = f"is of a kind that is not known: {path.suffix or 'no extension'}"
        raise UnreadableVolume(location, problem, ACCEPTED)
    if kind.is_ingested:
        cure = f"Rename it to end in {kind.suffixes[0]}"
        raise UnreadableVolume(location, f"is {kind.name} by another name", cure)
    raise UnreadableVolume(location, f"is {kind.name}, which is not read", kind.cure)


def _refuse_level(location: str, level: str | None) -> None:
    if level is not None:
        cure = "Leave out --level; only Zarr volumes have levels"
        if location.lower().endswith(HDF5):
            cure = "Leave out --level, and name the dataset of that level, as in FILE.h5:/DATASET"
        raise UnreadableVolume(location, f"has no pyramid level {level!r}", cure)


def _refuse_series(location: str, series: int | None) -> None:
    if series is not None:
        cure = "Leave out --series; only TIFF files have several images"
        raise UnreadableVolume(location, f"has no image number {series}", cure)


# -- Zarr -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ZarrSource:
    """A Zarr volume.

    Parameters
    ----------
    volume : Volume
    """

    volume: Volume

    @property
    def location(self) -> str:
        return self.volume.location

    @property
    def shape(self) -> ZYX:
        return self.volume.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return readable_dtype(self.volume.dtype)

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        return self.volume.voxel_size

    @property
    def translation(self) -> tuple[float, float, float] | None:
        return self.volume.translation

    @property
    def notes(self) -> tuple[str, ...]:
        return self.volume.notes

    @property
    def channels(self) -> tuple[str, ...] | None:
        return channel_names(self.volume.channels, self.volume.layout.channel_names)

    @property
    def kind(self) -> str:
        return "Zarr"

    @property
    def stored_axes(self) -> str:
        return "".join(self.volume.layout.axes)

    @property
    def piece_shape(self) -> ZYX:
        chunk = self.volume.chunk_shape
        return zyx(min(c, n) for c, n in zip(chunk, self.shape, strict=True))

    def read(self, box: Box) -> npt.NDArray[Any]:
        check_inside(box, self.shape)
        return np.ascontiguousarray(self.volume.read(box), dtype=self.dtype)

    def identity(self) -> dict[str, Any]:
        return identify(self.volume)


def _is_zarr(folder: Path) -> bool:
    named = folder.suffix == ".zarr" or any((folder / name).exists() for name in ZARR_FILES)
    return named or find_layer(str(folder)) is not None


def _open_zarr(
    location: str, *, axes: str | None, channel: int | None, level: str | None
) -> ZarrSource:
    return ZarrSource(open_volume(location, axes=axes, channel=channel, level=level))
