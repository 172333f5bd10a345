"""Which arrays a file holds, where it may hold several."""

from __future__ import annotations

import zipfile
from pathlib import Path

import tifffile

from tilenet.formats.files import HDF5, TIFF
from tilenet.formats.hdf5_datasets import list_datasets
from tilenet.formats.npy import npy_header
from tilenet.formats.tiff_images import list_images

#: Name, shape and data type.
Held = tuple[str, tuple[int, ...], str]


def list_arrays(path: str) -> list[Held]:
    """List the arrays in an HDF5, NumPy or TIFF file.

    Parameters
    ----------
    path : str

    Returns
    -------
    list of tuple
        Name (of an image of a TIFF file its number), shape, and data type of each; none of what is
        no such file.
    """
    suffix = Path(path).suffix.lower()
    if not Path(path).is_file():
        return []
    if suffix in HDF5:
        return _hdf5(path)
    if suffix == ".npz":
        return _npz(path)
    if suffix in TIFF:
        with tifffile.TiffFile(path) as file:
            images = list_images(file.series)
            return [
                (str(i), image.sizes, str(image.series.dtype)) for i, image in enumerate(images)
            ]
    return []


def _hdf5(path: str) -> list[Held]:
    import h5py

    with h5py.File(path, "r", locking="best-effort") as file:
        return list_datasets(file)


def _npz(path: str) -> list[Held]:
    found: list[Held] = []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            try:
                with archive.open(name) as file:
                    shape, _, dtype = npy_header(file)
            except ValueError:  # records, or no array at all
                continue
            found.append((name.removesuffix(".npy"), shape, str(dtype)))
    return found
