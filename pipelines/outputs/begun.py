"""What lies where an output goes: nothing, something else, or one that was begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from pipelines.outputs.checks import check_provenance, open_group_attributes
from tilenet.errors import OutputExists
from tilenet.networks import parse_orientations
from tilenet.volumes import Volume, check_writable, describe_existing, open_volume, unstated

#: What an output is called, by the kind that its attributes state.
NAMES = {
    "prediction": "a prediction",
    "instances": "a label volume",
    "weights": "a weight map",
    "volume": "an ingested volume",
}


def find_begun(output: str, kind: str, *, overwrite: bool) -> Volume | None:
    """Look at what lies where the output goes.

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

    Raises
    ------
    OutputExists
        When it is something else.
    """
    check_writable(output)
    found = describe_existing(output)
    replaceable = found is None or found.startswith("a Zarr")
    if found is None or (overwrite and replaceable):
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
