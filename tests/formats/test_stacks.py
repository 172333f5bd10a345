"""Files one after the other along z, reading from many threads, and the real images."""

from __future__ import annotations

import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from tilenet.errors import AmbiguousVolume, UnreadableBlock, UnreadableVolume
from tilenet.formats import Source, open_source
from tilenet.formats import files as source_files
from tilenet.geometry import Box

Array = npt.NDArray[Any]

NUMBERS = (8, 9, 10, 11, 12, 13)


@pytest.fixture
def truth() -> Array:
    return np.random.default_rng(5).integers(0, 255, (len(NUMBERS), 33, 50)).astype(np.uint8)


def write_sections(folder: Path, truth: Array, suffix: str) -> None:
    folder.mkdir()
    for number, section in zip(NUMBERS, truth, strict=True):
        if suffix == ".png":
            Image.fromarray(section).save(folder / f"s{number}.png")
        else:
            tifffile.imwrite(folder / f"s{number}{suffix}", section, compression="zlib")
    (folder / "notes.txt").write_text("not a section")
    (folder / f".hidden{suffix}").write_text("not a section")


def check(source: Source, truth: Array) -> None:
    copy: Source = pickle.loads(pickle.dumps(source))
    assert copy.shape == truth.shape
    sections, height, width = copy.shape
    last = Box((sections - 1, height - 1, 0), (sections, height, 1))
    for box in (Box.of_shape(copy.shape), Box((1, 3, 7), (4, 20, width)), last):
        np.testing.assert_array_equal(copy.read(box), truth[box.slices])


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".png"])
def test_sections_come_in_natural_order(tmp_path: Path, truth: Array, suffix: str) -> None:
    write_sections(tmp_path / "sections", truth, suffix)
    for location in ("sections", f"sections/*{suffix}", f"sect*/s[0-9]*{suffix}"):
        source = open_source(str(tmp_path / location))
        check(source, truth)
        assert source.piece_shape == (1, 33, 50)
    some = open_source(str(tmp_path / f"sections/s1*{suffix}"))
    check(some, truth[2:])
    assert some.identity() != source.identity()


def test_the_names_of_links_give_the_order(tmp_path: Path, truth: Array) -> None:
    write_sections(tmp_path / "store", truth, ".tif")
    (tmp_path / "sections").mkdir()
    for i, number in enumerate(reversed(NUMBERS)):
        (tmp_path / "sections" / f"z{i}.tif").symlink_to(tmp_path / "store" / f"s{number}.tif")
    check(open_source(f"{tmp_path}/sections"), truth[::-1])


def test_a_relative_location_still_means_the_same_elsewhere(
    tmp_path: Path, truth: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sections(tmp_path / "sections", truth, ".tif")
    np.save(tmp_path / "em.npy", truth)
    monkeypatch.chdir(tmp_path)
    sources = [open_source(name) for name in ("sections", "sections/*.tif", "em.npy")]
    monkeypatch.chdir("/")
    for source in sources:
        check(source, truth)


def test_files_of_several_sections_follow_each_other(tmp_path: Path, truth: Array) -> None:
    for name, part in {"a8.tif": truth[:3], "a9.tif": truth[3], "a10.tif": truth[4:]}.items():
        tifffile.imwrite(tmp_path / name, part, photometric="minisblack")
    check(open_source(str(tmp_path)), truth)


def test_a_channel_of_every_section(tmp_path: Path, truth: Array) -> None:
    for number, section in zip(NUMBERS, truth, strict=True):
        colours = np.stack([section, 255 - section, section // 2], axis=-1)
        Image.fromarray(colours).save(tmp_path / f"s{number}.png")
    check(open_source(str(tmp_path), channel=1), 255 - truth)


def test_the_voxel_size_of_a_stack_is_the_one_of_all_files(tmp_path: Path, truth: Array) -> None:
    for i, spacing in enumerate([0.05, 0.05, 0.04]):
        metadata = {"axes": "ZYX", "spacing": spacing, "unit": "um"}
        path = tmp_path / f"s{i}.tif"
        tifffile.imwrite(path, truth, imagej=True, resolution=(250, 250), metadata=metadata)
    assert open_source(f"{tmp_path}/s[01].tif").voxel_size == (50.0, 4.0, 4.0)
    assert open_source(f"{tmp_path}").voxel_size is None


def test_files_must_agree(tmp_path: Path, truth: Array) -> None:
    write_sections(tmp_path / "sections", truth, ".tif")
    odd = tmp_path / "sections" / "s10.tif"
    for section in (truth[0, 1:], truth[0].astype(np.uint16)):
        tifffile.imwrite(odd, section)
        with pytest.raises(
            UnreadableVolume, match=r"s10\.tif: has sections of .*/s8\.tif"
        ) as caught:
            open_source(f"{tmp_path}/sections")
        assert caught.value.path == str(odd)


def test_folders_without_one_kind_of_sections(tmp_path: Path, truth: Array) -> None:
    folder = tmp_path / "sections"
    folder.mkdir()
    for location in (folder, folder / "*.tif"):
        with pytest.raises(UnreadableVolume, match="means no TIFF or PNG file"):
            open_source(str(location))
    tifffile.imwrite(folder / "a.tif", truth[0])
    Image.fromarray(truth[0]).save(folder / "a.png")
    with pytest.raises(AmbiguousVolume, match=r"1 TIFF, 1 PNG.*quoted pattern"):
        open_source(str(folder))


def test_a_file_that_changes_or_goes_is_reported(tmp_path: Path, truth: Array) -> None:
    write_sections(tmp_path / "sections", truth, ".tif")
    source = open_source(f"{tmp_path}/sections")
    changed = tmp_path / "sections" / "s9.tif"
    tifffile.imwrite(changed, truth[:2])
    with pytest.raises(UnreadableBlock, match=r"s9\.tif: .* changed since"):
        source.read(Box((0, 0, 0), (3, 5, 5)))
    changed.unlink()
    with pytest.raises(UnreadableVolume, match=r"s9\.tif: cannot be opened"):
        source.read(Box((0, 0, 0), (3, 5, 5)))
    assert np.array_equal(source.read(Box((2, 0, 0), (6, 33, 50))), truth[2:])


def test_few_files_are_open_at_once(
    tmp_path: Path, truth: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = np.concatenate([truth] * 20)
    for i, section in enumerate(sections):
        tifffile.imwrite(tmp_path / f"{i}.tif", section)
    source = open_source(str(tmp_path))
    assert np.array_equal(source.read(Box.of_shape(source.shape)), sections)
    assert source_files._open_version.cache_info().currsize <= source_files.MAX_OPEN
    if sys.platform == "linux":
        links = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
        assert sum(link.parent == tmp_path for link in links) <= source_files.MAX_OPEN


@pytest.mark.parametrize("kind", ["strips", "pages", "stack", "hdf5", "npy", "png", "npz"])
def test_threads_may_read_at_once(tmp_path: Path, truth: Array, kind: str) -> None:
    location = tmp_path / "em.tif"
    if kind == "strips":
        tifffile.imwrite(location, truth, compression="lzw", rowsperstrip=4)
    elif kind == "pages":
        with tifffile.TiffWriter(location) as file:
            for section in truth:
                file.write(section, contiguous=False, metadata=None)
    elif kind == "hdf5":
        location = tmp_path / "em.h5"
        with h5py.File(location, "w") as file:
            file.create_dataset("raw", data=truth, chunks=(2, 11, 25), compression="gzip")
    elif kind in ("npy", "npz"):
        location = tmp_path / f"em.{kind}"
        (np.save if kind == "npy" else np.savez_compressed)(location, truth)
    else:
        location = tmp_path / "sections"
        write_sections(location, truth, ".png" if kind == "png" else ".tif")
    source = open_source(str(location))
    boxes = [Box((z, y, 0), (z + 2, y + 9, 50)) for z in range(5) for y in range(0, 24, 3)] * 4
    with ThreadPoolExecutor(8) as pool:
        for box, values in zip(boxes, pool.map(source.read, boxes), strict=True):
            assert np.array_equal(values, truth[box.slices])


def test_identity_knows_the_content_and_not_the_place(tmp_path: Path, truth: Array) -> None:
    paths = [tmp_path / name for name in ("a.tif", "b.tif", "c.tif")]
    for path, values in zip(paths, (truth, truth, 255 - truth), strict=True):
        tifffile.imwrite(path, values)
    first, copy, other = (open_source(str(path)).identity() for path in paths)
    assert first == copy
    assert first != other
    assert json.loads(json.dumps(first)) == first


# --- the real images -------------------------------------------------------------------------


@pytest.mark.data
def test_isbi_2012(tilenet_data: Path) -> None:
    for name in ("train-volume.tif", "train-labels.tif"):
        path = tilenet_data / "isbi2012" / name
        source = open_source(str(path))
        assert source.shape == (24, 512, 512)
        check(source, tifffile.imread(path))
    assert set(np.unique(source.read(Box.of_shape(source.shape)))) == {0, 255}


@pytest.mark.data
def test_fib25(tilenet_data: Path) -> None:
    path = tilenet_data / "fib25" / "raw.tif"
    source = open_source(str(path))
    assert source.shape == (250, 250, 250)
    box = Box((100, 17, 0), (103, 250, 99))
    assert np.array_equal(source.read(box), tifffile.imread(path, key=range(100, 103))[:, 17:, :99])


@pytest.mark.data
def test_dic_hela(tilenet_data: Path) -> None:
    folder = tilenet_data / "dic-hela" / "images"
    truth = np.stack([tifffile.imread(path) for path in sorted(folder.glob("*.tif"))])
    assert truth.shape == (10, 512, 512)
    check(open_source(str(folder)), truth)
