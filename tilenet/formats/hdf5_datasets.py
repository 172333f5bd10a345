"""Which of the datasets of an HDF5 file is meant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from natsort import natsorted

from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.formats.bigdataviewer import finest_cells
from tilenet.formats.imaris import imaris_channels, is_imaris
from tilenet.volumes import is_image_like

#: A message lists at most so many datasets.
_LISTED = 20


@dataclass(frozen=True, slots=True)
class _Dataset:
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def is_image(self) -> bool:
        return is_image_like(self.shape, self.dtype)

    def rank(self) -> tuple[int, int, int]:
        """Sort volumes before sections before tables, and the largest of each first."""
        if not self.is_image():
            return 2, 0, 0
        # Labels and probabilities have more bytes than the grey values that they were made of.
        is_section = sum(size > 1 for size in self.shape) == 2
        return is_section, -math.prod(self.shape), self.dtype.itemsize

    def __str__(self) -> str:
        sizes = " x ".join(map(str, self.shape)) or "one value"
        kind = "text or records" if self.dtype.kind in "OSUV" else self.dtype.name
        return f"{self.name}: {sizes} {kind}"


def choose_datasets(
    path: str, file: Any, inner: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the dataset that is read, or those that are read as channels, with notes on the choice.

    Without a name it is the only one, or the only one that can be an image: programs store tables
    beside their images.
    """
    import h5py

    node = file.get(inner) if inner else None
    if isinstance(node, h5py.Dataset):
        return (f"/{str(inner).strip('/')}",), ()
    if inner and node is None:
        _check_link(path, file, inner)
    found = list(_datasets(file, "", {_identity(file)}))
    if not found:
        raise UnreadableVolume(path, "is an HDF5 file without datasets", "Give another file")
    problem = "holds several datasets"
    if not inner:
        chosen, notes = _only_image(file, found)
        if chosen:
            return chosen, notes
    elif node is None:
        problem = f"has no dataset {inner!r}"
    else:
        problem = f"has a group at {inner!r}"
        inside = f"/{inner.strip('/')}/"
        found = [dataset for dataset in found if dataset.name.startswith(inside)] or found
    found = sorted(natsorted(found, key=lambda one: one.name), key=_Dataset.rank)
    seen = (*map(str, found[:_LISTED]), *(["..."] if len(found) > _LISTED else []))
    cure = f"Name a dataset, for example {path}:{found[0].name}"
    raise AmbiguousVolume(path, problem, seen, cure, are_volumes=not inner)


def list_datasets(file: Any) -> list[tuple[str, tuple[int, ...], str]]:
    """Give the name, the shape and the data type of each dataset, in natural order."""
    found = natsorted(_datasets(file, "", {_identity(file)}), key=lambda one: one.name)
    return [(dataset.name, dataset.shape, str(dataset.dtype)) for dataset in found]


def _only_image(file: Any, found: Sequence[_Dataset]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    by_name = {dataset.name: dataset for dataset in found}
    if len(found) == 1:
        return (found[0].name,), ()
    if is_imaris(file):
        channels = imaris_channels(file)
        kinds = {(by_name[n].shape, by_name[n].dtype) for n in channels if n in by_name}
        return (tuple(channels) if len(kinds) == 1 else ()), ()
    cells = finest_cells(list(by_name))
    if cells is not None:
        return (cells,), ()
    images = [dataset.name for dataset in found if dataset.is_image()]
    if len(images) != 1:
        return (), ()
    return tuple(images), (f"{images[0]} is read, the only image among {len(found)} datasets.",)


def _check_link(path: str, file: Any, inner: str) -> None:
    import h5py

    try:
        link = file.get(inner, getlink=True)
    except KeyError:
        return
    if isinstance(link, h5py.ExternalLink):
        problem = f"has at {inner!r} a link to {link.filename}, which is missing"
        raise UnreadableVolume(path, problem, "Put that file in its place again")


def _datasets(group: Any, above: str, seen: set[tuple[str, int]]) -> Iterator[_Dataset]:
    # Not h5py's visititems, which follows no links: BigDataViewer links to other files.
    import h5py

    for key in group:
        try:
            node = group[key]
            identity = _identity(node)
        except (KeyError, OSError, RuntimeError):
            if isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise
            continue  # a link to nothing
        if identity in seen or key.startswith("#"):  # MATLAB's own
            continue
        seen.add(identity)
        name = f"{above}/{key}"
        if isinstance(node, h5py.Group):
            yield from _datasets(node, name, seen)
        elif isinstance(node, h5py.Dataset):
            yield _Dataset(name, node.shape or (), node.dtype)


def _identity(node: Any) -> tuple[str, int]:
    import h5py

    return node.file.filename, h5py.h5o.get_info(node.id).addr
