"""Sources give the voxels of their files; bad input is refused with the value, place and cure."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.support.source_checks import (
    SHAPE,
    WHOLE,
    Array,
    Writer,
    ambiguous,
    check,
    cut,
    random_values,
    refused,
)
from tilenet.errors import RegionOutside, UnreadableBlock, UnreadableVolume
from tilenet.formats import open_source
from tilenet.geometry import Box, zyx
from tilenet.volumes import NewVolume, create_volume, open_volume, reopen_for_writing


def hdf5(name: str = "volumes/raw", **options: Any) -> Writer:
    def write(folder: Path, truth: Array) -> str:
        with h5py.File(folder / "em.h5", "w") as file:
            file.create_dataset(name, data=truth, **options)
            file.create_dataset("other", data=np.zeros(3))
        return f"{folder}/em.h5:/{name}"

    return write


def npy(folder: Path, truth: Array) -> str:
    np.save(folder / "em.npy", truth)
    return str(folder / "em.npy")


def npz(save: Callable[..., None], **others: Array) -> Writer:
    def write(folder: Path, truth: Array) -> str:
        save(folder / "em.npz", raw=truth, **others)
        return f"{folder}/em.npz" + (":raw" if others else "")

    return write


def plain_zarr(folder: Path, truth: Array) -> str:
    zarr.create_array(folder / "em.zarr", data=truth, chunks=(3, 16, 16))
    return str(folder / "em.zarr")


def ome_zarr(folder: Path, truth: Array) -> str:
    location, shape = str(folder / "em.zarr"), truth.shape
    new = NewVolume(
        shape=(shape[0], shape[1], shape[2]),
        dtype=str(truth.dtype),
        chunk=(4, 16, 16),
        shard=(8, 32, 32),
        voxel_size=(50.0, 6.0, 4.0),
        attributes={},
    )
    create_volume(location, new)
    reopen_for_writing(location).write(Box.of_shape(new.shape), truth)
    return location


ARRAYS: dict[str, tuple[str, Writer]] = {
    "hdf5": ("uint8", hdf5()),
    "hdf5 chunks": ("float32", hdf5(chunks=(2, 16, 16), compression="gzip")),
    "hdf5 big endian": (">u2", hdf5()),
    "hdf5 bool": ("bool", hdf5(chunks=(7, 11, 50))),
    "npy": ("uint16", npy),
    "npy big endian": (">f4", npy),
    "npz": ("uint8", npz(np.savez)),
    "npz compressed": ("int16", npz(np.savez_compressed)),
    "npz named": (">i4", npz(np.savez_compressed, other=np.zeros(3))),
    "zarr": ("uint8", plain_zarr),
    "zarr bool": ("bool", plain_zarr),
    "zarr big endian": (">u2", plain_zarr),
    "ome-zarr": ("uint16", ome_zarr),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_array_files_give_their_voxels(tmp_path: Path, case: str) -> None:
    dtype, write = ARRAYS[case]
    truth = random_values(dtype)
    check(open_source(write(tmp_path, truth)), truth)


@pytest.mark.parametrize("write", [npy, npz(np.savez), npz(np.savez_compressed)])
def test_fortran_order(tmp_path: Path, write: Writer) -> None:
    truth = np.asfortranarray(random_values("uint16"))
    check(open_source(write(tmp_path, truth)), truth)


@pytest.mark.parametrize("write", [npy, npz(np.savez), hdf5()])
def test_arrays_of_many_axes(tmp_path: Path, write: Writer) -> None:
    truth = random_values("uint8", (1, 7, 33, 50, 1))
    check(open_source(write(tmp_path, truth)), truth[0, ..., 0])
    channels = random_values("uint8", (7, 33, 50, 2))
    check(open_source(write(tmp_path, channels), axes="zyxc", channel=1), channels[..., 1])


def test_hdf5_details(tmp_path: Path) -> None:
    truth = random_values("uint8")
    with h5py.File(tmp_path / "em.HDF5", "w") as file:
        dataset = file.create_dataset("a/raw", data=truth, chunks=(2, 16, 25))
        dataset.attrs["element_size_um"] = [0.05, 0.006, 0.004]
    source = open_source(f"{tmp_path}/em.HDF5")  # the only dataset needs no name
    check(source, truth)
    assert source.voxel_size == (50.0, 6.0, 4.0)
    assert source.piece_shape == (2, 16, 25)


def test_zarr_details(tmp_path: Path) -> None:
    truth = random_values("uint8")
    location = ome_zarr(tmp_path, truth)
    source = open_source(location, level="0")
    assert source.voxel_size == (50.0, 6.0, 4.0)
    assert source.piece_shape == (4, 16, 16)
    check(open_source(f"file://{location}"), truth)
    check(open_source(f"{location}/0"), truth)


def png_bytes(depth: int, colour: int, width: int, rows: bytes) -> bytes:
    """A PNG of one row, for codings that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        size, check_sum = len(data), zlib.crc32(kind + data)
        return struct.pack(">I", size) + kind + data + struct.pack(">I", check_sum)

    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(b"\0" + rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*item) for item in chunks.items())


def test_png_sections(tmp_path: Path) -> None:
    path = tmp_path / "section.png"
    for dtype in ("uint8", "uint16", "bool"):
        truth = random_values(dtype)[:1]
        Image.fromarray(truth[0]).save(path)
        check(open_source(str(path)), truth)
    colours = random_values("uint8", (33, 50, 3))
    Image.fromarray(colours).save(path)
    check(open_source(str(path), channel=2), colours[np.newaxis, ..., 2])
    path.write_bytes(png_bytes(4, 0, 4, b"\x0f\x73"))  # grey values are not spread over 0..255
    check(open_source(str(path)), np.array([[[0, 15, 7, 3]]], np.uint8))


# --- places ----------------------------------------------------------------------------------


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    for name in ("em.tif", "em.h5:/raw", "em.zarr", "em"):
        refused(tmp_path / name, r"does not exist. Check the path. Give a file ending in \.tif")
    unknown = tmp_path / "em.xyz"
    unknown.write_bytes(b"")
    refused(unknown, r"kind that is not known: \.xyz. .*\.tif, .*\.npz.*sections/\*\.tif")
    refused("https://example.org/em.tif", "only Zarr is read there")


def test_only_zarr_has_levels(tmp_path: Path) -> None:
    np.save(tmp_path / "em.npy", np.zeros((2, 3, 4)))
    refused(tmp_path / "em.npy", "no pyramid level 's1'.*--level", level="s1")
    h5py.File(tmp_path / "em.h5", "w").close()
    refused(tmp_path / "em.h5", "level 's1'.*name the dataset of that level", level="s1")


def test_a_box_outside_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "em.npy", random_values("uint8"))
    zarr.create_array(tmp_path / "em.zarr", data=random_values("uint8"))
    for name in ("em.npy", "em.zarr"):
        source = open_source(str(tmp_path / name))
        for box in (Box((0, 0, 0), (8, 1, 1)), Box((-1, 0, 0), (1, 1, 1))):
            with pytest.raises(RegionOutside):
                source.read(box)


@pytest.mark.parametrize("suffix", ["tif", "png", "h5", "npy", "npz"])
def test_text_under_the_name_of_an_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"em.{suffix}"
    for content in ("Dear reader,\nthis is no image.\n", ""):
        path.write_text(content)
        error = refused(path, rf"em\.{suffix}: cannot be read as")
        assert error.path == str(path)


# --- axes, channels and values ---------------------------------------------------------------


def test_axes_that_could_mean_several_things(tmp_path: Path) -> None:
    path = tmp_path / "em.tif"
    values = np.zeros((3, 4, 5, 6), np.uint8)
    tifffile.imwrite(path, values, photometric="minisblack", metadata={"axes": "TZYX"})
    error = ambiguous(path, r"several time points \(t=3, z=4, y=5, x=6\).*one time point per file")
    assert error.choices == ("t=3", "z=4", "y=5", "x=6")
    assert open_source(str(path), axes="czyx", channel=2).shape == (4, 5, 6)
    ambiguous(path, "has several time points", axes="tzyx")
    tifffile.imwrite(path, values[0], photometric="minisblack", metadata={"axes": "TYX"})
    ambiguous(path, "if these are sections: --axes zyx")
    note = "--axes zyx is used; the file states tyx."
    assert open_source(str(path), axes="zyx").notes == (note,)
    tifffile.imwrite(path, values, photometric="minisblack")
    ambiguous(path, r"unknown meaning \(q=3, q=4, y=5, x=6\).*--axes czyx")
    for axes, match in [("zyx", "4 axes, but --axes names 3"), ("tcyx", "several time points")]:
        ambiguous(path, match, axes=axes)
    for axes in ("zzyx", "abyx", "tczy"):
        refused(path, f"cannot have axes '{axes}'", axes=axes)
    np.save(tmp_path / "em.npy", values)
    ambiguous(tmp_path / "em.npy", r"unknown meaning \(\?=3, .*--axes czyx")
    np.save(tmp_path / "em.npy", np.zeros(6))
    refused(tmp_path / "em.npy", "has 1 axes")


def test_samples_of_a_colour_image_have_to_be_chosen(tmp_path: Path) -> None:
    colours = random_values("uint8", (33, 50, 3))
    Image.fromarray(colours).save(tmp_path / "em.png")
    tifffile.imwrite(tmp_path / "em.tif", colours)
    (tmp_path / "sections").mkdir()
    Image.fromarray(colours).save(tmp_path / "sections" / "1.png")
    for name in ("em.png", "em.tif", "sections"):
        ambiguous(tmp_path / name, r"has 3 channels \(0, 1, 2\).*--channel.* --axes yxc")
        ambiguous(tmp_path / name, r"has no channel 3 \(0, 1, 2\).*--channel", channel=3)
        check(open_source(str(tmp_path / name), channel=2), colours[np.newaxis, ..., 2])
        kept = open_source(str(tmp_path / name), axes="yxc")
        check(kept, np.moveaxis(colours, -1, 0)[:, np.newaxis])
        assert kept.channels == ("channel 0", "channel 1", "channel 2")


def labelled_zarr(folder: Path, truth: Array) -> str:
    location, shape = str(folder / "labelled.zarr"), zyx(truth.shape[1:])
    new = NewVolume(
        shape=shape, dtype="uint8", chunk=(4, 16, 16), shard=(8, 64, 64),
        channels=("membrane", "interior"), attributes={},
    )  # fmt: skip
    create_volume(location, new)
    reopen_for_writing(location).write(Box.of_shape(shape), truth)
    return location


def czyx_tiff(folder: Path, truth: Array) -> str:
    path = folder / "em.ome.tif"
    metadata = {"axes": "CZYX", "Channel": {"Name": ["SE", "BSE"]}}
    tifffile.imwrite(path, truth, ome=True, photometric="minisblack", metadata=metadata)
    return str(path)


def dimensions_zarr(folder: Path, truth: Array) -> str:
    path = folder / "em.zarr"
    zarr.create_array(path, data=np.moveaxis(truth, 0, -1), dimension_names=["z", "y", "x", "c"])
    return str(path)


CHANNELS: dict[str, tuple[Writer, str | None, tuple[str, str]]] = {
    "ome-zarr": (labelled_zarr, None, ("membrane", "interior")),
    "zarr": (dimensions_zarr, None, ("channel 0", "channel 1")),
    "npy": (npy, "czyx", ("channel 0", "channel 1")),
    "hdf5": (hdf5(), "czyx", ("channel 0", "channel 1")),
    "ome-tiff": (czyx_tiff, None, ("SE", "BSE")),
}


@pytest.mark.parametrize("case", CHANNELS)
def test_all_channels_are_read_where_none_is_chosen(tmp_path: Path, case: str) -> None:
    write, axes, names = CHANNELS[case]
    truth = random_values("uint8", (2, *SHAPE))
    location = write(tmp_path, truth)
    source = open_source(location, axes=axes)
    check(source, truth)
    assert source.channels == names
    one = open_source(location, axes=axes, channel=1)
    check(one, truth[1])
    assert one.identity() != source.identity()
    ambiguous(location, r"has no channel 2 \(0, 1\).*--channel", axes=axes, channel=2)


@pytest.mark.parametrize("dtype", ["complex64", "S3", "i4,f4"])
def test_values_that_are_no_real_numbers(tmp_path: Path, dtype: str) -> None:
    values = np.zeros((2, 3, 4), dtype)
    np.save(tmp_path / "em.npy", values)
    np.savez(tmp_path / "em.npz", values)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = values
    for name in ("em.npy", "em.npz", "em.h5"):
        refused(tmp_path / name, "holds values of type .*at most 64 bits")
    if dtype == "complex64":
        tifffile.imwrite(tmp_path / "em.tif", values, photometric="minisblack")
        refused(tmp_path / "em.tif", "holds values of type complex64")


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "em.npy", np.array([[{}, {}]], object))
    np.savez(tmp_path / "em.npz", np.array([[{}, {}]], object))
    refused(tmp_path / "em.npy", "cannot be read as .npy: .*[Oo]bject")
    refused(tmp_path / "em.npz", "holds values of type object")


def test_empty_volumes(tmp_path: Path) -> None:
    np.savez(tmp_path / "em.npz", np.zeros((0, 3, 4)))
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = np.zeros((2, 0, 4))
    for name in ("em.npz", "em.h5"):
        refused(tmp_path / name, "is empty: shape")


# --- what is inside --------------------------------------------------------------------------


def test_hdf5_datasets_have_to_be_named(tmp_path: Path) -> None:
    path = tmp_path / "em.h5"
    h5py.File(path, "w").close()
    refused(path, "without datasets")
    with h5py.File(path, "w") as file:
        file["volumes/raw"] = file["volumes/labels"] = random_values("uint8")
        file.create_group("empty")
    seen = ("/volumes/labels: 7 x 33 x 50 uint8", "/volumes/raw: 7 x 33 x 50 uint8")
    for inner, match in [
        ("", r"several datasets .*em\.h5:/volumes/labels"),
        (":/volumes", "has a group at '/volumes'"),
        (":/raw", "has no dataset '/raw'"),
    ]:
        assert ambiguous(f"{path}{inner}", match).choices == seen


def test_hdf5_that_would_be_read_as_zeros_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, part = tmp_path / "em.h5", tmp_path / "part.h5"
    with h5py.File(part, "w") as file:
        file["raw"] = random_values("uint8")
        layout = h5py.VirtualLayout(SHAPE, np.uint8)
        layout[:] = h5py.VirtualSource(file["raw"])
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("raw", layout)
    assert np.array_equal(open_source(str(path)).read(WHOLE), random_values("uint8"))
    part.rename(tmp_path / "moved.h5")
    os.utime(path)
    refused(path, r"part\.h5 is missing")
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=random_values("uint8"), compression="gzip")
    cut(path, 100)
    refused(path, "cannot be read as .h5: .*truncated")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda _: False)
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=random_values("uint8"), compression="gzip")
    refused(path, r"HDF5 filter 1 \(deflate\), which is not installed.*h5repack")
    monkeypatch.setitem(sys.modules, "h5py", None)
    os.utime(path)
    refused(path, r"pip install 'tilenet\[hdf5\]'")


def test_hdf5_chunks_that_cannot_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "em.h5"
    with h5py.File(path, "w") as file:
        raw = file.create_dataset("raw", data=random_values("uint8"), compression="gzip")
        chunk = raw.id.get_chunk_info(0)
    with path.open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\xa5" * chunk.size)
    with pytest.raises(UnreadableBlock, match=r"cannot read z=0:7,y=0:33,x=0:50"):
        open_source(str(path)).read(WHOLE)


def test_npz_arrays_have_to_be_named(tmp_path: Path) -> None:
    path = tmp_path / "em.npz"
    np.savez(path, raw=np.zeros((2, 3, 4)), labels=np.zeros((2, 3, 4)))
    ambiguous(path, r"holds 2 arrays \(raw, labels\).*em\.npz:raw")
    ambiguous(f"{path}:em", r"has no array 'em' \(raw, labels\)")
    cut(path, 100)
    refused(path, "cannot be read as .npz")
    np.save(tmp_path / "em.npy", random_values("uint8"))
    cut(tmp_path / "em.npy", 1)
    refused(tmp_path / "em.npy", "cannot be read as .npy")


def test_png_that_cannot_be_read_as_stored(tmp_path: Path) -> None:
    path = tmp_path / "em.png"
    Image.fromarray(random_values("uint8")[0]).quantize(16).save(path)
    refused(path, "has a colour palette.*Fiji")
    path.write_bytes(png_bytes(16, 2, 1, bytes(6)))
    refused(path, "colours or opacity of 16 bits")
    Image.fromarray(random_values("uint8")[0]).save(path)
    cut(path, 300)
    with pytest.raises(UnreadableBlock, match=r"em\.png: cannot read z=0:1,y=0:33,x=0:50"):
        open_source(str(path)).read(Box((0, 0, 0), (1, 33, 50)))


@pytest.mark.parametrize("name", ["x.tif", "x.h5", "x.zarr", "sections"])
def test_links_that_lead_round_in_a_circle_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / name)
    with pytest.raises(UnreadableVolume, match=f"{name}: leads nowhere: .*loop"):
        open_source(str(tmp_path / name))
    with pytest.raises(UnreadableVolume, match=f"{name}: leads nowhere: .*loop"):
        open_volume(str(tmp_path / name))
