"""Which images a TIFF file holds, what its axes are, by values."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.support.source_checks import Array, ambiguous, check, random_values, refused
from tilenet.errors import UnreadableBlock
from tilenet.formats import open_source
from tilenet.geometry import Box

TRUTH = random_values("uint8")


# -- axes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [f"{''.join(p)}YX" for p in itertools.permutations("TZC")])
def test_the_order_of_dimensions_of_ome_is_obeyed(tmp_path: Path, order: str) -> None:
    sizes = {"T": 1, "Z": 5, "C": 2, "Y": 9, "X": 11}
    values = random_values("uint16", tuple(sizes[axis] for axis in order))
    path = tmp_path / "em.ome.tif"
    tifffile.imwrite(path, values, ome=True, metadata={"axes": order}, photometric="minisblack")
    czyx = np.einsum(f"{order.lower()}->tczyx", values)[0]
    for channel in (0, 1):
        check(open_source(str(path), channel=channel), czyx[channel])


@pytest.mark.parametrize("axes", ["CZYX", "ZCYX", "YXZ", "XYZ", "YXCZ"])
def test_axes_that_tifffile_stored_are_obeyed(tmp_path: Path, axes: str) -> None:
    sizes = {"Z": 5, "C": 2, "Y": 9, "X": 11}
    values = random_values("uint16", tuple(sizes[axis] for axis in axes))
    path = tmp_path / "em.tif"
    tifffile.imwrite(path, values, metadata={"axes": axes}, photometric="minisblack")
    letters = axes.lower()
    if "C" in axes:
        expected = np.einsum(f"{letters}->czyx", values)[1]
        check(open_source(str(path), channel=1), expected)
    else:
        check(open_source(str(path)), np.einsum(f"{letters}->zyx", values))


def imagej_pages(path: Path, pages: Array, description: str) -> None:
    """Write pages as ImageJ does, with a description of our own."""
    with tifffile.TiffWriter(path) as file:
        for i, page in enumerate(pages):
            described = f"ImageJ=1.54f\n{description}" if i == 0 else None
            file.write(page, description=described, metadata=None, contiguous=False)


@pytest.mark.parametrize(
    ("description", "sizes"),
    [
        ("images=12\nchannels=2\nslices=6\nhyperstack=true\n", (6, 2)),
        ("images=12\nslices=12\n", (12,)),
        ("images=12\n", (12,)),
    ],
)
def test_channels_slices_and_frames_of_imagej(
    tmp_path: Path, description: str, sizes: tuple[int, ...]
) -> None:
    pages = random_values("uint8", (12, 9, 11))
    imagej_pages(tmp_path / "em.tif", pages, description)
    expected = pages.reshape(*sizes, 9, 11)
    if len(sizes) == 2:
        for channel in (0, 1):
            check(open_source(f"{tmp_path}/em.tif", channel=channel), expected[:, channel])
    else:
        check(open_source(f"{tmp_path}/em.tif"), expected)


def test_colours_of_sections_in_ome_and_imagej(tmp_path: Path) -> None:
    values = random_values("uint8", (5, 9, 11, 3))
    for flavour in ("ome", "imagej"):
        path = tmp_path / f"{flavour}.tif"
        options: dict[str, Any] = {"metadata": {"axes": "ZYXS"}, flavour: True}
        tifffile.imwrite(path, values, photometric="rgb", **options)
        for channel in range(3):
            check(open_source(str(path), channel=channel), values[..., channel])


def test_pages_that_a_description_leaves_out_are_said(tmp_path: Path) -> None:
    path = tmp_path / "em.tif"
    tifffile.imwrite(path, TRUTH[:5], imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffWriter(path, append="force") as file:
        file.write(TRUTH[5:6], metadata=None)
    source = open_source(str(path))
    check(source, TRUTH[:5])
    assert source.notes == ("It holds 1 page that its description leaves out.",)


def test_a_run_of_images_whose_count_is_not_understood_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "em.tif"
    tifffile.imwrite(path, TRUTH[0], description="ImageJ=1.54f\nimages=7\n", metadata=None)
    with path.open("ab") as file:
        file.write(TRUTH[1:].tobytes())
    refused(path, "describes 7 images, of which only 1")


# -- pages that were appended ---------------------------------------------------------------------


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_appended_one_by_one_are_a_stack(
    tmp_path: Path, bigtiff: bool, compression: str | None
) -> None:
    for section in TRUTH:
        path = tmp_path / "em.tif"
        tifffile.imwrite(path, section, append=True, bigtiff=bigtiff, compression=compression)
    source = open_source(f"{tmp_path}/em.tif")
    check(source, TRUTH)
    assert source.notes == ()
    assert "series" not in source.identity()


def test_appended_pages_may_be_stored_in_several_ways(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"compression": "zlib", "rowsperstrip": 4},
        {"tile": (16, 16)},
        {"compression": "zlib", "predictor": True},
    ]
    described: list[dict[str, Any] | None] = [{}, None]
    for metadata in described:
        path = tmp_path / f"{metadata}.tif"
        for section, way in zip(TRUTH, itertools.cycle(ways)):
            tifffile.imwrite(path, section, append=True, metadata=metadata, **way)
        check(open_source(str(path)), TRUTH)


def test_appended_colour_pages_are_a_stack(tmp_path: Path) -> None:
    values = random_values("uint8", (5, 9, 11, 3))
    for section in values:
        tifffile.imwrite(tmp_path / "em.tif", section, append=True, photometric="rgb")
    for channel in range(3):
        check(open_source(f"{tmp_path}/em.tif", channel=channel), values[..., channel])


def test_a_section_of_appended_pages_costs_the_bytes_of_that_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for section in TRUTH:
        tifffile.imwrite(tmp_path / "em.tif", section, append=True)
    source = open_source(f"{tmp_path}/em.tif")
    read, pread = [], os.pread

    def counted(descriptor: int, count: int, offset: int) -> bytes:
        read.append(count)
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", counted)
    assert np.array_equal(source.read(Box((4, 0, 0), (5, 33, 50))), TRUTH[4:5])
    assert sum(read) == 33 * 50


def test_a_cut_in_appended_pages_is_not_read_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "em.tif"
    for section in TRUTH:
        tifffile.imwrite(path, section, append=True)
    with tifffile.TiffFile(path) as file:
        os.truncate(path, file.pages[6].dataoffsets[0] + 100)
    with pytest.raises(UnreadableBlock, match="page 6 is cut off"):
        open_source(str(path)).read(Box((0, 0, 0), (7, 33, 50)))


@pytest.mark.parametrize(
    "other",
    [
        {"data": TRUTH[0, 1:]},
        {"data": TRUTH[0].astype(np.uint16)},
        {"data": TRUTH[0], "photometric": "miniswhite"},
    ],
)
def test_appended_pages_that_are_not_alike_are_images(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    path = tmp_path / "em.tif"
    for section in TRUTH[:3]:
        tifffile.imwrite(path, section, append=True)
    tifffile.imwrite(path, append=True, **other)
    shape = " x ".join(map(str, other["data"].shape))
    match = rf"holds 2 images \(0: 3 x 33 x 50 uint8, 1: {shape} {other['data'].dtype}\)"
    ambiguous(path, match + ". Choose one of them with --series")
    check(open_source(str(path), series=0), TRUTH[:3])
    check(open_source(str(path), series=1), other["data"][np.newaxis])


# -- several images -------------------------------------------------------------------------------


def test_one_of_several_images_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "em.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(TRUTH, photometric="minisblack")
        file.write(TRUTH[:2, :8, :8], photometric="minisblack")
    source = open_source(str(path), series=1)
    check(source, TRUTH[:2, :8, :8])
    check(open_source(str(path), series=0), TRUTH)
    assert source.identity()["series"] == 1
    assert source.identity()["inner"] is None
    match = r"has no image 2, but 2 images \(0: 7 x 33 x 50 uint8, 1: 2 x 8 x 8 uint8\)"
    ambiguous(path, match, series=2)


def test_one_of_several_images_of_every_section_is_chosen(tmp_path: Path) -> None:
    for i, section in enumerate(TRUTH):
        with tifffile.TiffWriter(tmp_path / f"{i}.tif") as file:
            file.write(section[:8, :8])
            file.write(section)
    ambiguous(tmp_path, "holds 2 images")
    source = open_source(str(tmp_path), series=1)
    check(source, TRUTH)
    assert source.identity()["series"] == 1


def test_images_of_ome_have_their_own_voxel_sizes(tmp_path: Path) -> None:
    path = tmp_path / "em.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for size, values in ((4, TRUTH), (8, TRUTH[:, ::2, ::2])):
            sizes = {f"PhysicalSize{axis}": size for axis in "ZYX"}
            units = {f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"}
            file.write(values, photometric="minisblack", metadata={"axes": "ZYX", **sizes, **units})
    ambiguous(path, "holds 2 images")
    for series, nm, values in ((0, 4.0, TRUTH), (1, 8.0, TRUTH[:, ::2, ::2])):
        source = open_source(str(path), series=series)
        check(source, values)
        assert source.voxel_size == (nm, nm, nm)


def test_images_of_ome_have_their_own_channels(tmp_path: Path) -> None:
    path, named = tmp_path / "em.ome.tif", (["SE", "BSE"], ["EDX", "CL"])
    with tifffile.TiffWriter(path, ome=True) as file:
        for names, values in zip(named, (TRUTH[:2], TRUTH[:2, :8, :8]), strict=True):
            metadata = {"axes": "CYX", "Channel": {"Name": names}}
            file.write(values, photometric="minisblack", metadata=metadata)
    for series, names in enumerate(named):
        assert open_source(str(path), series=series).channels == tuple(names)


@pytest.mark.parametrize("metadata", [{}, None])
def test_what_says_that_it_is_a_thumbnail_is_no_image(
    tmp_path: Path, metadata: dict[str, Any] | None
) -> None:
    path = tmp_path / "em.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(TRUTH, photometric="minisblack", metadata=metadata)
        file.write(TRUTH[0, :8, :8], subfiletype=1, metadata=metadata)
    check(open_source(str(path)), TRUTH)


@pytest.mark.parametrize("ome", [False, True])
def test_a_pyramid_is_its_finest_level(tmp_path: Path, ome: bool) -> None:
    path = tmp_path / "em.ome.tif"
    metadata = {"axes": "ZYX"} if ome else None
    with tifffile.TiffWriter(path, ome=ome) as file:
        file.write(TRUTH, subifds=1, photometric="minisblack", metadata=metadata)
        file.write(TRUTH[:, ::2, ::2], subfiletype=1, photometric="minisblack", metadata=None)
    check(open_source(str(path)), TRUTH)


def test_only_tiff_files_have_several_images(tmp_path: Path) -> None:
    np.save(tmp_path / "em.npy", TRUTH)
    Image.fromarray(TRUTH[0]).save(tmp_path / "em.png")
    (tmp_path / "sections").mkdir()
    Image.fromarray(TRUTH[0]).save(tmp_path / "sections" / "em.png")
    (tmp_path / "em.zarr").mkdir()
    for name in ("em.npy", "em.png", "sections", "em.zarr"):
        refused(tmp_path / name, "has no image number 0. Leave out --series", series=0)
