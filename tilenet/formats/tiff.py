"""TIFF files as arrays of which any part can be read.

tifffile understands the file; the stored bytes are read here, one strip or tile at a time, because
tifffile fills in zeros for what a file lacks, and a volume must not go dark in silence. For the
same reason the errors that it only logs are heard and raised. Values are given as stored: no
colour map, and no inversion of images in which 0 is white.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tilenet.errors import AmbiguousVolume, UnreadableVolume, one_line
from tilenet.formats.axes import StoredArray, check_values
from tilenet.formats.channel_names import tiff_channel_names
from tilenet.formats.voxel_size import tiff_voxel_size

_CURE = "Copy it again, or open it in Fiji and save it anew"

#: Errors about single tags and counts. Where they matter, a strip is missing and reading it fails;
#: other files with sloppy tags are sound.
_HARMLESS = ("TiffTag", "ByteCounts", "StripOffsets")


class _Complaints(logging.Handler):
    """Hears the errors that tifffile logs, thread by thread."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._heard = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        getattr(self._heard, "messages", []).append(record.getMessage())

    @contextlib.contextmanager
    def listen(self) -> Iterator[list[str]]:
        messages: list[str] = []
        self._heard.messages = messages
        try:
            yield messages
        finally:
            del self._heard.messages


_complaints = _Complaints()
logging.getLogger("tifffile").addHandler(_complaints)
logging.getLogger("tifffile").propagate = False  # users see our errors, not its log


def open_tiff(path: str, inner: str | None = None) -> StoredArray:
    """Open the one image of a TIFF file."""
    del inner
    with contextlib.ExitStack() as stack:
        with _complaints.listen() as messages:
            file = stack.enter_context(tifffile.TiffFile(path))
            images = file.series
        _check_sound(path, messages)
        array = _stored(path, file, _only_image(path, images))
        stack.pop_all()  # from here on the pages keep the file open
    return array


def _stored(path: str, file: tifffile.TiffFile, image: Any) -> StoredArray:
    page = image.keyframe
    check_values(path, image.shape, page.dtype)
    _check_decodable(path, page)
    names, sizes = _without_singletons(image)
    leading = sizes[: len(sizes) - page.ndim]
    _check_pages(path, image, names, leading)
    # Uncompressed rows can be read alone; a compressed strip or tile is one piece.
    inside = () if page.is_final else page.chunks
    pieces = (*(1 for _ in sizes[len(inside) :]), *inside)
    return StoredArray(
        sizes,
        image.dtype,
        tuple(min(p, n) for p, n in zip(pieces, sizes, strict=True)),
        _Pages(file, image, leading).read,
        names,
        tiff_voxel_size(file),
        channels=tiff_channel_names(file),
    )


def _check_sound(path: str, messages: Sequence[str]) -> None:
    serious = [text for text in messages if not any(part in text for part in _HARMLESS)]
    if serious:
        raise UnreadableVolume(path, f"is damaged or cut off: {one_line(serious[0])}", _CURE)


def _only_image(path: str, images: Sequence[Any]) -> Any:
    if not images:
        raise UnreadableVolume(path, "holds no image", _CURE)
    if len(images) > 1:
        seen = tuple(" x ".join(map(str, image.shape)) for image in images[:20])
        cure = "Save the one that you mean as a file of its own"
        raise AmbiguousVolume(path, f"holds {len(images)} images", seen, cure)
    return images[0]


class _Pages:
    """Reads any part of any page; keeps the file open as long as it lives."""

    def __init__(self, file: tifffile.TiffFile, image: Any, leading: tuple[int, ...]) -> None:
        self._file = file
        self._image = image
        self._page = image.keyframe
        self._leading = leading
        planes, _, height, width, samples = image.keyframe.shaped
        self._page_shape = (planes, height, width, samples)
        self._dtype = image.dtype
        self._lock = threading.Lock()  # guards the file position, which finding a page moves

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
        start = self._image.dataoffset
        if start:  # 0 stands for pages that were never written
            return self._read_rows(number, start + number * self._page.nbytes, region, target)
        with self._lock:
            page = self._image[number]
        if page is None:
            raise ValueError(f"page {number} is not in the file")
        if self._page.is_final and _is_one_run(page):
            return self._read_rows(number, page.dataoffsets[0], region, target)
        return self._read_segments(number, page, region, target)

    def _read_rows(
        self, number: int, start: int, region: Sequence[slice], target: npt.NDArray[Any]
    ) -> None:
        planes, rows, columns, samples = region
        _, height, width, per_pixel = self._page_shape
        dtype = self._dtype.newbyteorder(self._file.byteorder)
        pixel = per_pixel * dtype.itemsize
        # Whole rows lie together in the file; parts of rows are read one by one.
        whole = columns == slice(0, width)
        step = max(rows.stop - rows.start, 1) if whole else 1
        for plane, row in itertools.product(
            range(planes.start, planes.stop), range(rows.start, rows.stop, step)
        ):
            offset = start + ((plane * height + row) * width + columns.start) * pixel
            count = step * (columns.stop - columns.start)
            values = np.frombuffer(self._bytes(number, offset, count * pixel), dtype)
            top = row - rows.start
            into = target[plane - planes.start, top : top + step]
            into[...] = values.reshape(*into.shape[:2], per_pixel)[..., samples]

    def _read_segments(
        self, number: int, page: Any, region: Sequence[slice], target: npt.NDArray[Any]
    ) -> None:
        planes, rows, columns, samples = region
        height, width = self._page.chunks[:2]
        down, across = (
            math.ceil(n / step)
            for n, step in zip(self._page_shape[1:3], (height, width), strict=True)
        )
        for plane, i, j in itertools.product(
            range(planes.start, planes.stop),
            range(rows.start // height, math.ceil(rows.stop / height)),
            range(columns.start // width, math.ceil(columns.stop / width)),
        ):
            values = self._decode(number, page, (plane * down + i) * across + j)
            y, into_y = _overlap(rows, i * height, height)
            x, into_x = _overlap(columns, j * width, width)
            into = target[plane - planes.start, into_y, into_x]
            found = values[y, x, samples]
            if found.shape != into.shape:  # NumPy would repeat a single row
                raise ValueError(f"page {number} has a strip or tile that is too small")
            into[...] = found

    def _decode(self, number: int, page: Any, index: int) -> npt.NDArray[Any]:
        offset, count = (
            values[index] if index < len(values) else 0
            for values in (page.dataoffsets, page.databytecounts)
        )
        if not offset or not count:
            raise ValueError(f"page {number} lacks the bytes of strip or tile {index}")
        values, *_ = self._page.decode(
            self._bytes(number, offset, count),
            index,
            jpegtables=page.jpegtables,
            jpegheader=self._page.jpegheader,
        )
        return np.asarray(values[0])

    def _bytes(self, number: int, offset: int, count: int) -> bytes:
        # pread leaves the file position alone, and gives at most 2 GiB a call.
        parts = []
        while count > 0:
            part = os.pread(self._file.filehandle.fileno(), count, offset)
            if not part:
                raise ValueError(f"page {number} is cut off: the file ends {count} bytes too early")
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _without_singletons(image: Any) -> tuple[str, tuple[int, ...]]:
    axes, sizes = image.get_axes(squeeze=False), image.get_shape(squeeze=False)
    kept = [(a, n) for a, n in zip(axes, sizes, strict=True) if n > 1 or a in "YX"]
    return "".join(a for a, _ in kept), tuple(n for _, n in kept)


def _overlap(wanted: slice, start: int, size: int) -> tuple[slice, slice]:
    low, high = max(wanted.start, start), min(wanted.stop, start + size)
    return slice(low - start, high - start), slice(low - wanted.start, high - wanted.start)


def _is_one_run(page: Any) -> bool:
    counts, offsets = page.databytecounts, page.dataoffsets
    runs = itertools.accumulate(counts[:-1], initial=offsets[0] if offsets else -1)
    return bool(offsets) and offsets[0] > 0 and list(runs) == list(offsets)


def _check_decodable(path: str, page: Any) -> None:
    if page.imagedepth > 1:
        cure = "Save it as a stack of pages"
        raise UnreadableVolume(path, "is a volumetric TIFF, with several sections a page", cure)
    try:
        # tifffile looks for a decoder when asked for it by the tag's value.
        _ = tifffile.TIFF.DECOMPRESSORS[page.compression]
        _ = tifffile.TIFF.UNPREDICTORS[page.predictor]
    except KeyError as error:
        name = getattr(page.compression, "name", page.compression)
        problem = f"is compressed with {name}, which no installed library decodes"
        cure = "Save it with Deflate compression or none"
        if importlib.util.find_spec("imagecodecs") is None:
            problem = f"is compressed with {name}, which needs the package imagecodecs"
            cure = "Install it: pip install 'tilenet[tiff]'"
        raise UnreadableVolume(path, problem, cure) from error


def _check_pages(path: str, image: Any, names: str, leading: tuple[int, ...]) -> None:
    if image.is_multifile or image.transform is not None:
        cure = "Save it as one plain TIFF file, for example in Fiji"
        raise UnreadableVolume(path, "is one of several files of an image, or a format apart", cure)
    page, expected = image.keyframe, math.prod(leading)
    own = names[len(leading) :]
    alike = len(own) == page.ndim and all(
        a == b or {a, b} == {"S", "C"} for a, b in zip(own, page.axes, strict=True)
    )
    if not alike:
        problem = f"describes its axes as {names}, but has pages of {page.axes}"
        raise UnreadableVolume(path, problem, _CURE)
    if image.dataoffset:  # all pages are one run of bytes, whose headers need not be there
        return
    if len(image) != expected or not _has_last_page(image):
        problem = f"describes {expected} pages, but holds others or fewer"
        raise UnreadableVolume(path, problem, _CURE)


def _has_last_page(image: Any) -> bool:
    if image.kind == "ome":
        return all(page is not None for page in image)
    try:
        return image[len(image) - 1] is not None
    except IndexError:
        return False
