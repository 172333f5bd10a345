"""What OME-Zarr metadata say of an image: levels, axes, voxel sizes, positions.

Read leniently, from 0.1 to what is plain of 0.6, with a note of what was assumed. What is written
is in ``ome_metadata``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from tilenet.errors import AmbiguousVolume, UnreadableVolume, one_line
from tilenet.volumes.attribute_values import (
    VoxelSize,
    axis_letter,
    letters_of,
    names_in,
    say,
    unit_problem,
    zyx_of,
)
from tilenet.volumes.ome_transforms import NotPlain, Placement, placement
from tilenet.volumes.units import nanometres_per

#: The newest version that is read in full.
NEWEST = (0, 5)

#: What the versions before axes were named have: all images have five.
_BEFORE_AXES = "tczyx"


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of an image."""

    path: str  # path of its array below the group; not always "0"
    # Nanometres, (z, y, x); the position is that of the first voxel's centre.
    voxel_size: VoxelSize | None
    translation: VoxelSize | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """What a group's metadata say of one image."""

    axes: tuple[str, ...]  # a letter each, as stored
    levels: tuple[Level, ...]  # from the finest to the coarsest
    channel_names: tuple[str, ...] = ()  # as viewers show them, where they are stated
    notes: tuple[str, ...] = ()


def read_image(
    path: str, attributes: Mapping[str, Any], ndim_of: Callable[[str], int]
) -> Image | None:
    """Read the multiscale metadata of a group, if it has any.

    A level's number of axes is asked for where none are named.
    """
    found = multiscales_in(attributes)
    if found is None:
        return None
    if not isinstance(found, list) or not found:
        raise UnreadableVolume(path, "its 'multiscales' metadata are not a list of images", _CURE)
    if len(found) > 1:
        # Each by the path of its first array, which can be given.
        names = tuple(_first_path(each, str(i)) for i, each in enumerate(found))
        cure = f"Give the path of one array below it, for example {path.rstrip('/')}/{names[0]}"
        raise AmbiguousVolume(
            path, "holds several multiscale images", names, cure, are_volumes=True
        )
    ome = attributes.get("ome")
    version = _version(ome, found[0])
    try:
        image = _image(found[0], version, ndim_of)
    except NotPlain as error:
        problem = f"its OME-Zarr metadata break the specification: {error}"
        raise UnreadableVolume(path, problem, _CURE) from error
    older = version is not None and version < (0, 4)  # the models know none of them
    said = image.notes or any(level.notes for level in image.levels)
    # What we wrote the models have judged.
    breach = () if older or said or "tilenet" in attributes else _breach(found[0], version)
    names = _channel_names(attributes if ome is None else ome)
    return replace(image, channel_names=names, notes=(*image.notes, *breach))


_CURE = "Mend the group's attributes, or give the path of an array below it with --axes"


def multiscales_in(attributes: Mapping[str, Any]) -> Any:
    ome = attributes.get("ome")
    found = ome.get("multiscales") if isinstance(ome, Mapping) else None
    return attributes.get("multiscales") if found is None else found


def _version(ome: Any, multiscale: Any) -> tuple[int, int] | None:
    for table in (ome, multiscale):
        stated = table.get("version") if isinstance(table, Mapping) else None
        match = re.match(r"(\d{1,4})\.(\d{1,4})", str(stated))
        if match:
            return int(match[1]), int(match[2])
    return None


def _image(
    multiscale: Any, version: tuple[int, int] | None, ndim_of: Callable[[str], int]
) -> Image:
    if not isinstance(multiscale, Mapping):
        raise NotPlain("an image is not a table of names and values")
    datasets = _datasets(multiscale)
    notes = list[str]()
    if version is not None and version > NEWEST:
        said = f"{version[0]}.{version[1]}, newer than 0.5"
        read = "only the scales and translations of its levels are read"
        notes.append(f"Its metadata are OME-Zarr {said}: {read}.")
    axes = _axes(multiscale, datasets, notes, ndim_of)
    units = _units(axes, notes)
    names = tuple(letters_of(axes))
    # Of 0.6, what leads from the image to further coordinate systems is no part of it.
    whole = [] if "coordinateSystems" in multiscale else multiscale.get(_TRANSFORMS) or []
    placed = [placement(each, names, whole) for each in datasets]
    levels = [_level(d["path"], names, units, p) for d, p in zip(datasets, placed, strict=True)]
    return Image(names, tuple(levels), notes=tuple(notes))


_TRANSFORMS = "coordinateTransformations"


def _datasets(multiscale: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    datasets = multiscale.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise NotPlain("'datasets' is not a list of levels")
    for dataset in datasets:
        if not isinstance(dataset, Mapping) or not isinstance(dataset.get("path"), str):
            raise NotPlain("'datasets' has a level without a path")
    return datasets


def _channel_names(ome: Any) -> tuple[str, ...]:
    # They are for people: what breaks the specification is passed over.
    omero = ome.get("omero") if isinstance(ome, Mapping) else None
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    labels = [
        channel.get("label") if isinstance(channel, Mapping) else None
        for channel in (channels if isinstance(channels, list) else ())
    ]
    return tuple(label if isinstance(label, str) else "" for label in labels)


# -- axes -----------------------------------------------------------------------------------------


def _axes(
    multiscale: Mapping[str, Any],
    datasets: Sequence[Mapping[str, Any]],
    notes: list[str],
    ndim_of: Callable[[str], int],
) -> dict[str, Any]:
    """Give the unit, or None, by the name of each axis."""
    stated = _stated_axes(multiscale, datasets[0])
    if stated is None:
        stated = _axes_of_openorganelle(datasets[0].get("transform"))
        if stated:
            notes.append("Its axes and sizes are read from 'transform', as OpenOrganelle has it.")
    if stated is None:
        names = tuple(_BEFORE_AXES[-ndim_of(datasets[0]["path"]) :])
        notes.append(f"Its OME-Zarr metadata name no axes: {say(names)} is assumed.")
        stated = list(names)
    if not isinstance(stated, list) or not 2 <= len(stated) <= 5:
        raise NotPlain("'axes' is not a list of 2 to 5 axes")
    axes: dict[str, Any] = {}
    untyped = []
    for axis in stated:
        # Version 0.3 has names alone.
        table = {"name": axis, "type": ""} if isinstance(axis, str) else axis
        name = table.get("name") if isinstance(table, Mapping) else None
        if not isinstance(table, Mapping) or not isinstance(name, str) or name in axes:
            raise NotPlain("'axes' has one without a name of its own")
        axes[name] = table.get("unit")
        untyped += [name] if table.get("type") is None else []
    if untyped:
        notes.append(f"Its axes {say(untyped)} state no type: their names are believed.")
    return axes


def _axes_of_openorganelle(transform: Any) -> list[dict[str, Any]] | None:
    names = names_in(transform.get("axes")) if isinstance(transform, Mapping) else []
    if not names:
        return None
    units = transform.get("units")
    units = units if isinstance(units, list) and len(units) == len(names) else [None] * len(names)
    axes = [{"name": n, "type": "", "unit": u} for n, u in zip(names, units, strict=True)]
    return axes[::-1] if transform.get("ordering") == "F" else axes


def _stated_axes(multiscale: Mapping[str, Any], dataset: Mapping[str, Any]) -> Any:
    systems = multiscale.get("coordinateSystems")
    if not isinstance(systems, list):
        return multiscale.get("axes")
    # 0.6: a level's transformation leads to the image's own coordinate system.
    transforms = dataset.get(_TRANSFORMS)
    first = transforms[0] if isinstance(transforms, list) and transforms else None
    output = first.get("output") if isinstance(first, Mapping) else None
    output = output.get("name") if isinstance(output, Mapping) else output
    tables = [system for system in systems if isinstance(system, Mapping)]
    own = [system for system in tables if system.get("name") == output]
    if len(own or tables) != 1:
        raise NotPlain("'coordinateSystems' does not say which is the image's own")
    return (own or tables)[0].get("axes")


def _units(axes: Mapping[str, Any], notes: list[str]) -> dict[str, float]:
    """Give nanometres by the letter of each axis of space that has a unit."""
    space = {letter: axes[name] for name in axes if (letter := axis_letter(name)) in "zyx"}
    found = {axis: nanometres_per(unit) for axis, unit in space.items()}
    unknown = [unit for axis, unit in space.items() if unit and found[axis] is None]
    lacking = [axis for axis in space if not space[axis]]
    if unknown:
        notes.append(unit_problem(unknown))
    elif lacking and len(lacking) < len(space):
        said = f"{say(lacking)} states no unit, and others do"
        notes.append(f"Of its axes {said}, so its voxel size counts as not stated.")
    known = {axis: factor for axis, factor in found.items() if factor is not None}
    return known if len(known) == len(space) else {}


# -- levels ---------------------------------------------------------------------------------------


def _level(path: str, names: Sequence[str], units: Mapping[str, float], placed: Placement) -> Level:
    def nanometres(values: Sequence[float] | None, missing: float) -> VoxelSize | None:
        if values is None:
            return None
        by_letter = {
            axis: value * units[axis]
            for axis, value in zip(names, values, strict=True)
            if axis in units
        }
        return zyx_of(by_letter, missing=missing)

    size, place = nanometres(placed.scale, 1.0), nanometres(placed.translation, 0.0)
    return Level(path, size, place, placed.notes)


def _breach(multiscale: Mapping[str, Any], version: tuple[int, int] | None) -> list[str]:
    """Say what else the models of OME-Zarr refuse, in a sentence; nothing of it matters to us."""
    # They take a second to import.
    if version == NEWEST:
        from ome_zarr_models.v05.multiscales import Multiscale as Model
    else:
        from ome_zarr_models.v04.multiscales import Multiscale as Model  # type: ignore[assignment]
    try:
        Model.model_validate(multiscale)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        words = one_line(first["msg"], None).removeprefix("Value error, ").rstrip(".")
        words = words.split(" or instance of ")[0]  # a class says nothing to a user
        said = f"{place}: {words[:1].lower()}{words[1:]}" if place else words
    except Exception as error:  # the models' own checks stumble over what they do not expect
        said = one_line(error)
    else:
        return []
    return [f"Its metadata break OME-Zarr's specification, and are read nevertheless: {said}."]


def _first_path(multiscale: Any, otherwise: str) -> str:
    try:
        return str(multiscale["datasets"][0]["path"])
    except (LookupError, TypeError):
        return otherwise
