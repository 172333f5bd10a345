"""What is no Zarr is known by what lies there, and named with a way to convert it."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
import zarr
from PIL import Image

from tests.volumes.stores.test_urls import server as server
from tilenet.errors import UnreadableVolume
from tilenet.formats import open_source
from tilenet.formats.files import OPENERS
from tilenet.volumes import open_volume
from tilenet.volumes.stores import recognise
from tilenet.volumes.stores.foreign_kinds import by_suffix

VALUES = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)

Maker = Callable[[Path], object]


def head(marks: dict[int, bytes], size: int = 1200) -> Maker:
    def write(path: Path) -> None:
        content = bytearray(size)
        for at, mark in marks.items():
            content[at : at + len(mark)] = mark
        path.write_bytes(content)

    return write


def picture(kind: str) -> Maker:
    return lambda path: Image.fromarray(VALUES[0]).save(path, format=kind)


def zipped_zarr(path: Path) -> None:
    store = zarr.storage.ZipStore(path, mode="w")
    zarr.create_array(store, data=VALUES)
    store.close()


def gzipped(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes(400)))


#: Name of a file, how it is made, what it is called, and what the cure names.
FILES: dict[str, tuple[Maker, str, str]] = {
    "em.mrc": (head({208: b"MAP "}), "an MRC file", "mrcfile"),
    "em.nrrd": (head({0: b"NRRD0005\n"}), "an NRRD file", "pynrrd"),
    "em.nii": (head({344: b"n+1\0"}), "a NIfTI file", "nibabel"),
    "em2.nii": (head({0: b"\x1c\x02\0\0n+2\0"}), "a NIfTI file", "nibabel"),
    "em.mha": (head({0: b"ObjectType = Image\n"}), "a MetaImage file", "SimpleITK"),
    "em.dcm": (head({128: b"DICM"}), "a DICOM file", "SimpleITK"),
    "em.vti": (head({0: b'<?xml version="1.0"?>\n<VTKFile'}), "a VTK file", "ParaView"),
    "em.dm3": (head({3: b"\3", 7: b"\xff", 11: b"\1"}), "a DM3 or DM4 file", "Fiji"),
    "em.dm4": (head({3: b"\4", 11: b"\xff", 15: b"\1"}), "a DM3 or DM4 file", "Fiji"),
    "em.am": (head({0: b"# AmiraMesh BINARY-LITTLE-ENDIAN 2.1"}), "an Amira file", "Fiji"),
    "em.czi": (head({0: b"ZISRAWFILE"}), "a CZI file", "czifile"),
    "em.lif": (head({0: b"\x70\0\0\0\x2a"}), "a LIF file", "liffile"),
    "em.nd2": (head({0: b"\xda\xce\xbe\x0a"}), "an ND2 file", "nd2"),
    "em.jpg": (picture("JPEG"), "a JPEG image", "magick"),
    "em.bmp": (picture("BMP"), "a BMP image", "magick"),
    "em.gif": (picture("GIF"), "a GIF image", "magick"),
    "em.webp": (picture("WEBP"), "a WebP image", "magick"),
    "em.jp2": (picture("JPEG2000"), "a JPEG 2000 image", "magick"),
    "em.zarr.zip": (zipped_zarr, "a zipped Zarr", "unzip"),
    "em.dat": (head({0: b"\xd3\xed\xf5\xf2"}), "a FIB-SEM file", "TIFF"),
    "em.xml": (head({0: b"<?xml?>\n<SpimData>"}), "a BigDataViewer project", "em.h5:/t00000"),
}

#: Those that are known by their name alone.
NAMED: dict[str, tuple[Maker, str, str]] = {
    "em.raw": (head({}), "raw values without a header", "numpy.fromfile"),
    "old.st": (head({}), "an MRC file", "mrcfile"),
    "em.nii.gz": (gzipped, "a NIfTI file", "nibabel"),
    "em.tif.gz": (gzipped, "compressed by gzip", "gunzip"),
    "em.ozx": (zipped_zarr, "a zipped Zarr", "unzip"),
}


def refuses(location: object, name: str, cure: str) -> None:
    words = f"{re.escape(str(location))}: is .*{re.escape(name)}.*{re.escape(cure)}"
    with pytest.raises(UnreadableVolume, match=words):
        open_source(str(location))
    with pytest.raises(UnreadableVolume, match=words) as caught:
        open_volume(str(location))
    assert "tilenet ingest" not in str(caught.value)


@pytest.mark.parametrize("name", [*FILES, *NAMED])
def test_files_of_other_kinds_are_named(tmp_path: Path, name: str) -> None:
    make, kind, cure = {**FILES, **NAMED}[name]
    make(tmp_path / name)
    refuses(tmp_path / name, kind, cure)


@pytest.mark.parametrize("name", FILES)
def test_files_are_known_under_any_name(tmp_path: Path, name: str) -> None:
    make, kind, cure = FILES[name]
    make(tmp_path / "em")
    refuses(tmp_path / "em", kind, cure)
    # What is called TIFF, and is none, is told by what it is.
    (tmp_path / "em").rename(tmp_path / "em.tif")
    with pytest.raises(UnreadableVolume, match=f"em.tif: is not .tif, but {re.escape(kind)}"):
        open_source(str(tmp_path / "em.tif"))


def test_old_files_under_names_of_hdf5(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "em.mat", {"raw": VALUES})
    head({0: b"\x0e\x03\x13\x01"})(tmp_path / "em.hdf")
    for name, words in {
        "em.mat": "MATLAB file of version 7.*-v7.3",
        "em.hdf": "HDF4.*h4toh5",
    }.items():
        with pytest.raises(UnreadableVolume, match=words):
            open_source(str(tmp_path / name))
        with pytest.raises(UnreadableVolume, match=words):
            open_volume(str(tmp_path / name))


def n5(folder: Path) -> None:
    (folder / "raw" / "s0").mkdir(parents=True)
    (folder / "attributes.json").write_text('{"n5": "2.0.0"}')
    array = {"dimensions": [5, 4, 3], "blockSize": [5, 4, 3], "dataType": "uint8"}
    (folder / "raw" / "s0" / "attributes.json").write_text(json.dumps(array))


def precomputed(folder: Path) -> None:
    folder.mkdir()
    info = {"@type": "neuroglancer_multiscale_volume", "data_type": "uint8", "scales": []}
    (folder / "info").write_text(json.dumps(info))


def knossos(folder: Path) -> None:
    (folder / "mag1").mkdir(parents=True)
    (folder / "mag1" / "knossos.conf").write_text('experiment name "em";')


def new_knossos(folder: Path) -> None:
    folder.mkdir()
    (folder / "em.k.toml").write_text("")


def wkw(folder: Path) -> None:
    folder.mkdir()
    (folder / "header.wkw").write_bytes(b"WKW\1")


def jpegs(folder: Path) -> None:
    folder.mkdir()
    for i in range(3):
        picture("JPEG")(folder / f"s{i}.jpg")


def hdf5s(folder: Path) -> None:
    folder.mkdir()
    for name in ("a.h5", "b.h5"):
        h5py.File(folder / name, "w").close()


FOLDERS: dict[str, tuple[Maker, str, str, str]] = {
    "N5": (n5, "em", "an N5 container", "tensorstore"),
    "group of an N5": (n5, "em/raw", "an N5 container", "tensorstore"),
    "array of an N5": (n5, "em/raw/s0", "an N5 container", "tensorstore"),
    "precomputed": (precomputed, "em", "neuroglancer's precomputed format", "tensorstore"),
    "KNOSSOS": (knossos, "em", "a KNOSSOS dataset", "convert-knossos"),
    "KNOSSOS of today": (new_knossos, "em", "a KNOSSOS dataset", "convert-knossos"),
    "WKW": (wkw, "em", "a WKW layer", "export-as-tiff"),
    "JPEG": (jpegs, "em", "a folder of 3 files such as s0.jpg, a JPEG image", "magick"),
    "HDF5": (hdf5s, "em", "a folder of 2 files such as a.h5, an HDF5 file", "Give the file: "),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_of_other_kinds_are_named(tmp_path: Path, case: str) -> None:
    make, below, kind, cure = FOLDERS[case]
    make(tmp_path / "em")
    refuses(tmp_path / below, kind, cure)


def test_a_name_inside_of_what_is_not_read(tmp_path: Path) -> None:
    n5(tmp_path / "em.n5")
    refuses(f"{tmp_path}/em.n5:/raw", "an N5 container", "tensorstore")


def test_kinds_behind_urls(tmp_path: Path, server: str) -> None:
    n5(tmp_path / "a")
    precomputed(tmp_path / "b")
    refuses(f"{server}/a", "an N5 container", "tensorstore")
    refuses(f"{server}/b", "neuroglancer's precomputed format", "tensorstore")
    refuses(f"{server}/em.nii.gz", "a NIfTI file", "nibabel")
    refuses(f"precomputed://{server}/b", "neuroglancer's precomputed format", "tensorstore")
    refuses("zarr://s3://bucket/em.zarr", "a URL of neuroglancer", "without what stands before")


# -- what is read ---------------------------------------------------------------------------------


def test_ingest_is_recommended_for_what_it_reads(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "em.tif", VALUES, photometric="minisblack")
    np.save(tmp_path / "em.npy", VALUES)
    np.savez(tmp_path / "em.npz", VALUES)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = VALUES
    (tmp_path / "sections").mkdir()
    Image.fromarray(VALUES[0]).save(tmp_path / "sections" / "1.png")
    kinds = {
        "em.tif": "a TIFF file", "em.npy": "a NumPy file", "em.npz": "a NumPy file",
        "em.h5": "an HDF5 file", "em.h5:/raw": "an HDF5 file",
        "sections": "a folder of one file, 1.png, a PNG image",
    }  # fmt: skip
    for name, kind in kinds.items():
        words = f"but {re.escape(kind)}. Convert it with 'tilenet ingest'"
        with pytest.raises(UnreadableVolume, match=words):
            open_volume(f"{tmp_path}/{name}")
        open_source(f"{tmp_path}/{name}")


def test_ingest_reads_what_it_is_recommended_for() -> None:
    for suffix in OPENERS:
        kind = by_suffix(f"em{suffix}")
        assert kind is not None
        assert kind.is_ingested
        assert suffix in kind.suffixes


def test_other_names_of_what_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "em.lsm", VALUES, photometric="minisblack")
    with pytest.raises(UnreadableVolume, match=r"a TIFF file by another name\. Rename it.* \.tif"):
        open_source(str(tmp_path / "em.lsm"))
    for name in ("em.ims", "em.mat"):
        with h5py.File(tmp_path / name, "w") as file:
            file["raw"] = VALUES
        found = open_source(f"{tmp_path}/{name}:/raw")
        assert found.shape == VALUES.shape


def test_a_path_that_is_not_there_is_not_recommended_to_be_ingested(tmp_path: Path) -> None:
    for name in ("em.zarr", "em.tif", "em.h5:/raw"):
        with pytest.raises(UnreadableVolume, match=r"does not exist\. Check the path") as caught:
            open_volume(f"{tmp_path}/{name}")
        assert "ingest" not in str(caught.value)


def test_a_damaged_zarr_is_not_taken_for_what_lies_beside_it(tmp_path: Path) -> None:
    zarr.create_group(tmp_path)
    (tmp_path / "zarr.json").write_text("{")
    picture("PNG")(tmp_path / "preview.png")
    assert recognise(str(tmp_path)) is None
    with pytest.raises(UnreadableVolume, match="has Zarr metadata that cannot be read"):
        open_volume(str(tmp_path))


def test_a_zip_that_is_damaged_is_no_zarr(tmp_path: Path) -> None:
    (tmp_path / "em").write_bytes(b"PK\x03\x04" + bytes(40))
    assert recognise(str(tmp_path / "em")) is None
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("text", "")
    assert recognise(str(tmp_path / "other.zip")) is None
