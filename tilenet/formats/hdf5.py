"""HDF5 datasets as arrays of which any part can be read."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import UnreadableVolume
from tilenet.formats.axes import StoredArray, check_values, obeyed
from tilenet.formats.bigdataviewer import bigdataviewer
from tilenet.formats.hdf5_attributes import stated_axes, stated_size
from tilenet.formats.hdf5_datasets import choose_datasets
from tilenet.formats.hdf5_programs import (
    Written,
    cremi,
    dream3d,
    is_matlab,
    matlab,
    nwb,
)
from tilenet.formats.imaris import imaris, imaris_channel_names, is_imaris
from tilenet.volumes import few_stored

#: Read-only file systems and some network ones refuse locks.
_LOCKING = "best-effort"

# HDF5 lets in one thread at a time anyhow, and closing a file must not close it under another.
_lock = threading.Lock()


def open_hdf5(path: str, inner: str | None, given: str | None = None) -> StoredArray:
    """Open a dataset; ``given`` are its axes as the caller names them, where the file does not."""
    try:
        import h5py
    except ImportError as error:
        cure = "Install it: pip install 'tilenet[hdf5]'"
        raise UnreadableVolume(path, "is HDF5, which needs the package h5py", cure) from error
    with _lock, h5py.File(path, "r", locking=_LOCKING) as file:
        names, notes = choose_datasets(path, file, inner)
        return _stored(path, file, names, notes, given)


@dataclass(frozen=True)
class _Datasets:
    """Reads a dataset, or several of one shape as channels, as the program means it."""

    path: str
    names: tuple[str, ...]  # several are counted by an axis before those of each
    written: Written

    def read(self, ranges: Sequence[slice]) -> npt.NDArray[Any]:
        import h5py

        # Opened anew every time: an open file could not be written to, by other programs either.
        with _lock, h5py.File(self.path, "r", locking=_LOCKING) as file:
            if len(self.names) == 1:
                return self._part(file[self.names[0]], ranges)
            return np.stack([self._part(file[n], ranges[1:]) for n in self.names[ranges[0]]])

    def _part(self, dataset: Any, ranges: Sequence[slice]) -> npt.NDArray[Any]:
        step = -1 if self.written.column_major else 1
        values = np.asarray(dataset[tuple(ranges)[::step]])
        values = values.T.copy() if self.written.column_major else values
        return values if self.written.dtype is None else values.view(self.written.dtype)


def _stored(
    path: str, file: Any, names: Sequence[str], notes: Sequence[str], given: str | None
) -> StoredArray:
    for name in names:
        notes = (*notes, *_check_dataset(path, name, file[name]))
    dataset = file[names[0]]
    written = _written(path, file, names[0], dataset)
    few = [
        f"{name}: {note}" if len(names) > 1 else note
        for name in names
        for note in _few_chunks(file[name], written.sizes or dataset.shape)
    ]
    stated = stated_axes(dataset)
    step = -1 if written.column_major else 1
    axes = stated.names[::step] if stated.names else written.names
    sizes = (written.sizes or dataset.shape)[::step]
    pieces = (dataset.chunks or (1,) * dataset.ndim)[::step]
    if len(names) > 1:
        axes, sizes, pieces = f"c{axes}", (len(names), *sizes), (1, *pieces)
    # Sizes are listed in the order of the axes.
    named = given.lower() if given and not axes else axes and "".join(obeyed(sizes, axes))
    place = stated_size(dataset, named)
    return StoredArray(
        sizes,
        written.dtype or dataset.dtype,
        tuple(min(p, n) for p, n in zip(pieces, sizes, strict=True)),
        _Datasets(path, tuple(names), written).read,
        axes,
        written.voxel_size or place.voxel_size,
        written.translation or place.translation,
        (*notes, *few, *written.notes, *stated.notes, *place.notes),
        channels=imaris_channel_names(file, names) if len(names) > 1 else (),
        contradiction=stated.contradiction,
    )


def _written(path: str, file: Any, name: str, dataset: Any) -> Written:
    if is_imaris(file):
        return imaris(dataset) or Written()
    if is_matlab(dataset):
        return matlab(dataset)
    of_bigdataviewer = bigdataviewer(path, file, name, dataset.dtype)
    return of_bigdataviewer or cremi(dataset) or nwb(dataset) or dream3d(dataset) or Written()


def _check_dataset(path: str, name: str, dataset: Any) -> Sequence[str]:
    location = f"{path}:{name}"
    sizes = (0,) if dataset.shape is None else dataset.shape
    check_values(location, sizes, dataset.dtype)
    _check_filters(location, dataset)
    notes = _check_virtual(location, dataset)
    kept_elsewhere = dataset.is_virtual or dataset.external
    if not kept_elsewhere and dataset.id.get_storage_size() == 0:
        fill = dataset.fillvalue
        problem = f"was never written, so that every voxel would read as {fill}"
        raise UnreadableVolume(location, problem, f"Write it again, also if all are {fill}")
    return notes


def _few_chunks(dataset: Any, sizes: Sequence[int]) -> Sequence[str]:
    if dataset.chunks is None or dataset.is_virtual:
        return ()
    total = math.prod(math.ceil(n / c) for n, c in zip(sizes, dataset.chunks, strict=True))
    found = dataset.id.get_num_chunks()
    text = f"{found:,} of {total:,} chunks are stored"
    note = few_stored(found, total, text, dataset.fillvalue)
    return () if note is None else (note,)


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


def _check_virtual(location: str, dataset: Any) -> Sequence[str]:
    # HDF5 reads zeros where a source of a virtual dataset is missing, or none is named.
    sources = dataset.virtual_sources() if dataset.is_virtual else []
    for source in sorted({(s.file_name, s.dset_name) for s in sources}):
        if "%" not in "".join(source):  # else a pattern, of files that need not be there
            _check_source(location, dataset, *source)
    if not sources:
        return ()
    mapped = sum(source.vspace.get_select_npoints() for source in sources)
    share = mapped / math.prod(dataset.shape)
    if share >= 1:
        return ()
    rest = f"the rest reads as {dataset.fillvalue}"
    return (f"Only {100 * share:.3g} % of the virtual dataset is mapped to others; {rest}.",)


def _check_source(location: str, dataset: Any, file_name: str, inner: str) -> None:
    import h5py

    own = Path(dataset.file.filename)
    path = own if file_name == "." else own.parent / file_name
    problem = f"is made of datasets in other files, of which {file_name} is missing"
    cure = "Put that file in its place again"
    if not path.exists():
        raise UnreadableVolume(location, problem, cure)
    with h5py.File(path, "r", locking=_LOCKING) as file:
        source = file.get(inner)
        if not isinstance(source, h5py.Dataset):
            problem = f"is made of datasets, of which {inner} is not in {path.name}"
            raise UnreadableVolume(location, problem, cure)
