"""HDF5 datasets as arrays of which any part can be read."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.formats.axes import StoredArray, check_values
from tilenet.formats.voxel_size import hdf5_voxel_size

#: Read-only file systems and some network ones refuse locks.
_LOCKING = "best-effort"

# HDF5 lets in one thread at a time anyhow, and closing a file must not close it under another.
_lock = threading.Lock()

#: A message lists at most so many datasets.
_LISTED = 20


def open_hdf5(path: str, inner: str | None) -> StoredArray:
    try:
        import h5py
    except ImportError as error:
        cure = "Install it: pip install 'tilenet[hdf5]'"
        raise UnreadableVolume(path, "is HDF5, which needs the package h5py", cure) from error
    with _lock, h5py.File(path, "r", locking=_LOCKING) as file:
        name = _choose_dataset(path, file, inner)
        return _stored(path, name, file[name])


def _stored(path: str, name: str, dataset: Any) -> StoredArray:
    location = f"{path}:{name}"
    sizes = (0,) if dataset.shape is None else dataset.shape
    check_values(location, sizes, dataset.dtype)
    _check_filters(location, dataset)
    _check_virtual(location, dataset)

    def read(ranges: Sequence[slice]) -> npt.NDArray[Any]:
        import h5py

        # Opened anew every time: an open file could not be written to, by other programs either.
        with _lock, h5py.File(path, "r", locking=_LOCKING) as file:
            return np.asarray(file[name][tuple(ranges)])

    return StoredArray(
        dataset.shape,
        dataset.dtype,
        dataset.chunks or (1,) * dataset.ndim,
        read,
        voxel_size=hdf5_voxel_size(dataset.attrs),
    )


def _choose_dataset(path: str, file: Any, inner: str | None) -> str:
    import h5py

    found: list[str] = []
    file.visititems(
        lambda name, node: found.append(f"/{name}") if isinstance(node, h5py.Dataset) else None
    )
    if not found:
        raise UnreadableVolume(path, "is an HDF5 file without datasets", "Give another file")
    if not inner and len(found) == 1:
        return found[0]
    problem = "holds several datasets"
    if inner:
        node = file.get(inner)
        if isinstance(node, h5py.Dataset):
            return inner
        problem = f"has no dataset {inner!r}" if node is None else f"has a group at {inner!r}"
    seen = (*found[:_LISTED], *(["..."] if len(found) > _LISTED else []))
    raise AmbiguousVolume(path, problem, seen, f"Name a dataset, for example {path}:{found[0]}")


def _check_filters(location: str, dataset: Any) -> None:
    import h5py

    created = dataset.id.get_create_plist()
    for i in range(created.get_nfilters()):
        code, *_, name = created.get_filter(i)
        if not h5py.h5z.filter_avail(code):
            called = f"{code} ({name.decode(errors='replace')})"
            problem = f"is compressed with HDF5 filter {called}, which is not installed"
            cure = "Rewrite it where that filter is installed: h5repack -f GZIP=4 OLD.h5 NEW.h5"
            raise UnreadableVolume(location, problem, cure)


def _check_virtual(location: str, dataset: Any) -> None:
    # HDF5 reads zeros where a file that a virtual dataset is made of is missing.
    sources = dataset.virtual_sources() if dataset.is_virtual else []
    folder = Path(dataset.file.filename).parent
    for name in sorted({source.file_name for source in sources} - {"."}):
        if "%" not in name and not (folder / name).exists():
            problem = f"is made of datasets in other files, of which {name} is missing"
            raise UnreadableVolume(location, problem, "Put that file in its place again")
