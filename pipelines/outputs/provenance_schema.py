"""What an output says of how it was made: whether it says it, and whether it can be true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tilenet.errors import InvalidData, one_line
from tilenet.geometry import ZYX, zyx
from tilenet.labels import id_dtype
from tilenet.networks import StoredName, parse_orientations
from tilenet.volumes import Bounds, Intensity, Volume

Positive = Annotated[int, Field(ge=1)]
Sizes = Annotated[tuple[Positive, Positive, Positive], Field(strict=False)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Table = dict[str, Any]


class _Stored(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Input(_Stored):
    stored_bytes: Table = {}


class _NumericPlan(_Stored):
    block: Sizes
    tile: Sizes
    tile_input: Sizes
    stream_axis: Literal["z", "y", "x"]
    slab: Positive
    batch: Literal[1]
    precision: Literal["float64", "float32", "bfloat16", "float16"]
    threads: Positive


class _Output(_Stored):
    dtype: StoredName
    rule: str
    activation: Literal["softmax", "sigmoid", "linear"]
    channels: list[Table]


class _Grey(_Stored):
    rule: str
    void: float | None
    numbers: Table


class _Prediction(_Stored):
    model_sha256: Sha256
    input: _Input
    mask: Table | None
    intensity: _Grey
    test_time_augmentation: Any
    output: _Output
    numeric_plan: _NumericPlan


class _Instances(_Stored):
    input: _Input
    rule: Table
    tilenet: str
    instances: Annotated[int, Field(ge=0)]


class _Counts(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    background: Positive
    foreground: Positive
    lowest: int | None = None
    highest: int | None = None


class _Weights(_Stored):
    input: _Input
    rule: Table
    tilenet: str
    counts: _Counts


class _Ingested(_Stored):
    source: Table


#: What the outputs of each command say of themselves, by their kind.
KINDS: dict[str, type[_Stored]] = {
    "prediction": _Prediction,
    "instances": _Instances,
    "weights": _Weights,
    "volume": _Ingested,
}


def kind_of(volume: Volume) -> str:
    """Tell which command made an output.

    Parameters
    ----------
    volume : Volume
        The output.

    Returns
    -------
    str
        One of :data:`KINDS`.

    Raises
    ------
    InvalidData
        When none of ours did.
    """
    kind = volume.attributes.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        problem = "is no output of tilenet, so nothing says what it has to be"
        cure = "Give what predict, label, weights or ingest have made."
        raise InvalidData(volume.location, problem, cure)
    return kind


def problems(volume: Volume) -> list[str]:
    """Say what in an output's provenance is missing, or cannot be true.

    Parameters
    ----------
    volume : Volume
        An output of ours.

    Returns
    -------
    list of str
        Field and what is wrong with it; empty where all can be true.
    """
    kind = kind_of(volume)
    try:
        KINDS[kind].model_validate(dict(volume.attributes))
    except ValidationError as error:
        return [_words(entry) for entry in error.errors()]
    found = _storage_problems(volume)
    seen = volume.attributes["source" if kind == "volume" else "input"]
    found += _shape_problems(seen, volume)
    if kind == "prediction":
        found += _prediction_problems(volume)
    if kind == "instances":
        expected = str(id_dtype(volume.attributes["instances"]))
        found += _type_problems(volume, expected)
    if kind == "weights":
        found += _type_problems(volume, "float32")
    return found


def _words(entry: Mapping[str, Any]) -> str:
    name = ".".join(map(str, entry["loc"]))
    if entry["type"] == "missing":
        return f"{name} is missing"
    value = repr(entry["input"])
    return f"{name} = {value[:60]}: {entry['msg'][:1].lower()}{entry['msg'][1:]}"


def _storage_problems(volume: Volume) -> list[str]:
    found = []
    if volume.array.shards is None:
        found.append("the array has no shards, and every output of tilenet has")
    if volume.array.fill_value != 0:
        found.append(f"the array's fill value is {volume.array.fill_value}, not 0")
    return found


def _shape_problems(identity: Mapping[str, Any], volume: Volume) -> Iterator[str]:
    shape, axes = identity.get("shape"), identity.get("axes")
    if "chunks" in identity and isinstance(shape, list) and isinstance(axes, str):
        by_axis = dict(zip(axes, shape, strict=False))  # a Zarr: stored axes
        shape = [by_axis.get(axis, 1) for axis in "zyx"]
    if shape != list(volume.shape):
        yield f"the input had the shape {shape}, and what is stored has {list(volume.shape)}"


def _type_problems(volume: Volume, expected: str) -> Iterator[str]:
    if str(volume.dtype) != expected:
        yield f"values are stored as {volume.dtype}, and it says {expected}"


def _prediction_problems(volume: Volume) -> Iterator[str]:
    said, plan = volume.attributes, volume.attributes["numeric_plan"]
    yield from _type_problems(volume, said["output"]["dtype"])
    named = len(said["output"]["channels"])
    if named != (volume.channels or 1):
        yield f"{volume.channels or 1} channels are stored, and output.channels names {named}"
    block, shard = zyx(plan["block"]), volume.write_shape
    if _is_torn(block, shard):
        yield f"numeric_plan.block {list(block)} is not whole shards of {list(shard)}"
    for name, read in (
        ("intensity.numbers", lambda: Intensity.from_dict(said["intensity"]["numbers"])),
        ("test_time_augmentation", lambda: parse_orientations(said["test_time_augmentation"])),
    ):
        try:
            read()
        except (InvalidData, TypeError, ValueError, KeyError, AttributeError) as error:
            yield f"{name}: {one_line(str(error), None)}"


def _is_torn(block: ZYX, shard: ZYX) -> bool:
    return any(b % s for b, s in zip(block, shard, strict=True))


def bounds_of(volume: Volume) -> Bounds | None:
    """Say what the values of an output can be.

    Parameters
    ----------
    volume : Volume
        An output of ours.

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
