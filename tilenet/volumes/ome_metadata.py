"""OME-Zarr metadata: which levels, axes and voxel sizes a group describes.

Reading and writing go through the models of ``ome-zarr-models``, which check them against the
specification (0.4 for Zarr v2, 0.5 for Zarr v3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ome_zarr_models.v04.multiscales import Multiscale as Multiscale04
from ome_zarr_models.v05.axes import Axis
from ome_zarr_models.v05.image import ImageAttrs
from ome_zarr_models.v05.multiscales import Dataset, Multiscale

from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.volumes.units import nanometres_per


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of an image."""

    path: str  # path of its array below the group; not always "0"
    scale: tuple[float, ...]  # size of a step per axis, in the unit of the axis
    # Position of the first voxel's centre per axis, in the unit of the axis; None if not stated.
    translation: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Image:
    """What a group's metadata say of one image."""

    axes: tuple[str, ...]  # axis names, as stored
    units: tuple[str | None, ...]  # unit per axis
    levels: tuple[Level, ...]  # from the finest to the coarsest
    channel_names: tuple[str, ...] = ()  # as viewers show them, where they are stated

    def nanometres(self, values: tuple[float, ...]) -> dict[str, float]:
        """Convert values to nanometres, along the axes that have a unit of length."""
        return {
            name: value * factor
            for name, unit, value in zip(self.axes, self.units, values, strict=True)
            if (factor := nanometres_per(unit)) is not None
        }


def read_image(path: str, attributes: Mapping[str, Any]) -> Image | None:
    """Read the multiscale metadata of a group, if it has any."""
    ome = attributes.get("ome", attributes)
    multiscales = ome.get("multiscales") if isinstance(ome, Mapping) else None
    if multiscales is None:
        return None
    if not isinstance(multiscales, list) or not multiscales:
        raise UnreadableVolume(path, "its 'multiscales' metadata are not a list of images", _CURE)
    if len(multiscales) > 1:
        names = tuple(str(i) for i in range(len(multiscales)))
        cure = "Give the path of one array below it"
        raise AmbiguousVolume(path, "holds several multiscale images", names, cure)
    model = Multiscale if "ome" in attributes else Multiscale04
    try:
        image = _image(model.model_validate(multiscales[0]))
        return replace(image, channel_names=_channel_names(ome))
    except Exception as error:  # the models' own checks stumble over what they do not expect
        first = " ".join(str(error).splitlines()[:3])[:300]
        problem = f"its OME-Zarr metadata break the specification: {first}"
        raise UnreadableVolume(path, problem, _CURE) from error


_CURE = "Mend the group's attributes, or give the path of an array below it with --axes"


def _channel_names(ome: Mapping[str, Any]) -> tuple[str, ...]:
    # They are for people: what breaks the specification is passed over.
    omero = ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    labels = [
        channel.get("label") if isinstance(channel, Mapping) else None
        for channel in (channels if isinstance(channels, list) else ())
    ]
    return tuple(label if isinstance(label, str) else "" for label in labels)


def _image(multiscale: Any) -> Image:
    axes = tuple(str(axis.name) for axis in multiscale.axes)
    whole_scale, whole_translation = _transforms(multiscale.coordinateTransformations, len(axes))
    levels = []
    for dataset in multiscale.datasets:
        scale, position = _transforms(dataset.coordinateTransformations, len(axes))
        if position is not None or whole_translation is not None:
            nothing = (0.0,) * len(axes)
            moved = zip(position or nothing, whole_scale, whole_translation or nothing, strict=True)
            position = tuple(a * b + c for a, b, c in moved)
        size = tuple(a * b for a, b in zip(scale, whole_scale, strict=True))
        levels.append(Level(dataset.path, size, position))
    units = tuple(axis.unit if isinstance(axis.unit, str) else None for axis in multiscale.axes)
    return Image(axes, units, tuple(levels))


def _transforms(transforms: Any, ndim: int) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
    scale, translation = (1.0,) * ndim, None
    for transform in transforms or ():
        if transform.type == "scale":
            scale = tuple(float(v) for v in transform.scale)
        elif transform.type == "translation":
            translation = tuple(float(v) for v in transform.translation)
    return scale, translation


def image_attributes(
    name: str,
    voxel_size: tuple[float, float, float] | None,
    *,
    translation: tuple[float, float, float] | None = None,
    channels: tuple[str, ...] | None = None,
    brightest: float = 255.0,
) -> dict[str, Any]:
    """Make the OME-Zarr 0.5 attributes of a group with one level, "0".

    Sizes and the position of the first voxel are in nanometres, (z, y, x); viewers show the
    brightest value as white.
    """
    unit = None if voxel_size is None else "nanometer"
    axes = [Axis(name=axis, type="space", **({"unit": unit} if unit else {})) for axis in "zyx"]
    scale = list(voxel_size or (1.0, 1.0, 1.0))
    shift = list(translation or (0.0, 0.0, 0.0))
    if channels is not None:
        axes.insert(0, Axis(name="c", type="channel"))
        scale.insert(0, 1.0)
        shift.insert(0, 0.0)
    moved = None if translation is None else shift
    dataset = Dataset.build(path="0", scale=scale, translation=moved)
    multiscale = Multiscale(axes=tuple(axes), datasets=(dataset,), name=name)
    attributes = ImageAttrs(version="0.5", multiscales=[multiscale])
    ome = attributes.model_dump(mode="json", exclude_none=True, by_alias=True)
    if channels is not None:
        ome["omero"] = {"channels": [_omero_channel(label, brightest) for label in channels]}
    return {"ome": ome}


def _omero_channel(label: str, brightest: float) -> dict[str, Any]:
    window = {"min": 0, "max": brightest, "start": 0, "end": brightest}
    return {"label": label, "color": "FFFFFF", "active": True, "window": window}
