"""What lies at a place and is no Zarr: known by its bytes, or else by its name.

A kind that no command reads is named with a way to convert it. The packages that are named are
public and permissive, where there are such.
"""

from __future__ import annotations

import functools
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilenet.volumes.stores.zarr_access import is_remote, local_path, read_object

INGEST = "Convert it with 'tilenet ingest'"

#: Bytes of a file that are looked at.
HEAD_BYTES = 1024

#: Position of what may stand anywhere among them.
ANYWHERE = -1

#: Names in a folder that are looked at.
MOST_NAMES = 10_000

#: A folder that holds one of these is Zarr.
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")

#: Of these ``ingest`` reads whole folders.
SECTIONS = {".tif", ".png"}

#: Reads the first bytes of an object below a location; None where there is none.
Reader = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class ForeignKind:
    """A kind of volume that is no Zarr.

    Parameters
    ----------
    name : str
        A phrase, such as "an MRC file".
    suffixes : tuple of str
        That its files usually end in.
    cure : str
        How it is read, or converted into what is.
    magic : tuple of (int, bytes)
        Positions in a file, or :data:`ANYWHERE`, and what stands there; any is enough.
    """

    name: str
    suffixes: tuple[str, ...]
    cure: str = INGEST
    magic: tuple[tuple[int, bytes], ...] = ()

    @property
    def is_ingested(self) -> bool:
        """Whether ``tilenet ingest`` reads it."""
        return self.cure == INGEST


def _by_numpy(package: str, values: str) -> str:
    return f"Convert it with {package}: numpy.save('em.npy', {values}), and ingest em.npy"


_MAGICK = "Save it as PNG with ImageMagick: magick mogrify -format png FILES"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SITK = "SimpleITK.GetArrayFromImage(SimpleITK.ReadImage('{}'))"

#: Those that ``ingest`` reads come first.
FILES = (
    ForeignKind("a TIFF file", (".tif", ".tiff", ".btf", ".tf8"), magic=(
        (0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+"))),
    ForeignKind("a PNG image", (".png",), magic=((0, b"\x89PNG"),)),
    ForeignKind("an HDF5 file", (".h5", ".hdf5", ".hdf", ".ims", ".mat", ".nwb", ".dream3d"),
        magic=((0, _HDF5), (512, _HDF5))),
    ForeignKind("a NumPy file", (".npy", ".npz"), magic=((0, b"\x93NUMPY"),)),
    ForeignKind("an MRC file", (".mrc", ".mrcs", ".map", ".rec", ".st", ".ali"),
        _by_numpy("mrcfile", "mrcfile.mmap('em.mrc').data"), ((208, b"MAP "), (208, b"MAP\0"))),
    ForeignKind("an NRRD file", (".nrrd", ".nhdr"),
        _by_numpy("pynrrd", "nrrd.read('em.nrrd')[0].T"), ((0, b"NRRD000"),)),
    ForeignKind("a NIfTI file", (".nii", ".nii.gz", ".hdr"),
        _by_numpy("nibabel", "nibabel.load('em.nii').dataobj[:].T"),
        ((344, b"n+1\0"), (344, b"ni1\0"), (4, b"n+2\0"))),
    ForeignKind("a MetaImage file", (".mha", ".mhd"),
        _by_numpy("SimpleITK", _SITK.format("em.mha")), ((0, b"ObjectType = Image"),)),
    ForeignKind("a DICOM file", (".dcm",),
        _by_numpy("SimpleITK", _SITK.format("em.dcm")), ((128, b"DICM"),)),
    ForeignKind("a VTK file", (".vtk", ".vti"), "Save it as TIFF in ParaView",
        ((0, b"# vtk DataFile"), (ANYWHERE, b"<VTKFile"))),
    ForeignKind("a DM3 or DM4 file", (".dm3", ".dm4"),
        "Save it as TIFF in DigitalMicrograph or Fiji"),
    ForeignKind("an Amira file", (".am",), "Save it as TIFF in Amira or Fiji",
        ((0, b"# AmiraMesh"), (0, b"# Avizo"), (0, b"# HyperSurface"))),
    ForeignKind("a CZI file", (".czi",), _by_numpy("czifile", "czifile.imread('em.czi')"),
        ((0, b"ZISRAWFILE"),)),
    ForeignKind("a LIF file", (".lif",), _by_numpy("liffile", "liffile.imread('em.lif')"),
        ((0, b"\x70\0\0\0"),)),
    ForeignKind("an ND2 file", (".nd2",), _by_numpy("nd2", "nd2.imread('em.nd2')"),
        ((0, b"\xda\xce\xbe\x0a"),)),
    ForeignKind("a JPEG image", (".jpg", ".jpeg"), _MAGICK, ((0, b"\xff\xd8\xff"),)),
    ForeignKind("a JPEG 2000 image", (".jp2", ".j2k"), _MAGICK,
        ((0, b"\0\0\0\x0cjP  "), (0, b"\xff\x4f\xff\x51"))),
    ForeignKind("a BMP image", (".bmp",), _MAGICK, ((0, b"BM"),)),
    ForeignKind("a GIF image", (".gif",), _MAGICK, ((0, b"GIF8"),)),
    ForeignKind("a WebP image", (".webp",), _MAGICK, ((8, b"WEBP"),)),
    ForeignKind("an HDF4 file", (), "Convert it with h4toh5, and ingest the HDF5 file",
        ((0, b"\x0e\x03\x13\x01"),)),
    ForeignKind("a netCDF file of the classic kind", (".nc",),
        "Convert it: nccopy -k nc4 em.nc em.h5, and ingest em.h5",
        ((0, b"CDF\x01"), (0, b"CDF\x02"))),
    ForeignKind("a MATLAB file of version 7 or older", (),
        "Save it in MATLAB with -v7.3, or with SciPy: "
        "numpy.save('em.npy', scipy.io.loadmat('em.mat')['NAME'])", ((0, b"MATLAB 5.0"),)),
    ForeignKind("a zipped Zarr", (".zarr.zip", ".ozx"), "Unpack it: unzip em.zarr.zip -d em.zarr"),
    ForeignKind("a FIB-SEM file (.dat)", (),
        "Save its images as TIFF in Fiji, or with the program of the microscope",
        ((0, b"\xd3\xed\xf5\xf2"),)),
    ForeignKind("a BigDataViewer project", (), "Give the file beside it that holds the voxels, "
        "for example em.h5:/t00000/s00/0/cells", ((ANYWHERE, b"<SpimData"),)),
    ForeignKind("raw values without a header", (".raw", ".dat", ".bin", ".vol"),
        "Say what they are: numpy.save('em.npy', numpy.fromfile('em.raw', 'uint8')"
        ".reshape(SECTIONS, ROWS, COLUMNS)), and ingest em.npy"),
    ForeignKind("a model file", (".safetensors",), "Give a volume; a model is given as --model"),
    ForeignKind("compressed by gzip", (".gz",), "Unpack it: gunzip FILE", ((0, b"\x1f\x8b"),)),
)  # fmt: skip

_TENSORSTORE = "tensorstore.open({{'driver': '{}', 'kvstore': 'file://PATH'}}).result(){}"

N5 = ForeignKind("an N5 container", (".n5",),
    _by_numpy("tensorstore", _TENSORSTORE.format("n5", ".read().result().T")))  # fmt: skip
PRECOMPUTED = ForeignKind("neuroglancer's precomputed format", (), _by_numpy("tensorstore",
    _TENSORSTORE.format("neuroglancer_precomputed", "[..., 0].read().result().T")))  # fmt: skip
KNOSSOS = ForeignKind("a KNOSSOS dataset", (), "Convert it: webknossos convert-knossos")
WKW = ForeignKind("a WKW layer of WEBKNOSSOS", (), "Convert it: webknossos export-as-tiff")
ZARR_BEHIND = ForeignKind("a URL of neuroglancer", (), "Give the URL without what stands before it")

_INNER = re.compile(r"(?P<path>.+\.\w+):.*")
_SCHEMES = {"precomputed": PRECOMPUTED, "n5": N5, "zarr": ZARR_BEHIND, "zarr3": ZARR_BEHIND}


def recognise(location: str) -> ForeignKind | None:
    """Tell what lies at a location that cannot be opened as Zarr.

    Parameters
    ----------
    location : str
        A local path, FILE:NAME for what is inside a file, or a URL.

    Returns
    -------
    ForeignKind or None
        None where nothing is there, nothing known, or a Zarr that is damaged.
    """
    if is_remote(location):
        if (known := by_scheme(location)) is not None:
            return known
        read = functools.partial(_read_or_none, location)
        if any(read(name) is not None for name in ZARR_FILES):
            return None
        return by_suffix(location) or _folder_kind(location, read)
    path, inner = local_path(location), _INNER.fullmatch(location)
    try:
        if not path.exists() and inner:
            path = local_path(inner["path"])
        if path.is_dir():
            return _local_folder(path)
        return file_kind(path) if path.is_file() else None
    except OSError:  # what may not be looked at is said elsewhere
        return None


def _read_or_none(location: str, name: str) -> bytes | None:
    try:
        return read_object(location, name)
    except Exception:  # it is for a message only
        return None


def by_scheme(location: str) -> ForeignKind | None:
    """Tell what a URL means that only other programs know."""
    scheme, separator, _ = location.partition("://")
    return _SCHEMES.get(scheme.lower()) if separator else None


def file_kind(path: Path, *, by_name: bool = True) -> ForeignKind | None:
    """Tell what a local file is, by its bytes.

    Parameters
    ----------
    path : pathlib.Path
    by_name : bool
        Ask its name where its bytes say nothing.

    Returns
    -------
    ForeignKind or None
        None of what is not known.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    named = by_suffix(path.name)
    if head.startswith(b"PK\x03\x04") and _holds_zarr(path):
        return by_suffix(".zarr.zip")
    # DM3 and DM4: version, size of the file, and 0 or 1 for the order of bytes.
    flags = {3: head[8:12], 4: head[12:16]}.get(int.from_bytes(head[:4], "big"), b"")
    if len(flags) == 4 and int.from_bytes(flags, "big") < 2:
        return by_suffix(".dm3")
    for kind in FILES:
        if any(_is_at(head, at, mark) for at, mark in kind.magic):
            # What is compressed says nothing of what it holds, but its name may.
            return named if named and head.startswith(b"\x1f\x8b") else kind
    return named if by_name else None


def _is_at(head: bytes, at: int, mark: bytes) -> bool:
    return mark in head if at == ANYWHERE else head.startswith(mark, at)


def by_suffix(name: str) -> ForeignKind | None:
    """Tell what a file or folder is by what its name ends in."""
    lower = name.lower().rstrip("/")
    found = [
        (len(suffix), kind)
        for kind in (*FILES, N5)
        for suffix in kind.suffixes
        if lower.endswith(suffix)
    ]
    # .nii.gz rather than .gz
    return max(found, key=lambda pair: pair[0], default=(0, None))[1]


def _holds_zarr(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.rpartition("/")[2] in ("zarr.json", ".zgroup", ".zarray") for name in names)


def _local_folder(folder: Path) -> ForeignKind | None:
    def read(name: str) -> bytes | None:
        path = folder / name
        return path.read_bytes() if path.is_file() else None

    if any((folder / name).exists() for name in ZARR_FILES):
        return None
    # An array of an N5 need not say so: the folder that does may lie above.
    above = [(parent / "attributes.json") for parent in folder.parents[:4]]
    if any(path.is_file() and "n5" in _mapping(path.read_bytes()) for path in above):
        return N5
    return _folder_kind(str(folder), read) or _sections(folder)


def _folder_kind(location: str, read: Reader) -> ForeignKind | None:
    attributes = _mapping(read("attributes.json"))
    if "n5" in attributes or {"dimensions", "blockSize", "dataType"} <= attributes.keys():
        return N5
    info = _mapping(read("info"))
    typed = info.get("@type") == "neuroglancer_multiscale_volume"
    if typed or {"scales", "data_type"} <= info.keys():
        return PRECOMPUTED
    for kind, names in ((KNOSSOS, ("knossos.conf", "mag1/knossos.conf")), (WKW, ("header.wkw",))):
        if any(read(name) is not None for name in names):
            return kind
    return N5 if location.rstrip("/").endswith(".n5") else None


def _sections(folder: Path) -> ForeignKind | None:
    names = sorted(path.name for path, _ in zip(folder.iterdir(), range(MOST_NAMES), strict=False))
    if any(name.endswith((".k.toml", ".k.conf")) for name in names):
        return KNOSSOS
    kinds = {name: kind for name in names if (kind := by_suffix(name)) and kind is not N5}
    counts = Counter(kinds.values())
    # Sections may each have a file beside them, but one image is likelier a picture of the rest.
    ranked = sorted(
        counts,
        key=lambda kind: (counts[kind], bool(SECTIONS & {*kind.suffixes}) == (counts[kind] > 1)),
    )
    for kind in ranked[-1:]:
        count = counts[kind]
        example = next(name for name in kinds if kinds[name] == kind)
        plural = f"{count} files such as" if count > 1 else "one file,"
        cure = kind.cure
        if kind.is_ingested and not SECTIONS & {*kind.suffixes}:
            cure = f"Give the file: {folder / example}"
        return ForeignKind(f"a folder of {plural} {example}, {kind.name}", (), cure)
    return None


def _mapping(text: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(text or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
