"""Imaris files: HDF5 with a dataset per resolution level, time point and channel.

Each is filled up to whole chunks, and its group says which part of it is the image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from natsort import natsorted

from tilenet.errors import UnreadableVolume
from tilenet.formats.hdf5_attributes import attributes_of, text
from tilenet.formats.hdf5_programs import Written
from tilenet.geometry import ZYX
from tilenet.volumes import nanometres_per

# A file may hold several data sets: DataSet, DataSet1, DataSet2 ...
_LEVEL = re.compile(r"/DataSet(\d*)/ResolutionLevel (\d+)/TimePoint \d+/Channel \d+/Data")


def is_imaris(file: Any) -> bool:
    return "ImarisDataSet" in file.attrs


def imaris_channels(file: Any) -> list[str]:
    """Name the finest level of a file with one data set and time point, a dataset a channel."""
    sets = [name for name in file if re.fullmatch(r"DataSet\d*", name)]
    points = file.get(f"{sets[0]}/ResolutionLevel 0") if len(sets) == 1 else None
    if points is None or len(points) != 1:
        return []
    point = next(iter(points))
    above = f"/{sets[0]}/ResolutionLevel 0/{point}"
    return [f"{above}/{name}/Data" for name in natsorted(points[point])]


def imaris_channel_names(file: Any, datasets: Sequence[str]) -> tuple[str, ...]:
    """Read what a file calls the channels that are stored in some of its datasets."""
    groups = [name.rpartition("/")[0] for name in datasets]
    infos = [file.get(f"DataSetInfo/{group.rpartition('/')[2]}") for group in groups]
    return tuple(
        "" if info is None else (text(attributes_of(info).get("Name")) or "").strip(" \0")
        for info in infos
    )


def imaris(dataset: Any) -> Written | None:
    level = _LEVEL.fullmatch(dataset.name)
    if level is None or dataset.ndim != 3:
        return None
    info = dataset.file.get(f"DataSetInfo{level[1]}/Image")
    image = {} if info is None else attributes_of(info)
    own = _numbers(attributes_of(dataset.parent), "ImageSizeZ", "ImageSizeY", "ImageSizeX")
    if own is None and level[2] == "0":
        own = _numbers(image, "Z", "Y", "X")
    if own is None:
        note = f"Imaris does not state the size of {dataset.name}; what fills it up is read too."
        return Written(names="zyx", notes=(note,))
    z, y, x = (int(size) for size in own)
    if not all(0 < size <= stored for size, stored in zip((z, y, x), dataset.shape, strict=True)):
        location = f"{dataset.file.filename}:{dataset.name}"
        problem = f"states an image of {z} x {y} x {x} in a dataset of {dataset.shape}"
        raise UnreadableVolume(location, problem, "Save it anew in Imaris")
    return _placed((z, y, x), image)


def _placed(sizes: ZYX, image: Mapping[str, Any]) -> Written:
    unit = text(image.get("Unit")) or "um"
    factor = nanometres_per(unit)
    low = _numbers(image, "ExtMin2", "ExtMin1", "ExtMin0")
    high = _numbers(image, "ExtMax2", "ExtMax1", "ExtMax0")
    if low is None or high is None:
        return Written(names="zyx", sizes=sizes)
    if factor is None:
        note = f"Imaris states the voxel size in {unit!r}, which is not understood."
        return Written(names="zyx", sizes=sizes, notes=(note,))
    voxel, start = [], []
    for n, first, last in zip(sizes, low, high, strict=True):
        voxel.append(float(f"{(last - first) * factor / n:.6g}"))
        # Their outer edge, which is half a voxel before the centre of the first voxel. It is
        # given as the centre: so do converters to OME-Zarr, and labels made of such a volume have
        # the position 0 where the extents begin at 0. Half a voxel on, they would fit nowhere.
        start.append(float(f"{first * factor:.9g}"))
    if min(voxel) <= 0:
        note = "Imaris states extents that end before they start; the voxel size is left out."
        return Written(names="zyx", sizes=sizes, notes=(note,))
    size, place = (voxel[0], voxel[1], voxel[2]), (start[0], start[1], start[2])
    return Written(names="zyx", sizes=sizes, voxel_size=size, translation=place)


def _numbers(attributes: Mapping[str, Any], *names: str) -> tuple[float, float, float] | None:
    try:
        z, y, x = (float(text(attributes[name]) or attributes[name]) for name in names)
    except (KeyError, TypeError, ValueError):
        return None
    return z, y, x
