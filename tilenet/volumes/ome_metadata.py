"""OME-Zarr metadata as we write them.

They go through the models of ``ome-zarr-models``, which check them against the specification.
"""

from __future__ import annotations

from typing import Any


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
    # They take a second to import, and most commands begin by reading.
    from ome_zarr_models.v05.axes import Axis
    from ome_zarr_models.v05.image import ImageAttrs
    from ome_zarr_models.v05.multiscales import Dataset, Multiscale

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
