"""Layers of WEBKNOSSOS: which part of their arrays is the volume, and where it lies.

The arrays reach from voxel 0 of a dataset to the end of the last shard. What of them is the layer,
its axes and its voxel size are said in a file at the root of the dataset. In it triples are
(x, y, z), and boxes are counted in voxels of magnification 1.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tilenet.errors import AmbiguousVolume, UnreadableVolume, one_line
from tilenet.geometry import ZYX, Box, zyx
from tilenet.volumes.stores import is_remote, local_path, read_object
from tilenet.volumes.units import nanometres_per

#: The file.
PROPERTIES = "datasource-properties.json"

#: Folders between an array and the root of its dataset, at most.
DEPTH = 3

#: Formats of layers that are read.
FORMATS = ("zarr", "zarr3")


@dataclass(frozen=True, slots=True)
class Magnification:
    """One resolution of a layer."""

    location: str  # of its array
    name: str  # last part of its path
    factor: ZYX  # voxels of magnification 1 in one of its own
    axes: tuple[str, ...] | None  # of its array, where they are stated
    channel: int | None  # of its array, where the layer is one of several channels

    def crop(self, box: Box) -> Box:
        """Give the part of its array that holds a box of magnification 1."""
        return Box(
            zyx(a // f for a, f in zip(box.start, self.factor, strict=True)),
            zyx(-(-b // f) for b, f in zip(box.stop, self.factor, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer, and one of its magnifications if that is what was asked for."""

    box: Box  # in voxels of magnification 1
    voxel_size: tuple[float, float, float] | None  # nanometres, (z, y, x), of magnification 1
    magnifications: tuple[Magnification, ...]  # from the finest to the coarsest
    chosen: Magnification | None
    notes: tuple[str, ...]

    def facts(self, mag: Magnification, shape: ZYX) -> dict[str, Any]:
        """Say which part of an array of a magnification is the volume, and where it lies."""
        whole, wanted, notes = Box.of_shape(shape), mag.crop(self.box), self.notes
        crop = wanted.intersect(whole)
        if crop.size == 0:
            problem = f"is {wanted} by {PROPERTIES}, but its array is {whole}"
            raise UnreadableVolume(mag.location, problem, "Mend that file, or move it away")
        if crop != wanted:
            notes = (*notes, f"{PROPERTIES} says that it is {wanted}, but its array is {whole}.")
        return {
            "voxel_size": self.size_of(mag),
            "translation": self.position(mag, crop.start),
            "levels": {each.name: self.size_of(each) for each in self.magnifications},
            "crop": None if crop == whole else crop,
            "notes": notes,
        }

    def size_of(self, mag: Magnification) -> tuple[float, float, float] | None:
        """Give the size of a voxel of a magnification, nanometres, (z, y, x)."""
        return self.voxel_size and _triple(lambda i, size: size * mag.factor[i], self.voxel_size)

    def position(self, mag: Magnification, first: ZYX) -> tuple[float, float, float] | None:
        """Give where the centre of a voxel of its array lies, nanometres, (z, y, x)."""
        # The centre of voxel 0 of magnification 1 is the origin.
        return self.voxel_size and _triple(
            lambda i, size: size * (first[i] * mag.factor[i] + (mag.factor[i] - 1) / 2),
            self.voxel_size,
        )


def _triple(
    function: Callable[[int, float], float], sizes: tuple[float, float, float]
) -> tuple[float, float, float]:
    z, y, x = (function(i, size) for i, size in enumerate(sizes))
    return z, y, x


def find_layer(location: str) -> Layer | None:
    """Find the layer that a dataset, a layer's folder or the array of a magnification means.

    Parameters
    ----------
    location : str, path or URL

    Returns
    -------
    Layer or None
        None of what is no part of a dataset of WEBKNOSSOS.
    """
    place = location.rstrip("/") if is_remote(location) else str(local_path(location))
    root = place
    for _ in range(DEPTH + 1):
        text = read_object(root, PROPERTIES)
        if text is not None:
            return _layer_in(root, text, place.removeprefix(root).strip("/"))
        root, _, name = root.rpartition("/")
        if not root or not name:
            return None
    return None


def _layer_in(root: str, text: bytes, below: str) -> Layer | None:
    source = f"{root}/{PROPERTIES}"
    try:
        stated = json.loads(text)
        layers = {str(layer["name"]): layer for layer in stated["dataLayers"]}
        if not below:
            below = _only(root, tuple(layers))
        found = {name: tuple(_magnifications(root, name, layers[name])) for name in layers}
        here = [mag for mags in found.values() for mag in mags if mag.location == f"{root}/{below}"]
        for name, layer in layers.items():
            mags = found[name]
            # An array that several layers share, a channel each, is no layer's own.
            own = [mag for mag in here if mag in mags]
            chosen = [replace(mag, channel=None) if len(here) > 1 else mag for mag in own]
            if below == name or chosen:
                _check_format(f"{root}/{below}", layer)
                if not mags:
                    raise ValueError(f"layer {name} without magnifications")
                size, notes = _voxel_size(stated["scale"])
                box = _box(layer["boundingBox"])
                return Layer(box, size, mags, next(iter(chosen), None), notes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"cannot be read: {one_line(repr(error))}"
        cure = "Mend it. It says which part of the padded arrays beside it is the volume"
        raise UnreadableVolume(source, problem, cure) from error
    return None


def _only(root: str, names: tuple[str, ...]) -> str:
    if len(names) == 1:
        return names[0]
    cure = f"Give one of them, for example {root}/{names[0] if names else 'color'}"
    raise AmbiguousVolume(
        root, f"is a dataset of WEBKNOSSOS with {len(names)} layers", names, cure, are_volumes=True
    )


def _check_format(location: str, layer: Mapping[str, Any]) -> None:
    found = layer.get("dataFormat", FORMATS[-1])
    if found not in FORMATS:
        problem = f"is a layer of WEBKNOSSOS in the format {found}, which is not read"
        cure = "Convert it, and ingest that: webknossos export-as-tiff"
        raise UnreadableVolume(location, problem, cure)


def _magnifications(root: str, name: str, layer: Mapping[str, Any]) -> Iterator[Magnification]:
    mags = sorted(layer.get("mags", ()), key=lambda mag: math.prod(_factor(mag["mag"])))
    for mag in mags:
        factor = _factor(mag["mag"])
        short = "-".join(map(str, factor[::-1] if len({*factor}) > 1 else factor[:1]))
        path = str(mag.get("path") or f"{name}/{short}")
        # A path may lead out of the dataset, or be a URL.
        own = path if "://" in path else posixpath.normpath(f"{root}/{path}")
        if path.startswith("/"):
            own = path
        elif "://" in root and "://" not in path:
            own = f"{root}/{posixpath.normpath(path)}"
        order = mag.get("axisOrder")
        channel = mag.get("channelIndex") if layer.get("numChannels", 1) == 1 else None
        extra = {str(axis["name"]): axis["index"] for axis in layer.get("additionalAxes") or ()}
        axes = None if order is None else _axes({**extra, **order})
        yield Magnification(own.rstrip("/"), posixpath.basename(own), factor, axes, channel)


def _factor(mag: Any) -> ZYX:
    factor = zyx((mag,) * 3 if isinstance(mag, int) else reversed(mag))
    if min(factor) < 1:
        raise ValueError(f"a magnification of {mag}")
    return factor


def _axes(order: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(order, key=lambda name: int(order[name])))


def _box(stated: Mapping[str, Any]) -> Box:
    start = zyx(reversed(stated["topLeft"]))
    shape = zyx(int(stated[name]) for name in ("depth", "height", "width"))
    if min(start) < 0 or min(shape) < 1:
        raise ValueError(f"a boundingBox of {dict(stated)}")
    return Box(start, zyx(a + n for a, n in zip(start, shape, strict=True)))


def _voxel_size(scale: Any) -> tuple[tuple[float, float, float] | None, tuple[str, ...]]:
    unit = scale.get("unit", "nanometer") if isinstance(scale, Mapping) else "nanometer"
    x, y, z = scale["factor"] if isinstance(scale, Mapping) else scale
    factor = nanometres_per(unit)
    if factor is None:
        note = f"{PROPERTIES} states its voxel size in {unit!r}, which is no known unit."
        return None, (f"{note} It is taken as not stated.",)
    return (float(z) * factor, float(y) * factor, float(x) * factor), ()
