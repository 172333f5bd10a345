"""HDF5 files of BigDataViewer: a dataset per time point, view and level, and an XML file beside.

BigDataViewer stores whole numbers without sign as those with sign. What they are it states as
``dataType`` of the view, and before version 10.4.7 not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from tilenet.formats.hdf5_attributes import text
from tilenet.formats.hdf5_programs import Written
from tilenet.volumes import nanometres_per

_CELLS = re.compile(r"/t(\d{5,})/s(\d{2,})/(\d+)/cells")

#: Bytes of an XML file that are read, and how many files beside are looked into.
_LARGEST, _MOST = 10**7, 20


def finest_cells(names: Sequence[str]) -> str | None:
    """Name the finest level among the datasets of a file, where it holds one view of one time."""
    cells = [(name, match) for name in names if (match := _CELLS.fullmatch(name))]
    if len({match.group(1, 2) for _, match in cells}) != 1:
        return None
    return min(cells, key=lambda item: int(item[1][3]))[0]


def bigdataviewer(path: str, file: Any, name: str, dtype: np.dtype[Any]) -> Written | None:
    match = _CELLS.fullmatch(name)
    if match is None:
        return None
    time, setup, level = (int(number) for number in match.groups())
    view = file.get(f"s{match[2]}")
    stated = None if view is None else text(view.attrs.get("dataType"))
    meant, notes = _meant_type(name, dtype, stated)
    factors = _factors(view, level)
    if factors is None:
        notes.append(f"BigDataViewer states no scale of {name}; its voxel size is left out.")
        return Written(names="zyx", dtype=meant, notes=tuple(notes))
    size, place, more = _from_xml(path, time, setup)
    if size is not None and place is not None:
        # The voxels of a coarser level are centred in those that they were made of.
        z, y, x = (p + (f - 1) / 2 * s for p, f, s in zip(place, factors, size, strict=True))
        place = (z, y, x)
    if size is not None:
        z, y, x = (f * s for f, s in zip(factors, size, strict=True))
        size = (z, y, x)
    return Written(
        names="zyx", dtype=meant, voxel_size=size, translation=place, notes=(*notes, *more)
    )


def _meant_type(
    name: str, stored: np.dtype[Any], stated: str | None
) -> tuple[np.dtype[Any] | None, list[str]]:
    if stored.kind != "i" or stated == stored.name:
        return None, []
    unsigned = np.dtype(f"{stored.byteorder}u{stored.itemsize}")
    if stated == unsigned.name:
        return unsigned, []
    if stated is None and stored.itemsize <= 2:
        note = f"{name} is {stored.name}, as which BigDataViewer stores {unsigned.name}; it is "
        return unsigned, [f"{note}read as {unsigned.name}."]
    return None, [f"{name} is {stored.name}, but BigDataViewer states {stated or 'no type'}."]


def _factors(view: Any, level: int) -> tuple[float, float, float] | None:
    rows = None if view is None else view.get("resolutions")
    if rows is None or rows.ndim != 2 or rows.shape[1] != 3 or level >= rows.shape[0]:
        return (1.0, 1.0, 1.0) if level == 0 else None
    x, y, z = (float(factor) for factor in rows[level])
    return z, y, x


# -- the XML file ---------------------------------------------------------------------------------

_Place = tuple[float, float, float] | None


def _from_xml(path: str, time: int, setup: int) -> tuple[_Place, _Place, list[str]]:
    for root in _descriptions(Path(path)):
        for view in root.iterfind("SequenceDescription/ViewSetups/ViewSetup"):
            if (view.findtext("id") or "").strip() == str(setup):
                return _of_view(root, view, time, setup)
    return None, None, []


def _descriptions(path: Path) -> Iterator[ET.Element]:
    beside = [file for file in sorted(path.parent.glob("*.xml")) if file.stem != path.stem]
    for file in [path.with_suffix(".xml"), *beside[:_MOST]]:
        try:
            if file.stat().st_size > _LARGEST:
                continue
            root = ET.fromstring(file.read_bytes())  # noqa: S314  trusted as the data are
        except (OSError, ET.ParseError):
            continue
        named = root.findtext("SequenceDescription/ImageLoader/hdf5") or ""
        if root.tag == "SpimData" and Path(named.strip()).name == path.name:
            yield root


def _of_view(
    root: ET.Element, view: ET.Element, time: int, setup: int
) -> tuple[_Place, _Place, list[str]]:
    unit = (view.findtext("voxelSize/unit") or "").strip()
    sizes = _numbers(view.findtext("voxelSize/size"))
    factor = nanometres_per(unit)
    if len(sizes) != 3 or min(sizes) <= 0:
        return None, None, []
    if factor is None:
        if unit.lower() in ("", "px", "pixel", "pixels", "voxel"):  # which is no size
            return None, None, []
        note = f"The XML file states the voxel size in {unit!r}, which is not understood."
        return None, None, [note]
    x, y, z = (size * factor for size in sizes)
    affine = _affine(root, time, setup)
    turns = affine[:3, :3] - np.diag(np.diag(affine)[:3])
    notes = []
    if np.abs(turns).max() > 1e-6 * np.abs(affine[:3, :3]).max():
        notes.append("The XML file turns or shears this view, which is not done.")
    elif np.allclose(np.diag(affine)[:3], sizes, rtol=1e-4):
        px, py, pz = (affine[:3, 3] * factor).tolist()
        return (z, y, x), (pz, py, px), notes
    elif affine[:3, 3].any():
        notes.append("The XML file places this view in another unit than its voxel size, which is "
                     "left out.")  # fmt: skip
    return (z, y, x), None, notes


def _affine(root: ET.Element, time: int, setup: int) -> np.ndarray[Any, Any]:
    whole = np.eye(4)
    for view in root.iterfind("ViewRegistrations/ViewRegistration"):
        if (view.get("timepoint"), view.get("setup")) != (str(time), str(setup)):
            continue
        for transform in view.iterfind("ViewTransform"):  # the last one comes first
            rows = _numbers(transform.findtext("affine"))
            if len(rows) == 12:
                whole = whole @ np.vstack([np.reshape(rows, (3, 4)), [0, 0, 0, 1]])
    return whole


def _numbers(words: str | None) -> list[float]:
    try:
        return [float(word) for word in (words or "").split()]
    except ValueError:
        return []
