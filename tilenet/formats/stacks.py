"""Stacks: files one after the other along z, and what stands in for those that are missing."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import AmbiguousVolume, UnreadableBlock, UnreadableVolume
from tilenet.formats.files import (
    TIFF,
    FileSource,
    check_inside,
    fingerprint,
    identity_of_channels,
    identity_of_series,
    open_file,
    without_depth,
)
from tilenet.formats.ome_files import files_of_set
from tilenet.formats.section_numbers import Numbers, check_one_volume, numbers_in
from tilenet.geometry import ZYX, Box

#: What may be done about missing sections, in words.
MISSING = {
    "skip": "They are skipped.",
    "repeat": "The section before stands for each.",
    "blank": "They are blank, with values of 0.",
}

MISSING_ONE = {
    "skip": "It is skipped.",
    "repeat": "The section before stands for it.",
    "blank": "It is blank, with values of 0.",
}

_CHOICES = (
    "Say what to do about them: --missing skip (as if there were none), "
    "repeat (the section before) or blank (zeros)"
)

#: Where more are missing for each that is there, the numbers do not count sections.
_SPARSE = 10


#: A message lists at most so many voxel sizes.
_LISTED = 4


@dataclass(frozen=True)
class StackSource:
    """Files one after the other along z."""

    location: str  # what the user called it
    folder: str  # absolute path that all the names are relative to
    names: tuple[str | None, ...]  # the files, in order; None for a blank section
    stops: tuple[int, ...]  # for each file, the first section that is not in it or in one before it
    shape: ZYX  # voxels of the volume
    piece_shape: ZYX  # voxels of what is decoded as one piece
    dtype: np.dtype[Any]  # of the values that :meth:`read` gives
    # Nanometres, (z, y, x), when all files say the same.
    voxel_size: tuple[float, float, float] | None
    axes: str | None  # meaning of the axes in each file, as the user gave it
    channel: int | None  # channel to read
    # Nanometres, (z, y, x), of the first file.
    translation: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()  # what was assumed in opening them, a sentence each
    channels: tuple[str, ...] | None = None  # their names; None where it is seen as (z, y, x)
    series: int | None = None  # which of several images in each file, as the user gave it
    # What stands for missing sections, and the numbers of these, where it changes the values.
    missing: tuple[str, str] | None = None

    @property
    def kind(self) -> str:
        names = [name for name in self.names if name is not None]
        count, each = len(dict.fromkeys(names)), self._open(names[0]).kind
        return f"{count} files, from {names[0]} to {names[-1]}, the first {each}"

    @property
    def stored_axes(self) -> str:
        return self._open(self.names[0] or "").stored_axes

    def read(self, box: Box) -> npt.NDArray[Any]:
        check_inside(box, self.shape)
        leading = () if self.channels is None else (len(self.channels),)
        out = np.zeros((*leading, *box.shape), self.dtype)
        for index in range(bisect_right(self.stops, box.start[0]), len(self.stops)):
            start = self.stops[index - 1] if index else 0
            if start >= box.stop[0]:
                break
            name = self.names[index]
            if name is None:
                continue
            whole = Box((start, 0, 0), (self.stops[index], *self.shape[1:]))
            part = whole.intersect(box)
            values = self._open_part(name, whole).read(part.relative_to((start, 0, 0)))
            out[(..., *part.relative_to(box.start).slices)] = values
        return out

    def _open_part(self, name: str, whole: Box) -> FileSource:
        part = self._open(name)
        changed = part.shape != whole.shape or part.dtype != self.dtype
        if changed or len(part.channels or ()) != len(self.channels or ()):
            problem = "the file has changed since it was opened"
            raise UnreadableBlock(part.path, str(whole), problem)
        return part

    def _open(self, name: str) -> FileSource:
        path = str(Path(self.folder) / name)
        return open_file(path, axes=self.axes, channel=self.channel, series=self.series)

    def identity(self) -> dict[str, Any]:
        names = dict.fromkeys(name for name in self.names if name is not None)
        return {
            **identity_of_channels(self.channels),
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "axes": self.axes,
            "channel": self.channel,
            **identity_of_series(self.series),
            **({} if self.missing is None else {"missing": list(self.missing)}),
            "sha256_of_samples": fingerprint([str(Path(self.folder) / n) for n in names]),
        }


def open_stack(
    location: str,
    paths: Sequence[Path],
    *,
    is_folder: bool,
    axes: str | None,
    channel: int | None,
    series: int | None,
    missing: str | None,
) -> StackSource | FileSource:
    """Open files one after the other, or the one image that all of them hold together."""
    first = str(paths[0])
    if _are_one_image(location, paths):
        return open_file(first, location=location, axes=axes, channel=channel, series=series)
    folder = os.path.commonpath([path.parent for path in paths])
    names = [str(path.relative_to(folder)) for path in paths]
    parts = [open_file(str(p), axes=axes, channel=channel, series=series) for p in paths]
    for part in parts:
        _check_whole(part)
    if is_folder:  # a pattern is the user's word
        check_one_volume(location, names, [part.shape[0] for part in parts])
    for part in parts:
        _check_alike(parts[0], part)
    numbers = numbers_in(names, [part.shape[0] for part in parts])
    _check_complete(location, numbers, missing)
    filled, counts = _fill(location, names, parts, numbers, missing)
    stops = np.cumsum(counts).tolist()
    voxel_size, note = _size_of_all(parts, stops[-1])
    changes = bool(numbers.ranges) and missing in ("repeat", "blank")
    return StackSource(
        location,
        folder,
        tuple(filled),
        tuple(stops),
        shape=(stops[-1], *parts[0].shape[1:]),
        piece_shape=parts[0].piece_shape,
        dtype=parts[0].dtype,
        voxel_size=voxel_size,
        axes=axes,
        channel=channel,
        translation=parts[0].translation,
        notes=tuple(dict.fromkeys([*_notes(parts, numbers, missing), *note])),
        channels=parts[0].channels,
        series=series,
        missing=(missing, ", ".join(numbers.ranges)) if missing and changes else None,
    )


def _are_one_image(location: str, paths: Sequence[Path]) -> bool:
    """Tell whether files are those of one OME-TIFF; refuse them where others lie among them."""
    if paths[0].suffix.lower() not in TIFF:
        return False
    of_set = set(files_of_set(str(paths[0])))
    others = [path.name for path in paths if str(path) not in of_set]
    if of_set and others:
        seen = (f"{len(of_set)} files of one image", f"{len(others)} others, as {others[0]}")
        cure = "Give one of the files of the image, or a pattern of the others"
        raise AmbiguousVolume(location, "means an OME-TIFF in several files and more", seen, cure)
    return bool(of_set)


def _check_complete(location: str, numbers: Numbers, missing: str | None) -> None:
    if numbers.ranges and missing is None:
        problem = "lacks sections, by the numbers in the names of its files"
        raise AmbiguousVolume(location, problem, (f"missing: {numbers}",), _CHOICES)
    count = sum(numbers.missing)
    if missing in ("repeat", "blank") and count > _SPARSE * len(numbers.missing):
        problem = f"has {len(numbers.missing)} files, and {count} are missing by their numbers"
        raise UnreadableVolume(location, problem, "Skip what is missing: --missing skip")


def _fill(
    location: str,
    names: Sequence[str],
    parts: Sequence[FileSource],
    numbers: Numbers,
    missing: str | None,
) -> tuple[list[str | None], list[int]]:
    """List what is read for each stretch of sections, and how many these are."""
    filled: list[str | None] = []
    counts: list[int] = []
    for name, part, count in zip(names, parts, numbers.missing, strict=True):
        if count and missing in ("repeat", "blank"):
            if any(part.shape[0] > 1 for part in parts):
                problem = f"has files of several sections, so --missing {missing} has no meaning"
                raise UnreadableVolume(location, problem, "Put files in place of those that lack")
            filled += [filled[-1] if missing == "repeat" else None] * count
            counts += [1] * count
        filled.append(name)
        counts.append(part.shape[0])
    return filled, counts


def _notes(parts: Sequence[FileSource], numbers: Numbers, missing: str | None) -> tuple[str, ...]:
    notes = [*numbers.notes]
    if numbers.ranges and missing is not None:
        notes.append(_say_missing(numbers, missing))
    elif numbers.step > 1:
        notes.append(
            f"The numbers in the names of its files go in steps of {numbers.step}; "
            "no section is taken as missing."
        )
    return (*notes, *(note for part in parts for note in part.notes))


def _size_of_all(
    parts: Sequence[FileSource], sections: int
) -> tuple[tuple[float, float, float] | None, list[str]]:
    """Give the voxel size that all files state, and a note where they state none of use."""
    stated = list(
        dict.fromkeys((sections > 1 and part.pixel_size) or part.voxel_size for part in parts)
    )
    if len(stated) == 1:
        size = parts[0].voxel_size
        pixel_size = parts[0].pixel_size if sections > 1 else None
        return (size, []) if pixel_size is None else (None, [without_depth(pixel_size)])
    said = [" x ".join(f"{nm:.6g}" for nm in size) if size else "none" for size in stated]
    said = [*said[:_LISTED], *(["..."] if len(said) > _LISTED else [])]
    return None, [f"Its files state different voxel sizes: {', '.join(said)} (nm); none is used."]


def _say_missing(numbers: Numbers, missing: str) -> str:
    if sum(numbers.missing) == 1:
        return f"Section {numbers} is missing. {MISSING_ONE[missing]}"
    return f"Sections {numbers} are missing. {MISSING[missing]}"


def _check_whole(part: FileSource) -> None:
    if part.files:
        problem = "is one of several files of an image"
        raise UnreadableVolume(part.path, problem, "Give that file alone, or only such sections")


def _check_alike(first: FileSource, part: FileSource) -> None:
    if _sections(part) == _sections(first):
        return
    seen, wanted = _sections(part), _sections(first)
    problem = f"has sections of {seen}, but {first.path}, which comes first, has {wanted}"
    raise UnreadableVolume(part.path, problem, "Give sections of one size and data type")


def _sections(part: FileSource) -> str:
    channels = "" if part.channels is None else f" of {len(part.channels)} channels"
    return f"{part.shape[1]} x {part.shape[2]} (y, x) {part.dtype}{channels}"
