"""What lies where an output goes: nothing, something else, or one that was begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from pipelines.outputs.provenance import check_provenance, open_group_attributes, record_of
from pipelines.outputs.records import Record
from tilenet.errors import InvalidData, OutputExists
from tilenet.geometry import ZYX
from tilenet.networks import parse_orientations
from tilenet.volumes import (
    LABELS,
    Volume,
    check_writable,
    describe_existing,
    label_images,
    open_volume,
    refuse_if_different,
    unstated,
)

#: What an output is called, by the kind that its attributes state.
NAMES = {
    "prediction": "a prediction",
    "instances": "a label volume",
    "weights": "a weight map",
    "volume": "an ingested volume",
}


def find_begun(output: str, kind: str, *, overwrite: bool) -> Volume | None:
    """Look at what lies where the output goes; OutputExists when it is something else.

    Parameters
    ----------
    output : str
        Path or URL.
    kind : str
        What the attributes of a begun output say that it is.
    overwrite : bool
        Whether a Zarr that is there is to be replaced.

    Returns
    -------
    Volume or None
        The output that is to be continued; None when one is to be created.
    """
    check_writable(output)
    found = describe_existing(output)
    replaceable = found is None or found.startswith("a Zarr")
    if found is None or (overwrite and replaceable):
        _keep_label_images(output)
        return None
    if found != "a Zarr group":
        raise OutputExists(output, found, replaceable=replaceable)
    if open_group_attributes(output).get("kind") != kind:
        raise OutputExists(output, f"{found} that is not {NAMES[kind]} of tilenet")
    begun = open_volume(output)
    # First, for it may be a later version's.
    parse_orientations(begun.attributes.get("test_time_augmentation", "none"))
    check_provenance(begun)
    return begun


def _keep_label_images(output: str) -> None:
    # They may be anybody's, and of more work than the image.
    if names := label_images(output):
        problem = f"holds the label images {listed(names)}, which --overwrite would remove too"
        cure = f"Remove {output.rstrip('/')}/{LABELS} first, or choose another output."
        raise InvalidData(f"Output {output}", problem, cure)


def check_conditions(
    begun: Volume, record: Record, *, voxel_size: tuple[float, ...] | None, shard: ZYX
) -> None:
    """Refuse to go on with an output begun under other conditions, naming every one that differs.

    Parameters
    ----------
    begun : Volume
    record : Record
        What it would say of itself if it were begun now.
    voxel_size : tuple of float or None
        Nanometres that it would have, (z, y, x).
    shard : tuple of int
        Voxels of an object that it would have, (z, y, x).
    """
    before: dict[str, Any] = {"voxel_size": begun.voxel_size, "shard": begun.write_shape}
    stored = {**record_of(begun).determinants(), **before}
    stated = {**record.determinants(), "voxel_size": voxel_size, "shard": shard}
    refuse_if_different(begun.location, stored, stated)
    warn_of_unstated(begun.location, stored, stated)


def warn_of_unstated(location: str, stored: Mapping[str, Any], stated: Mapping[str, Any]) -> None:
    """Say in one line what an output of an older version does not state of how it was computed.

    Parameters
    ----------
    location : str
        The output, or the checkpoint.
    stored, stated : mapping
        What is stored with it, and what determines the values now.
    """
    unknown = unstated(stored, stated)
    if unknown:
        problem = f"{location} was begun by an older tilenet and does not state {listed(unknown)}"
        click.echo(f"{problem}: taken to be as they are now.", err=True)


def listed(names: Sequence[str]) -> str:
    """Write names as people list them.

    Parameters
    ----------
    names : sequence of str
        One at least.

    Returns
    -------
    str
        "a", "a and b" or "a, b and c".
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
