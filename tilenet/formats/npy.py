"""NumPy's files as arrays of which any part can be read."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import AmbiguousVolume
from tilenet.formats.axes import StoredArray, check_values


def open_npy(path: str, inner: str | None = None) -> StoredArray:
    del inner
    values = np.lib.format.open_memmap(path, mode="r")
    check_values(path, values.shape, values.dtype)
    pieces = (1,) * values.ndim
    return StoredArray(values.shape, values.dtype, pieces, lambda r: np.array(values[tuple(r)]))


def open_npz(path: str, inner: str | None) -> StoredArray:
    """Open an array of an ``.npz`` file.

    A reading decompresses it from its start to the end of what is asked for, and keeps only that.
    """
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    wanted = inner or (names[0] if len(names) == 1 else None)
    if wanted in names:
        return _Compressed(path, f"{wanted}.npy").stored()
    problem = f"has no array {inner!r}" if inner else f"holds {len(names)} arrays"
    cure = f"Name an array, for example {path}:{names[0] if names else 'NAME'}"
    raise AmbiguousVolume(path, problem, tuple(names[:20]), cure, are_volumes=not inner)


class _Compressed:
    def __init__(self, path: str, member: str) -> None:
        self._path, self._member = path, member
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            self._sizes, self._reversed, self._dtype = npy_header(file)
            self._start = file.tell()

    def stored(self) -> StoredArray:
        check_values(self._path, self._sizes, self._dtype)
        pieces = list(self._sizes)
        pieces[-1 if self._reversed else 0] = 1
        return StoredArray(self._sizes, self._dtype, tuple(pieces), self.read)

    def read(self, ranges: Sequence[slice]) -> npt.NDArray[Any]:
        # Fortran order is C order with the axes reversed; either way the first axis is a run.
        step = -1 if self._reversed else 1
        (first, *others), sizes = tuple(ranges)[::step], self._sizes[::step]
        row = int(np.prod(sizes[1:], dtype=np.int64)) * self._dtype.itemsize
        with zipfile.ZipFile(self._path) as archive, archive.open(self._member) as file:
            file.seek(self._start + first.start * row)
            data = file.read((first.stop - first.start) * row)
        values = np.frombuffer(data, self._dtype).reshape(first.stop - first.start, *sizes[1:])
        part = values[(slice(None), *others)]
        return (part.T if self._reversed else part).copy()


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f".npy format {version} is for records, not for numbers")
