"""TIFF files give the voxels that are in them, and what is missing is never read as zeros."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.support.source_checks import (
    SHAPE,
    WHOLE,
    Array,
    Writer,
    check,
    cut,
    random_values,
    refused,
)
from tilenet.errors import AmbiguousVolume, UnreadableBlock, UnreadableVolume
from tilenet.formats import open_source
from tilenet.geometry import Box


def tiff(**options: Any) -> Writer:
    def write(folder: Path, truth: Array) -> str:
        path = folder / "em.tif"
        tifffile.imwrite(path, truth, **options)
        return str(path)

    return write


def tiff_pages(**options: Any) -> Writer:
    def write(folder: Path, truth: Array) -> str:
        with tifffile.TiffWriter(folder / "em.tiff", bigtiff=options.pop("bigtiff", False)) as file:
            for section in truth:
                file.write(section, contiguous=False, metadata=None, **options)
        return str(folder / "em.tiff")

    return write


def pillow_tiff(**options: Any) -> Writer:
    def write(folder: Path, truth: Array) -> str:
        first, *others = (Image.fromarray(section) for section in truth)
        first.save(folder / "em.tif", save_all=True, append_images=others, **options)
        return str(folder / "em.tif")

    return write


TIFFS: dict[str, tuple[str, Writer]] = {
    "plain": ("uint8", tiff()),
    "without metadata": ("uint8", tiff(metadata=None)),
    "big": ("uint16", tiff(bigtiff=True)),
    "big endian": ("uint16", tiff(byteorder=">")),
    "big endian deflate": ("int32", tiff(byteorder=">", compression="zlib", predictor=True)),
    "separate pages": ("uint8", tiff_pages()),
    "separate pages of strips": ("float32", tiff_pages(rowsperstrip=4)),
    "separate pages, big": ("uint8", tiff_pages(bigtiff=True, compression="zlib")),
    "lzw strips": ("uint8", tiff(compression="lzw", rowsperstrip=5)),
    "lzw predictor": ("uint16", tiff(compression="lzw", predictor=True, rowsperstrip=16)),
    "deflate tiles": ("uint16", tiff(compression="zlib", tile=(16, 32), predictor=True)),
    "plain tiles": ("int16", tiff(tile=(16, 16))),
    "zstd": ("uint8", tiff(compression="zstd")),
    "packbits": ("uint8", tiff(compression="packbits")),
    "float predictor": ("float32", tiff(compression="zlib", predictor=3)),
    "float16": ("float16", tiff()),
    "float64": ("float64", tiff(rowsperstrip=3)),
    "int8": ("int8", tiff()),
    "uint64": ("uint64", tiff()),
    "one bit": ("bool", tiff()),
    "one bit deflate": ("bool", tiff(compression="zlib", rowsperstrip=10)),
    "one bit fax": ("bool", pillow_tiff(compression="group4")),
    "by libtiff": ("uint8", pillow_tiff()),
    "by libtiff, lzw": ("uint8", pillow_tiff(compression="tiff_lzw")),
    "imagej": ("uint16", tiff(imagej=True, metadata={"axes": "ZYX"})),
    "imagej deflate": ("uint8", tiff(imagej=True, compression="zlib", metadata={"axes": "ZYX"})),
    "ome": ("uint8", tiff(ome=True, metadata={"axes": "ZYX"})),
    "ome tiles": (
        "uint8",
        tiff(ome=True, tile=(16, 16), compression="lzw", metadata={"axes": "ZYX"}),
    ),
}


@pytest.mark.parametrize("case", TIFFS)
def test_tiff_gives_its_voxels(tmp_path: Path, case: str) -> None:
    dtype, write = TIFFS[case]
    truth = random_values(dtype)
    check(open_source(write(tmp_path, truth)), truth)


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 8}])
def test_jpeg_tiff_gives_what_tifffile_decodes(tmp_path: Path, options: dict[str, Any]) -> None:
    location = tiff(compression="jpeg", **options)(tmp_path, random_values("uint8"))
    check(open_source(location), tifffile.imread(location))


@pytest.mark.parametrize("case", [0, 1, 2])
def test_colours_are_read_one_channel_at_a_time(tmp_path: Path, case: int) -> None:
    contiguous = random_values("uint8", (*SHAPE, 3))
    planes = np.ascontiguousarray(np.moveaxis(contiguous, -1, 1))
    storages: list[dict[str, Any]] = [{}, {"compression": "zlib", "tile": (16, 16)}]
    for options in [*storages, {"compression": "lzw"}]:
        location = tiff(photometric="rgb", **options)(tmp_path, contiguous)
        check(open_source(location, channel=case), contiguous[..., case])
        location = tiff(photometric="rgb", planarconfig="separate", **options)(tmp_path, planes)
        check(open_source(location, channel=case), contiguous[..., case])


@pytest.mark.parametrize("flavour", [{"imagej": True}, {"ome": True}, {"compression": "zlib"}])
def test_channels_beside_sections(tmp_path: Path, flavour: dict[str, Any]) -> None:
    truth = random_values("uint8", (7, 2, 33, 50))
    location = tiff(**flavour, metadata={"axes": "ZCYX"})(tmp_path, truth)
    check(open_source(location, channel=1), truth[:, 1])


@pytest.mark.parametrize("flavour", [{"imagej": True}, {"ome": True}, {}])
def test_axes_of_length_one_are_dropped(tmp_path: Path, flavour: dict[str, Any]) -> None:
    truth = random_values("uint8", (1, 7, 1, 33, 50))
    location = tiff(**flavour, metadata={"axes": "TZCYX"})(tmp_path, truth)
    check(open_source(location), truth[0, :, 0])


def test_one_page_is_one_section(tmp_path: Path) -> None:
    truth = random_values("uint16")[:1]
    check(open_source(tiff()(tmp_path, truth[0])), truth)


def test_axes_given_by_the_user_win(tmp_path: Path) -> None:
    truth = random_values("uint8")
    as_time = tiff(imagej=True, metadata={"axes": "TYX"})(tmp_path, truth)
    check(open_source(as_time, axes="zyx"), truth)
    check(open_source(as_time, axes="yzx"), truth.transpose(1, 0, 2))
    check(open_source(as_time, axes="xyz"), truth.transpose(2, 1, 0))
    check(open_source(as_time, axes="cyx", channel=4), truth[4:5])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_section_costs_the_bytes_of_that_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str | None
) -> None:
    truth = random_values("uint8", (1000, 64, 64))
    source = open_source(tiff(compression=compression)(tmp_path, truth))
    read = []
    pread = os.pread

    def counted(descriptor: int, count: int, offset: int) -> bytes:
        read.append(count)
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", counted)
    assert np.array_equal(source.read(Box((700, 0, 0), (701, 64, 64))), truth[700:701])
    assert 0 < sum(read) <= 64 * 64


def test_pieces_are_what_is_decoded_at_once(tmp_path: Path) -> None:
    truth = random_values("uint8")
    cases: list[tuple[dict[str, Any], tuple[int, int, int]]] = [
        ({}, (1, 1, 1)),
        ({"compression": "zlib"}, (1, 33, 50)),
        ({"compression": "zlib", "rowsperstrip": 8}, (1, 8, 50)),
        ({"compression": "zlib", "tile": (16, 32)}, (1, 16, 32)),
    ]
    for options, piece in cases:
        assert open_source(tiff(**options)(tmp_path, truth)).piece_shape == piece


# --- damaged TIFF ----------------------------------------------------------------------------


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A stack whose last page's strips are the last bytes of the file."""
    path = tmp_path / "em.tif"
    tifffile.imwrite(path, random_values("uint8"), compression="zlib", rowsperstrip=11)
    with tifffile.TiffFile(path) as file:
        last = file.pages[6]
        assert last.dataoffsets[-1] + last.databytecounts[-1] >= path.stat().st_size - 1
    return path


def check_only_end_is_lost(path: Path, match: str) -> None:
    source, truth = open_source(str(path)), random_values("uint8")
    sound = Box((0, 0, 0), (6, 33, 50))
    assert np.array_equal(source.read(sound), truth[:6])
    above = Box((0, 0, 0), (7, 22, 50))
    assert np.array_equal(source.read(above), truth[:, :22])
    with pytest.raises(UnreadableBlock, match=match) as caught:
        source.read(WHOLE)
    assert caught.value.path == str(path)
    assert caught.value.box == "z=0:7,y=0:33,x=0:50"


def test_a_page_that_is_cut_off_is_not_read_as_zeros(pages: Path) -> None:
    cut(pages, 20)
    check_only_end_is_lost(pages, r"page 6 is cut off: the file ends \d+ bytes too early")


def test_bytes_that_cannot_be_decoded(pages: Path) -> None:
    with pages.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\xa5" * 100)
    check_only_end_is_lost(pages, "cannot read z=0:7")


def test_strips_without_bytes_are_missing(pages: Path) -> None:
    with tifffile.TiffFile(pages, mode="r+") as file:
        page = file.pages[6]
        assert isinstance(page, tifffile.TiffPage)
        counts = page.tags["StripByteCounts"]
        counts.overwrite((*counts.value[:2], 0))
    check_only_end_is_lost(pages, "page 6 lacks the bytes of strip or tile 2")


def test_sparse_tiles_are_missing(tmp_path: Path) -> None:
    def tiles() -> Iterator[Array | None]:
        yield from [np.ones((16, 16), np.uint8), None, None, None]

    path = tmp_path / "em.tif"
    tifffile.imwrite(path, tiles(), shape=(32, 32), dtype=np.uint8, tile=(16, 16))
    source = open_source(str(path))
    assert source.read(Box((0, 0, 0), (1, 16, 16))).all()
    with pytest.raises(UnreadableBlock, match="page 0 lacks the bytes of strip or tile 1"):
        source.read(Box((0, 0, 0), (1, 16, 17)))


def test_uncompressed_pages_that_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "em.tif"
    with tifffile.TiffWriter(path) as file:
        for section in random_values("uint8"):
            file.write(section, contiguous=False, metadata=None)
    cut(path, 20)
    check_only_end_is_lost(path, "page 6 is cut off")


def read_or_refuse(path: Path) -> Array | None:
    try:
        return open_source(str(path)).read(WHOLE)
    except (UnreadableVolume, UnreadableBlock):
        return None


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"ome": True}, {"metadata": None}])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_no_cut_loses_sections_in_silence(
    tmp_path: Path, options: dict[str, Any], compression: str | None
) -> None:
    path, truth = tmp_path / "em.tif", random_values("uint8")
    if options.get("imagej") or options.get("ome"):
        options = {**options, "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(path, truth, compression=compression, **options)
    content = path.read_bytes()
    for size in range(1, len(content) - 1, len(content) // 25):
        path.write_bytes(content[:size])
        values = read_or_refuse(path)
        assert values is None or np.array_equal(values, truth)


def test_the_log_of_tifffile_does_not_reach_the_user(
    pages: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = BufferingHandler(1000)
    logging.getLogger().addHandler(handler)
    try:
        os.truncate(pages, pages.stat().st_size // 2)
        refused(pages, "is damaged or cut off")
    finally:
        logging.getLogger().removeHandler(handler)
    assert not handler.buffer
    assert capfd.readouterr() == ("", "")


WITHOUT_IMAGECODECS = """
import sys
sys.modules["imagecodecs"] = None
from tilenet.errors import UnreadableVolume
from tilenet.formats.source import open_source
from tilenet.geometry.box import Box
print(open_source(sys.argv[1]).read(Box((0, 0, 0), (7, 33, 50))).sum())
try:
    open_source(sys.argv[2])
except UnreadableVolume as error:
    print(error)
"""


def test_without_imagecodecs_the_error_names_the_extra(pages: Path) -> None:
    lzw = pages.with_name("lzw.tif")
    tifffile.imwrite(lzw, random_values("uint8"), compression="lzw")
    command = [sys.executable, "-c", WITHOUT_IMAGECODECS, str(pages), str(lzw)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert int(out[0]) == random_values("uint8").sum(dtype=int)
    assert "LZW, which needs the package imagecodecs" in out[1]
    assert "pip install 'tilenet[tiff]'" in out[1]


def several_images(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((3, 32, 32), np.uint8), photometric="minisblack")
        file.write(np.zeros((16, 16), np.uint8))


def volumetric(path: Path) -> None:
    values = np.zeros((16, 32, 32), np.uint8)
    tifffile.imwrite(path, values, volumetric=True, tile=(16, 16, 16))


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (several_images, r"2 images \(0: 3 x 32 x 32 uint8, 1: 16 x 16 uint8\)"),
        (volumetric, "volumetric"),
    ],
)
def test_tiff_layouts_that_are_refused(
    tmp_path: Path, write: Callable[[Path], None], match: str
) -> None:
    write(tmp_path / "em.tif")
    with pytest.raises((UnreadableVolume, AmbiguousVolume), match=match):
        open_source(str(tmp_path / "em.tif"))
