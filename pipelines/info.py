"""``tilenet info``: describe a volume or a model."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipelines.options import source_argument
from pipelines.tables import table, words
from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.formats import ZarrSource, list_arrays, open_source
from tilenet.inference import ModelHeader, foreign_kind, model_sha256, read_header
from tilenet.volumes import MORE, OwnStatistics, Volume, VolumeReference, open_volume, survey
from tilenet.volumes.stores import is_remote, recognise

#: Ends of names of models, most of them of other programs.
MODELS = (".safetensors", ".pt", ".pth", ".ckpt", ".pt2", ".onnx", ".keras", ".tflite")


@click.command()
@source_argument
@click.option("--series", type=click.IntRange(0), help="Image to read of several in a TIFF file.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(source: VolumeReference, series: int | None, as_json: bool) -> None:
    """Describe SOURCE: a volume, a file or folder that ingest reads, or a model file."""
    is_model = _is_model(source.location)
    facts = model_facts(source.location) if is_model else source_facts(source, series)
    if as_json:
        click.echo(json.dumps(facts, indent=2, default=str))
    else:
        click.echo(table(source.location, {name: words(value) for name, value in facts.items()}))


def _is_model(location: str) -> bool:
    # Not Path.is_file, which raises where a folder above must not be entered.
    if is_remote(location):
        return False
    if Path(location).suffix.lower() in MODELS:
        return True
    if os.path.isdir(location):  # noqa: PTH112
        return foreign_kind(location) is not None
    if Path(location).suffix or not os.path.isfile(location):  # noqa: PTH113
        return False
    return recognise(location) is None  # of no name, and no volume


def source_facts(source: VolumeReference, series: int | None = None) -> dict[str, Any]:
    """List what is said of a volume of any kind, or which ones a file or a group holds.

    Parameters
    ----------
    source : VolumeReference
    series : int, optional
        Which of several images a TIFF file holds.

    Returns
    -------
    dict
        JSON values.
    """
    chosen = dataclasses.asdict(source)
    location = chosen.pop("location")
    try:
        opened = open_source(location, missing="skip", series=series, **chosen)
    except AmbiguousVolume as error:
        if not error.are_volumes:
            raise
        held = {name: f"{_times(shape)} {type_}" for name, shape, type_ in list_arrays(location)}
        if len(held) < 2:
            if not is_remote(error.path) and not os.path.isdir(error.path):  # noqa: PTH112
                raise
            found = {name: _brief_of(error.path, name) for name in error.choices}
            if not any(is_volume for is_volume, _ in found.values()):
                raise
            held = {name: said for name, (_, said) in found.items()}
        return {"holds": held}
    if isinstance(opened, ZarrSource):
        return volume_facts(opened.volume)
    return {
        "kind": opened.kind,
        "shape (z, y, x)": list(opened.shape),
        "channels": 1 if opened.channels is None else list(opened.channels),
        "type": str(opened.dtype),
        "voxel size (z, y, x), nm": opened.voxel_size,
        "position (z, y, x), nm": opened.translation,
        "stored axes": opened.stored_axes,
        "notes": list(opened.notes),
    }


def _brief_of(group: str, name: str) -> tuple[bool, str]:
    """Describe one of the volumes of a Zarr group, if it is one; the last may stand for more."""
    try:
        volume = open_volume(f"{group.rstrip('/')}/{name}")
    except (AmbiguousVolume, UnreadableVolume) as error:
        return False, "" if name == MORE else error.problem
    return True, f"{_times(volume.shape)} {volume.dtype}"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def model_facts(path: str) -> dict[str, Any]:
    """List what a model file says.

    Parameters
    ----------
    path : str

    Returns
    -------
    dict
        JSON values.
    """
    header = read_header(path)
    architecture = header.architecture
    return {
        "kind": "2-D U-Net" if architecture.is_planar else "3-D U-Net",
        "channels per level": list(architecture.channels),
        "kernels (z, y, x)": [list(k) for k in architecture.kernels],
        "pooling (z, y, x)": [list(p) for p in architecture.pools],
        "weights": architecture.parameter_count,
        "input channels": architecture.in_channels,
        "outputs": _outputs(header),
        "activation": header.activation,
        "halo (z, y, x)": list(architecture.halo),
        "alignment (z, y, x)": list(architecture.alignment),
        "receptive field (z, y, x)": list(architecture.receptive_field),
        "intensity": header.intensity.to_dict() if header.own is None else _own(header.own),
        "voxel size (z, y, x), nm": header.voxel_size,
        "training": dict(header.training),
        "sha256": model_sha256(path),
    }


def _own(rule: OwnStatistics) -> dict[str, Any]:
    return {"rule": "volume", **rule.to_dict()}


def _outputs(header: ModelHeader) -> list[str]:
    return [
        output.name if output.label is None else f"{output.name} (label {output.label})"
        for output in header.outputs
    ]


def volume_facts(volume: Volume) -> dict[str, Any]:
    """List what the metadata of a Zarr volume say.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    dict
        JSON values.
    """
    layout, count = volume.layout, volume.channels or 1
    named = len(layout.channel_names) == count > 1
    return {
        "shape (z, y, x)": list(volume.shape),
        "channels": list(layout.channel_names) if named else count,
        "type": str(volume.dtype),
        "voxel size (z, y, x), nm": volume.voxel_size,
        "position (z, y, x), nm": volume.translation,
        "stored axes": "".join(layout.axes),
        "level": layout.level,
        "levels": dict(layout.levels or {}),
        "chunk (z, y, x)": list(volume.chunk_shape),
        "shard (z, y, x)": list(volume.write_shape),
        "stored": str(survey(volume)),
        "Zarr format": volume.array.metadata.zarr_format,
        "notes": list(volume.notes),
        "provenance": _brief(volume.attributes),
    }


def _brief(provenance: Mapping[str, Any]) -> dict[str, Any]:
    # The sizes by which an input is recognised are hundreds, and say nothing to a person.
    brief: dict[str, Any] = {}
    for name, value in provenance.items():
        if name == "stored_bytes":
            brief[name] = f"of {len(value)} objects"
        else:
            brief[name] = _brief(value) if isinstance(value, Mapping) else value
    return brief
