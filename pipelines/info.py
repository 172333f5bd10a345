"""``tilenet info``: describe a volume or a model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipelines.options import source_argument
from pipelines.predict import table, words
from tilenet.inference import ModelHeader, model_sha256, read_header
from tilenet.volumes import VolumeReference, survey
from tilenet.volumes.stores import is_remote


@click.command()
@source_argument
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(source: VolumeReference, as_json: bool) -> None:
    """Describe SOURCE: a volume, or a model file."""
    path = Path(source.location)
    # Not Path.is_file, which raises where a folder above must not be entered.
    local = not is_remote(source.location)
    is_model = local and (path.suffix == ".safetensors" or os.path.isfile(path))  # noqa: PTH113
    facts = model_facts(str(path)) if is_model else volume_facts(source)
    if as_json:
        click.echo(json.dumps(facts, indent=2, default=str))
    else:
        click.echo(table(source.location, {name: words(value) for name, value in facts.items()}))


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
        "intensity": header.intensity.to_dict(),
        "voxel size (z, y, x), nm": header.voxel_size,
        "training": dict(header.training),
        "sha256": model_sha256(path),
    }


def _outputs(header: ModelHeader) -> list[str]:
    return [
        output.name if output.label is None else f"{output.name} (label {output.label})"
        for output in header.outputs
    ]


def volume_facts(source: VolumeReference) -> dict[str, Any]:
    """List what a volume's metadata say.

    Parameters
    ----------
    source : VolumeReference

    Returns
    -------
    dict
        JSON values.
    """
    volume = source.open()
    layout = volume.layout
    return {
        "shape (z, y, x)": list(volume.shape),
        "channels": volume.channels or 1,
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
