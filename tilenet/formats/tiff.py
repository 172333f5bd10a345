"""TIFF files as arrays of which any part can be read.

The errors that tifffile only logs are heard and raised: a volume must not go dark in silence.
Values are given as stored: no colour map, and no inversion of images in which 0 is white.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import tifffile

from tilenet.errors import UnreadableVolume, one_line
from tilenet.formats.axes import StoredArray, check_values
from tilenet.formats.ome_files import open_whole
from tilenet.formats.tiff_geometry import stated_channels, tiff_geometry
from tilenet.formats.tiff_images import Image, choose_image
from tilenet.formats.tiff_pages import Pages, files_of

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
    """Open the image with that number of a TIFF file, or the one that it holds."""
    with contextlib.ExitStack() as stack:
        with _complaints.listen() as messages:
            file = stack.enter_context(open_whole(path))
            images = file.series
        _check_sound(path, messages)
        array = _stored(path, file, choose_image(path, images, inner))
        stack.pop_all()  # from here on the pages keep the file open
    return array


def _stored(path: str, file: tifffile.TiffFile, image: Image) -> StoredArray:
    page, series, sizes = image.page, image.series, image.sizes
    check_values(path, sizes, page.dtype)
    _check_pages(path, image)
    for keyframe in image.keyframes:
        _check_decodable(path, keyframe)
    found = tiff_geometry(file, image.index)
    # Uncompressed rows can be read alone; a compressed strip or tile is one piece.
    inside = () if page.is_final else page.chunks
    pieces = (*(1 for _ in sizes[len(inside) :]), *inside)
    return StoredArray(
        sizes,
        series.dtype,
        tuple(min(p, n) for p, n in zip(pieces, sizes, strict=True)),
        Pages(file, image).read,
        image.names,
        found.voxel_size,
        found.translation,
        (*found.notes, *_unread_pages(file, image)),
        channels=stated_channels(file, image.index),
        pixel_size=found.pixel_size,
        files=tuple(files_of(image)),
    )


def _check_sound(path: str, messages: Sequence[str]) -> None:
    serious = [text for text in messages if not any(part in text for part in _HARMLESS)]
    if serious:
        raise UnreadableVolume(path, f"is damaged or cut off: {one_line(serious[0])}", _CURE)


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


def _check_pages(path: str, image: Image) -> None:
    series, page = image.series, image.page
    if series.transform is not None or (series.is_multifile and series.kind != "ome"):
        cure = "Save it as one plain TIFF file, for example in Fiji"
        raise UnreadableVolume(path, "is one of several files of an image, or a format apart", cure)
    expected, own = math.prod(image.leading), image.sizes[len(image.leading) :]
    if own != page.shape:
        problem = f"describes its axes as {image.names}, but has pages of {page.axes} {page.shape}"
        raise UnreadableVolume(path, problem, _CURE)
    for other in image.keyframes:
        if (other.shaped, other.dtype) != (page.shaped, page.dtype):
            there = other.parent.filehandle.path
            problem = f"has pages of {other.shape} {other.dtype}, and of {page.shape} {page.dtype}"
            raise UnreadableVolume(there, problem, _CURE)
    if image.pages:
        return
    if series.dataoffset:  # all pages are one run of bytes, whose headers need not be there
        _check_run(path, image)
    elif len(series) != expected or not _has_last_page(series):
        problem = f"describes {expected} pages, but holds others or fewer"
        raise UnreadableVolume(path, problem, _CURE)


def _check_run(path: str, image: Image) -> None:
    """Refuse a run of pages that its description counts in a way that is not understood."""
    page = image.page
    described = (page.parent.imagej_metadata or {}).get("images", 1)
    size = page.parent.filehandle.size
    if (
        image.series.kind == "imagej"
        and described > len(image.series)
        and page.dataoffsets[0] + described * page.nbytes <= size
    ):
        problem = f"describes {described} images, of which only {len(image.series)} are understood"
        raise UnreadableVolume(path, problem, _CURE)


def _unread_pages(file: tifffile.TiffFile, image: Image) -> list[str]:
    """Say that a description leaves pages out, which a program may have appended."""
    if image.series.kind not in ("ome", "imagej") or image.series.is_multifile:
        return []
    count, seen = len(file.pages), sum(len(series) for series in file.series)
    left = count - seen
    named = "1 page" if left == 1 else f"{left} pages"
    return [f"It holds {named} that its description leaves out."] if left > 0 else []


def _has_last_page(image: Any) -> bool:
    if image.kind == "ome":
        return all(page is not None for page in image)
    try:
        return image[len(image) - 1] is not None
    except IndexError:
        return False
