"""What an output says of how it was made is written as it is read, and every field is doubted."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipelines.outputs import problems, record_of
from pipelines.outputs.provenance import check_provenance
from pipelines.outputs.records import KINDS, Derived
from tilenet.errors import OutputExists
from tilenet.volumes import Volume, open_volume

OLD = Path(__file__).parents[1] / "old" / "0.1.0"

#: An output of each kind, and what later versions state beside it.
OUTPUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "prediction": ("averaged_begun.zarr", {"numeric_plan": {"digest": "aa", "arithmetic": 1}}),
    "instances": ("instances.zarr", {"arithmetic": 1}),
    "weights": ("weights.zarr", {"arithmetic": 1}),
    "volume": ("volume.zarr", {}),
}

#: No field is a list of nothing.
SPOILED = [None]


def stored(kind: str) -> Volume:
    return open_volume(str(OLD / OUTPUTS[kind][0]))


def of_today(kind: str) -> dict[str, Any]:
    said: dict[str, Any] = copy.deepcopy(dict(stored(kind).attributes))
    for name, value in OUTPUTS[kind][1].items():
        said[name] = {**said[name], **value} if isinstance(value, dict) else value
    return said


def fields(record: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Names of what has to be there, those within first."""
    for name, field in record.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields(inner, f"{prefix}{name}.")
        if field.is_required():
            yield prefix + name


FIELDS = [(kind, name) for kind, record in KINDS.items() for name in fields(record)]


def changed(kind: str, name: str, *values: Any) -> Volume:
    """The output with another value of a field, or without it."""
    said = of_today(kind)
    *path, last = name.split(".")
    table = said
    for step in path:
        table = table[step]
    del table[last]
    for value in values:
        table[last] = value
    return replace(stored(kind), attributes=said)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_was_read_is_written_byte_for_byte(kind: str) -> None:
    said = dict(stored(kind).attributes)
    record = record_of(stored(kind))
    assert json.dumps(record.to_attributes()) == json.dumps(said)
    assert type(record).from_attributes(record.to_attributes()) == record


@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_a_later_version_states_is_kept_and_decides(kind: str) -> None:
    said = of_today(kind)
    old, new = record_of(stored(kind)), KINDS[kind].from_attributes(said)
    assert type(new).from_attributes(json.loads(json.dumps(new.to_attributes()))) == new
    assert new.to_attributes() == said
    assert (new.determinants() == old.determinants()) == (kind == "volume")


@pytest.mark.parametrize("kind", ["instances", "weights"])
def test_what_the_first_pass_counts_decides_nothing(kind: str) -> None:
    record = record_of(stored(kind))
    conditions = Derived.from_attributes(record.to_attributes())
    assert set(record.determinants()) == {"input", "rule"}
    assert conditions.determinants() == record.determinants()


def test_a_whole_number_that_is_void_stays_one() -> None:
    said = of_today("prediction")
    said["intensity"]["void"] = 0
    record = KINDS["prediction"].from_attributes(said)
    assert repr(record.to_attributes()["intensity"]["void"]) == "0"


@pytest.mark.parametrize(("kind", "name"), [entry for entry in FIELDS if entry[1] != "kind"])
def test_a_field_that_is_left_out_or_spoiled_is_named(kind: str, name: str) -> None:
    without = changed(kind, name)
    assert problems(without) == [f"{name} is missing"]
    with pytest.raises(OutputExists, match=rf"a {kind} whose .* incomplete: {name} is missing"):
        check_provenance(without)
    first = problems(changed(kind, name, SPOILED))[0]
    assert first.startswith(name), first
    with pytest.raises(OutputExists, match=f"whose provenance is incomplete: {name}"):
        check_provenance(changed(kind, name, SPOILED))


def test_every_kind_has_its_fields_doubted() -> None:
    assert len(FIELDS) > 30
    assert ("prediction", "numeric_plan.threads") in FIELDS
    assert ("weights", "counts.background") in FIELDS
