"""The pages of one image in TIFF files, read by parts.

tifffile understands the file; the stored bytes are read here, one strip or tile at a time, because
tifffile fills in zeros for what a file lacks, and a volume must not go dark in silence.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tilenet.formats.tiff_images import Image


@dataclass(frozen=True)
class _Page:
    """A page in an open file."""

    number: int
    page: Any  # tifffile's
    descriptor: int

    def bytes(self, offset: int, count: int) -> bytes:
        # pread leaves the file position alone, and gives at most 2 GiB a call.
        parts = []
        while count > 0:
            part = os.pread(self.descriptor, count, offset)
            if not part:
                raise ValueError(
                    f"page {self.number} is cut off: the file ends {count} bytes too early"
                )
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Pages:
    """Reads any part of any page; keeps the file open as long as it lives."""

    def __init__(self, file: tifffile.TiffFile, image: Image) -> None:
        self._file = file
        self._image = image
        self._leading = image.leading
        planes, _, height, width, samples = image.page.shaped
        self._page_shape = (planes, height, width, samples)
        self._dtype = image.series.dtype
        self._lock = threading.Lock()  # guards the file position, which finding a page moves
        # The other files of the image, each opened while a page of it is read.
        self._others = {path: _version(path) for path in files_of(image)}

    def __del__(self) -> None:
        self._file.close()

    def read(self, ranges: Sequence[slice]) -> npt.NDArray[Any]:
        count = len(self._leading)
        pages = np.arange(math.prod(self._leading)).reshape(self._leading)
        numbers = pages[tuple(ranges[:count])].ravel().tolist()
        region = self._region(ranges[count:])
        out = np.empty((len(numbers), *(r.stop - r.start for r in region)), self._dtype)
        for target, number in zip(out, numbers, strict=True):
            self._read_page(number, region, target)
        return out.reshape([r.stop - r.start for r in ranges])

    def _region(self, inside: Sequence[slice]) -> tuple[slice, ...]:
        # (plane, y, x, sample) of a page, of which most have one plane and one sample.
        if len(inside) == 2:
            return slice(0, 1), *inside, slice(0, 1)
        return (slice(0, 1), *inside) if self._page_shape[0] == 1 else (*inside, slice(0, 1))

    def _read_page(self, number: int, region: Sequence[slice], target: npt.NDArray[Any]) -> None:
        first, start = self._image.page, self._image.series.dataoffset
        if start and not self._others and not self._image.pages:  # 0: pages never written
            found = _Page(number, first, self._file.filehandle.fileno())
            return self._read_rows(found, start + number * first.nbytes, region, target)
        page = self._find(number)
        with self._descriptor(page) as descriptor:
            found = _Page(number, page, descriptor)
            if page.keyframe.is_final and _is_one_run(page):
                return self._read_rows(found, page.dataoffsets[0], region, target)
            return self._read_segments(found, region, target)

    def _find(self, number: int) -> Any:
        if self._image.pages:
            return self._image.pages[number]
        with self._lock:
            page = self._image.series[number]
        if page is None:
            raise ValueError(f"page {number} is not in the file")
        return page

    @contextlib.contextmanager
    def _descriptor(self, page: Any) -> Iterator[int]:
        path = page.parent.filehandle.path
        if path not in self._others:
            yield self._file.filehandle.fileno()
            return
        with Path(path).open("rb") as file:
            if _version(path) != self._others[path]:
                raise ValueError(f"{path} has changed since it was opened")
            yield file.fileno()

    def _read_rows(
        self, found: _Page, start: int, region: Sequence[slice], target: npt.NDArray[Any]
    ) -> None:
        planes, rows, columns, samples = region
        _, height, width, per_pixel = self._page_shape
        dtype = self._dtype.newbyteorder(found.page.parent.byteorder)
        pixel = per_pixel * dtype.itemsize
        # Whole rows lie together in the file; parts of rows are read one by one.
        whole = columns == slice(0, width)
        step = max(rows.stop - rows.start, 1) if whole else 1
        for plane, row in itertools.product(
            range(planes.start, planes.stop), range(rows.start, rows.stop, step)
        ):
            offset = start + ((plane * height + row) * width + columns.start) * pixel
            count = step * (columns.stop - columns.start)
            values = np.frombuffer(found.bytes(offset, count * pixel), dtype)
            top = row - rows.start
            into = target[plane - planes.start, top : top + step]
            into[...] = values.reshape(*into.shape[:2], per_pixel)[..., samples]

    def _read_segments(
        self, found: _Page, region: Sequence[slice], target: npt.NDArray[Any]
    ) -> None:
        planes, rows, columns, samples = region
        height, width = found.page.keyframe.chunks[:2]
        down, across = (
            math.ceil(n / step)
            for n, step in zip(self._page_shape[1:3], (height, width), strict=True)
        )
        for plane, i, j in itertools.product(
            range(planes.start, planes.stop),
            range(rows.start // height, math.ceil(rows.stop / height)),
            range(columns.start // width, math.ceil(columns.stop / width)),
        ):
            values = _decode(found, (plane * down + i) * across + j)
            y, into_y = _overlap(rows, i * height, height)
            x, into_x = _overlap(columns, j * width, width)
            into = target[plane - planes.start, into_y, into_x]
            part = values[y, x, samples]
            if part.shape != into.shape:  # NumPy would repeat a single row
                raise ValueError(f"page {found.number} has a strip or tile that is too small")
            into[...] = part


def files_of(image: Image) -> list[str]:
    """Give all files that an image lies in where it is not the one that was opened alone."""
    series = image.series
    if series.kind != "ome":
        return []
    pages = [page for page in series if page is not None]
    paths = list(dict.fromkeys(page.parent.filehandle.path for page in pages))
    return [] if paths == [series.parent.filehandle.path] else paths


def _version(path: str) -> tuple[int, ...]:
    found = Path(path).stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _decode(found: _Page, index: int) -> npt.NDArray[Any]:
    page = found.page
    offset, count = (
        values[index] if index < len(values) else 0
        for values in (page.dataoffsets, page.databytecounts)
    )
    if not offset or not count:
        raise ValueError(f"page {found.number} lacks the bytes of strip or tile {index}")
    values, *_ = page.keyframe.decode(
        found.bytes(offset, count),
        index,
        jpegtables=page.jpegtables,
        jpegheader=page.keyframe.jpegheader,
    )
    return np.asarray(values[0])


def _overlap(wanted: slice, start: int, size: int) -> tuple[slice, slice]:
    low, high = max(wanted.start, start), min(wanted.stop, start + size)
    return slice(low - start, high - start), slice(low - wanted.start, high - wanted.start)


def _is_one_run(page: Any) -> bool:
    counts, offsets = page.databytecounts, page.dataoffsets
    runs = itertools.accumulate(counts[:-1], initial=offsets[0] if offsets else -1)
    return bool(offsets) and offsets[0] > 0 and list(runs) == list(offsets)
