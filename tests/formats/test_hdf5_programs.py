"""HDF5 files that other programs write are read as they mean them, or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from tests.support.runs import store_volume
from tests.support.source_checks import (
    SHAPE,
    WHOLE,
    Array,
    ambiguous,
    check,
    random_values,
    refused,
)
from tilenet.formats import open_source
from tilenet.geometry import zyx
from tilenet.volumes import open_volume, place

TRUTH = random_values("uint16") * 300  # up to 59,700, above what int16 holds


# --- BigDataViewer ---------------------------------------------------------------------------

XML = """<?xml version="1.0" encoding="UTF-8"?>
<SpimData version="0.2">
  <BasePath type="relative">.</BasePath>
  <SequenceDescription>
    <ImageLoader format="bdv.hdf5"><hdf5 type="relative">{file}</hdf5></ImageLoader>
    <ViewSetups>
      <ViewSetup>
        <id>0</id><size>50 33 7</size>
        <voxelSize><unit>{unit}</unit><size>0.004 0.006 0.05</size></voxelSize>
      </ViewSetup>
    </ViewSetups>
    <Timepoints type="range"><first>0</first><last>0</last></Timepoints>
  </SequenceDescription>
  <ViewRegistrations>
    <ViewRegistration timepoint="0" setup="0">
      <ViewTransform type="affine"><affine>{affine}</affine></ViewTransform>
      <ViewTransform type="affine">
        <affine>0.004 0 0 0 0 0.006 0 0 0 0 0.05 0</affine>
      </ViewTransform>
    </ViewRegistration>
  </ViewRegistrations>
</SpimData>
"""
SHIFTED = "1 0 0 0.4 0 1 0 0.06 0 0 1 1"


def bdv(path: Path, values: Array, stated: str | None = None) -> str:
    """As BigDataViewer and pybdv write it: signed, of two levels, x first in the tables."""
    signed = values.view(f"i{values.itemsize}") if values.dtype.kind == "u" else values
    with h5py.File(path, "w") as file:
        file["t00000/s00/0/cells"] = signed
        file["t00000/s00/1/cells"] = signed[:, ::2, ::2]
        file["s00/resolutions"] = np.array([[1.0, 1, 1], [2, 2, 1]])
        file["s00/subdivisions"] = np.array([[64, 64, 7], [32, 32, 7]], "i4")
        file["__DATA_TYPES__/Enum_Boolean"] = h5py.enum_dtype({"FALSE": 0, "TRUE": 1}, "i1")
        if stated is not None:
            file["s00"].attrs["dataType"] = stated
    return str(path)


@pytest.mark.parametrize(
    ("dtype", "stated", "said"),
    [
        ("uint16", None, "is read as uint16"),
        ("uint8", None, "is read as uint8"),
        ("uint16", "uint16", None),
        ("uint32", "uint32", None),
        ("int16", "int16", None),
        ("float32", "float32", None),
        ("float32", None, None),
        ("int32", None, "states no type"),
        ("int16", "uint8", "states uint8"),
    ],
)
def test_bigdataviewer_stores_unsigned_as_signed(
    tmp_path: Path, dtype: str, stated: str | None, said: str | None
) -> None:
    truth = (TRUTH % 251).astype(dtype) if dtype == "uint8" else (TRUTH - 9).astype(dtype)
    source = open_source(bdv(tmp_path / "em.h5", truth, stated))
    assert source.dtype == truth.dtype
    np.testing.assert_array_equal(source.read(WHOLE), truth)
    assert (said in " ".join(source.notes)) if said else source.notes == ()


def test_the_xml_of_bigdataviewer(tmp_path: Path) -> None:
    location = bdv(tmp_path / "em.h5", TRUTH, "uint16")
    assert open_source(location).voxel_size is None
    (tmp_path / "em.xml").write_text(XML.format(file="other.h5", unit="um", affine=SHIFTED))
    assert open_source(bdv(tmp_path / "em.h5", TRUTH, "uint16")).voxel_size is None
    (tmp_path / "a.xml").write_text(XML.format(file="em.h5", unit="\u00b5m", affine=SHIFTED))
    source = open_source(bdv(tmp_path / "em.h5", TRUTH, "uint16"))
    check(source, TRUTH)
    assert (source.voxel_size, source.translation) == ((50, 6, 4), (1000, 60, 400))
    coarse = open_source(f"{location}:/t00000/s00/1/cells")
    check(coarse, TRUTH[:, ::2, ::2])
    assert (coarse.voxel_size, coarse.translation) == ((50, 12, 8), (1000, 63, 402))


@pytest.mark.parametrize(
    ("unit", "affine", "size", "said"),
    [
        ("um", "0 1 0 0 1 0 0 0 0 0 1 0", (50, 6, 4), "turns or shears"),
        ("um", "250 0 0 4 0 250 0 0 0 0 250 0", (50, 6, 4), "another unit"),
        ("furlong", SHIFTED, None, "in 'furlong', which is not understood"),
        ("pixel", SHIFTED, None, None),
    ],
)
def test_an_xml_that_is_not_followed(
    tmp_path: Path, unit: str, affine: str, size: object, said: str | None
) -> None:
    (tmp_path / "em.xml").write_text(XML.format(file="em.h5", unit=unit, affine=affine))
    source = open_source(bdv(tmp_path / "em.h5", TRUTH, "uint16"))
    assert (source.voxel_size, source.translation) == (size, None)
    assert (said in " ".join(source.notes)) if said else source.notes == ()


def test_several_views_of_bigdataviewer_have_to_be_named(tmp_path: Path) -> None:
    bdv(tmp_path / "em.h5", TRUTH)
    with h5py.File(tmp_path / "em.h5", "a") as file:
        file["t00000/s01/0/cells"] = TRUTH.view("i2")
    ambiguous(tmp_path / "em.h5", r"em\.h5:/t00000/s00/0/cells\.$")
    # A file of links to the files of its views.
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["t00000/s01/0/cells"] = h5py.ExternalLink("em.h5", "/t00000/s01/0/cells")
    check(open_source(f"{tmp_path}/links.h5"), TRUTH)


# --- Imaris ----------------------------------------------------------------------------------


def letters(value: object) -> Array:
    return np.frombuffer(str(value).encode(), "S1")


def imaris(
    path: Path, channels: Sequence[Array], times: int = 1, unit: str = "um", **image: object
) -> str:
    """As Imaris writes it: filled up to whole chunks, two levels, attributes of single letters."""
    with h5py.File(path, "w") as file:
        for name in ("ImarisDataSet", "DataSet", "DataSetInfo"):
            key = name if name == "ImarisDataSet" else f"{name}DirectoryName"
            file.attrs[key] = letters(name)
        for level, time, number in np.ndindex(2, times, len(channels)):
            values = channels[number] if level == 0 else channels[number][:, ::2, ::2]
            channel = file.create_group(
                f"DataSet/ResolutionLevel {level}/TimePoint {time}/Channel {number}"
            )
            filled = np.pad(values, [(0, -size % 16) for size in values.shape])
            channel.create_dataset("Data", data=filled, chunks=(8, 16, 16), compression="gzip")
            channel["Histogram"] = np.zeros(256, "u8")
            for axis, size in zip("ZYX", values.shape, strict=True):
                channel.attrs[f"ImageSize{axis}"] = letters(size)
        file["Thumbnail/Data"] = np.zeros((256, 1024), np.uint8)
        said = dict(zip("ZYX", channels[0].shape, strict=True), Unit=unit)
        said |= {"ExtMin0": "-0.1", "ExtMax0": "0.100", "ExtMin1": "0", "ExtMax1": "0.198"}
        said |= {"ExtMin2": "1", "ExtMax2": "1.35", **image}
        for number in range(len(channels)):
            stain = file.create_group(f"DataSetInfo/Channel {number}")
            stain.attrs["Name"] = letters(f"stain {number}")
        info = file.create_group("DataSetInfo/Image")
        for name, value in said.items():
            info.attrs[name] = letters(value)
    return str(path)


@pytest.mark.parametrize("name", ["em.ims", "em.h5"])
def test_imaris_is_cropped_to_its_image(tmp_path: Path, name: str) -> None:
    location = imaris(tmp_path / name, [TRUTH])
    source = open_source(location)
    check(source, TRUTH)
    assert source.notes == ()
    assert source.voxel_size == (50.0, 6.0, 4.0)
    assert source.translation == (1000.0, 0.0, -100.0)  # where the extents begin
    coarse = open_source(f"{location}:/DataSet/ResolutionLevel 1/TimePoint 0/Channel 0/Data")
    check(coarse, TRUTH[:, ::2, ::2])
    assert coarse.voxel_size == (50.0, 11.6471, 8.0)


def test_labels_fit_a_volume_of_imaris(tmp_path: Path) -> None:
    extents: dict[str, Any] = {"ExtMin0": "0", "ExtMax0": "0.2", "ExtMin2": "0", "ExtMax2": "0.35"}
    source = open_source(imaris(tmp_path / "em.ims", [TRUTH], **extents))
    raw = open_volume(
        store_volume(
            tmp_path / "raw.zarr", TRUTH,
            voxel_size=source.voxel_size, translation=source.translation,
        )
    )  # fmt: skip
    for offset in ((0, 0, 0), (1, 5, 10)):
        position = zyx(n * size for n, size in zip(offset, (50, 6, 4), strict=True))
        crop = TRUTH[tuple(slice(n, None) for n in offset)]
        path = store_volume(
            tmp_path / f"{sum(offset)}.zarr", crop,
            voxel_size=source.voxel_size, translation=position,
        )  # fmt: skip
        assert place(open_volume(path), raw).offset == offset


def test_channels_of_imaris(tmp_path: Path) -> None:
    channels = [TRUTH + number for number in range(11)]  # 10 comes after 2
    location = imaris(tmp_path / "em.ims", channels)
    for number in (0, 2, 10):
        check(open_source(location, channel=number), channels[number])
    source = open_source(location)
    assert source.channels == tuple(f"stain {number}" for number in range(11))
    np.testing.assert_array_equal(source.read(WHOLE), channels)
    named = f"{location}:/DataSet/ResolutionLevel 0/TimePoint 0/Channel 2/Data"
    check(open_source(named), channels[2])


def test_imaris_that_is_not_clear(tmp_path: Path) -> None:
    path = tmp_path / "em.ims"
    ambiguous(imaris(path, [TRUTH], times=2), r"TimePoint 0/Channel 0/Data\.$")
    source = open_source(imaris(path, [TRUTH], unit="furlong"))
    assert (source.voxel_size, source.notes) == (
        None,
        ("Imaris states the voxel size in 'furlong', which is not understood.",),
    )
    source = open_source(imaris(path, [TRUTH], ExtMax0="-1"))
    assert source.voxel_size is None
    assert "extents" in source.notes[0]
    imaris(path, [TRUTH])
    channel = "DataSet/ResolutionLevel 0/TimePoint 0/Channel 0"
    with h5py.File(path, "a") as file:
        file[channel].attrs["ImageSizeX"] = letters(4096)
    refused(path, r"7 x 33 x 4096 in a dataset of \(16, 48, 64\)")
    imaris(path, [TRUTH])
    with h5py.File(path, "a") as file:
        del file[channel].attrs["ImageSizeX"]
    check(open_source(str(path)), TRUTH)
    with h5py.File(path, "a") as file:
        del file["DataSetInfo"]
    source = open_source(str(path))
    assert source.shape == (16, 48, 64)
    assert "does not state the size" in source.notes[0]


# --- MATLAB ----------------------------------------------------------------------------------


def matlab(path: Path, **arrays: Array) -> str:
    """As save -v7.3 writes it: a user block of text, and arrays by columns, so reversed."""
    classes = {"float64": "double", "float32": "single", "bool": "logical"}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            stored = values.astype("u1") if values.dtype == bool else values
            dataset = file.create_dataset(name, data=stored.T)
            kind = classes.get(values.dtype.name, values.dtype.name)
            dataset.attrs["MATLAB_class"] = np.bytes_(kind)
        file["#refs#/a"] = np.zeros((20, 20))
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    return str(path)


def test_matlab_arrays_are_rows_columns_and_sections(tmp_path: Path) -> None:
    rows_first = TRUTH.transpose(1, 2, 0)
    location = matlab(tmp_path / "em.mat", em=rows_first, name=np.zeros((1, 9), np.uint16))
    source = open_source(f"{location}:/em")
    check(source, TRUTH)
    assert "33 x 50 x 7 in its order" in source.notes[0]
    check(open_source(location), TRUTH)  # the only image
    x_first = matlab(tmp_path / "x.mat", em=TRUTH.transpose())
    check(open_source(f"{x_first}:em", axes="xyz"), TRUTH)
    check(open_source(matlab(tmp_path / "mask.mat", mask=rows_first > 900)), TRUTH > 900)
    check(open_source(matlab(tmp_path / "section.mat", em=TRUTH[0])), TRUTH[:1])
    check(open_source(matlab(tmp_path / "4.mat", em=rows_first[:, :, np.newaxis])), TRUTH)
    colours = random_values("uint8", (33, 50, 3, 7))
    rgb = matlab(tmp_path / "rgb.mat", em=colours)
    ambiguous(rgb, r"unknown meaning \(\?=33, \?=50, \?=3, \?=7\)")
    check(open_source(rgb, axes="yxcz", channel=2), colours[:, :, 2].transpose(2, 0, 1))


def test_matlab_arrays_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "em.mat"
    matlab(path, em=np.array([0, 0, 0], "u8"))
    with h5py.File(path, "a") as file:
        file["em"].attrs["MATLAB_empty"] = np.uint8(1)
    refused(f"{path}:/em", "is empty")
    scipy.io.savemat(path, {"em": TRUTH})
    for location in (path, f"{path}:/em"):
        refused(location, r"a MATLAB file of version 7 or older.*-v7\.3")


# --- others ----------------------------------------------------------------------------------


def test_cremi(tmp_path: Path) -> None:
    ids = random_values("uint64", (3, 9, 20))
    ids[0, 0, 0] = 2**64 - 1
    with h5py.File(tmp_path / "sample_A.hdf", "w") as file:
        file.attrs["file_format"] = "0.2"
        for name, values, offset in (
            ("raw", TRUTH.astype("u1"), None),
            ("labels/neuron_ids", ids, (120.0, 24, 40)),
            ("labels/clefts", ids, (120.0, 24, 40)),
        ):
            dataset = file.create_dataset(f"volumes/{name}", data=values, compression="gzip")
            dataset.attrs["resolution"] = (40.0, 4.0, 4.0)
            if offset is not None:
                dataset.attrs["offset"] = offset
        file["annotations/locations"] = np.zeros((500, 3))
    location = f"{tmp_path}/sample_A.hdf"
    ambiguous(location, r"sample_A\.hdf:/volumes/raw\.$")
    raw = open_source(f"{location}:/volumes/raw")
    assert (raw.voxel_size, raw.translation, raw.notes) == ((40, 4, 4), None, ())
    labels = open_source(f"{location}:/volumes/labels/neuron_ids")
    check(labels, ids)
    assert (labels.translation, labels.notes) == ((120, 24, 40), ())
    clefts = open_source(f"{location}:/volumes/labels/clefts")
    check(clefts, ids)
    assert "2^64 - 1, not 0" in clefts.notes[0]


def test_nwb_and_dream3d(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "em.nwb", "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
        file["acquisition/em/data"] = TRUTH.transpose(0, 2, 1)  # t, x, y
        file["acquisition/em"].attrs["neurodata_type"] = "ImageSeries"
        file["acquisition/em/timestamps"] = np.arange(7.0)
    location = f"{tmp_path}/em.nwb:/acquisition/em/data"
    ambiguous(location, "if these are sections: --axes zxy")
    check(open_source(location, axes="zxy"), TRUTH)
    with h5py.File(tmp_path / "em.dream3d", "w") as file:
        above = "DataContainers/Image"
        cells = file.create_dataset(f"{above}/CellData/EM", data=TRUTH[..., np.newaxis])
        cells.attrs["TupleDimensions"] = np.array(SHAPE[::-1], "u8")
        cells.attrs["ComponentDimensions"] = np.array([1], "u8")
        file[f"{above}/_SIMPL_GEOMETRY/SPACING"] = np.array([4, 6, 50], "f4")
    source = open_source(f"{tmp_path}/em.dream3d")
    check(source, TRUTH)
    assert "a spacing of 50, 6, 4 (z, y, x) without a unit" in " ".join(source.notes)


@pytest.mark.parametrize("suffix", ["ims", "mat", "nwb", "hdf", "dream3d"])
def test_names_of_files_of_programs(tmp_path: Path, suffix: str) -> None:
    path: Any = tmp_path / f"em.{suffix}"
    refused(f"{path}:/raw", "does not exist")
    path.write_text("Dear reader,")
    refused(f"{path}:/raw", rf"em\.{suffix}: cannot be read as \.{suffix}")
    with h5py.File(path, "w") as file:
        file["raw"] = TRUTH
        file["other"] = TRUTH
    check(open_source(f"{path}:/raw"), TRUTH)
