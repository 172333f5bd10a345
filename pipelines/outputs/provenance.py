"""What is stored of how an output was made: read, whatever state it is in, and doubted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pipelines.outputs.records import KINDS, Record
from tilenet.errors import InvalidData, OutputExists, one_line
from tilenet.volumes import Bounds, Volume, attributes_of
from tilenet.volumes.stores import open_node


def kind_of(volume: Volume) -> str:
    """Tell which command made an output; InvalidData when none of ours did.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    str
        One of the keys of ``KINDS``.
    """
    kind = volume.attributes.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        problem = "is no output of tilenet, so nothing says what it has to be"
        cure = "Give what predict, label, weights or ingest have made."
        raise InvalidData(volume.location, problem, cure)
    return kind


def record_of(volume: Volume) -> Record:
    """Read what an output says of how it was made.

    Parameters
    ----------
    volume : Volume
        An output of ours, of which :func:`problems` finds nothing.

    Returns
    -------
    Record
        Of the class of its kind.
    """
    return KINDS[kind_of(volume)].from_attributes(volume.attributes)


def problems(volume: Volume) -> list[str]:
    """Say what in the provenance of an output of ours is missing, or cannot be true.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    list of str
        Field and what is wrong with it; empty where all can be true.
    """
    try:
        record = record_of(volume)
    except ValidationError as error:
        return [_words(entry) for entry in error.errors()]
    return list(record.mismatches(volume))


def _words(entry: Mapping[str, Any]) -> str:
    name = ".".join(map(str, entry["loc"]))
    if entry["type"] == "missing":
        return f"{name} is missing"
    value = one_line(repr(entry["input"]), 60)
    problem = entry["msg"].split(" or instance of ")[0]  # a class of ours says nothing to a user
    return f"{name} = {value}: {problem[:1].lower()}{problem[1:]}"


def prediction_behind(volume: Volume) -> dict[str, Any]:
    """Say which prediction of ours a volume is, or was labelled from.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    dict
        What the prediction says of its "input", and what its model was "trained_on", where it
        does; empty where there is no prediction.
    """
    said = volume.attributes
    if said.get("kind") == "prediction":
        names = ("kind", "input", "trained_on")
        return {name: said[name] for name in names if said.get(name) is not None}
    made_of = said.get("made_of")
    return dict(made_of) if isinstance(made_of, Mapping) else {}


def bounds_of(volume: Volume) -> Bounds | None:
    """Say what the values of an output of ours can be, although its provenance may be incomplete.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    Bounds or None
        None where they may be anything: what was ingested, and integers that say probabilities.
    """
    said, infinity = volume.attributes, float("inf")
    if said["kind"] == "instances" and isinstance(said.get("instances"), int):
        return Bounds(0, said["instances"])
    if said["kind"] == "weights":
        return Bounds(0, infinity)
    if said["kind"] == "prediction" and volume.dtype.kind == "f":
        output = said.get("output")
        linear = not isinstance(output, Mapping) or output.get("activation") == "linear"
        return Bounds(-infinity, infinity) if linear else Bounds(0, 1)
    return None


def check_provenance(begun: Volume) -> None:
    """Refuse to go on with an output that does not say, or not truly, how it was begun."""
    found = problems(begun)
    if found:
        what = f"a {begun.attributes['kind']} whose provenance is incomplete: {found[0]}"
        raise OutputExists(begun.location, what)


def open_group_attributes(location: str) -> Mapping[str, Any]:
    """Read the provenance of a Zarr group, path or URL; empty when it has none."""
    values = attributes_of(location, open_node(location)).get("tilenet")
    return values if isinstance(values, Mapping) else {}
