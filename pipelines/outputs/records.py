"""What an output says of how it was made: a record per kind, which is written, read and checked.

A record stands in the attributes of the output's group, under "tilenet": its fields in their order,
and after them whatever else there is (the id of the creation, names that a later version added).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from tilenet._version import __version__
from tilenet.errors import InvalidData, one_line
from tilenet.labels import id_dtype
from tilenet.networks import ARITHMETIC, StoredName, parse_orientations
from tilenet.volumes import Intensity, Volume, identify


def _as_given(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    # A whole number stays one: what was stored is stored again.
    check(value)
    return value


def _with_sizes(value: Table) -> Table:
    _Sampled.model_validate(value)
    return value


Table = dict[str, Any]
Positive = Annotated[int, Field(ge=1)]
Sizes = Annotated[tuple[Positive, Positive, Positive], Field(strict=False), PlainSerializer(list)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
GreyValue = Annotated[float | None, WrapValidator(_as_given)]

#: Start and stop along (z, y, x).
Range = Annotated[tuple[int, int], Field(strict=False), PlainSerializer(list)]
Ranges = Annotated[tuple[Range, Range, Range], Field(strict=False), PlainSerializer(list)]

#: What an input is recognised by (:func:`tilenet.volumes.identify`).
Identity = Annotated[Table, AfterValidator(_with_sizes)]


class _Stored(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class _Sampled(_Stored):
    stored_bytes: Table = {}


class NumericPlan(_Stored):
    """What decides the last bits of a prediction; the facts of the workers are beside it."""

    block: Sizes
    tile: Sizes
    tile_input: Sizes
    stream_axis: Literal["z", "y", "x"]
    slab: Positive
    batch: Literal[1]
    precision: Literal["float64", "float32", "bfloat16", "float16"]
    threads: Positive


class Output(_Stored):
    """What the stored values of a prediction mean."""

    dtype: StoredName
    rule: str
    activation: Literal["softmax", "sigmoid", "linear"]
    channels: list[Table]


class GreyRule(_Stored):
    """How grey values were normalised: the rule as the user gave it, and its numbers."""

    rule: str
    void: GreyValue
    numbers: Table
    # Percentiles, where they were given.
    clip: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None

    @property
    def percentiles(self) -> tuple[float, float] | None:
        """The two at which grey values were clipped."""
        if self.clip is None:
            return None
        low, high = self.clip
        return low, high

    @property
    def intensity(self) -> Intensity:
        """The numbers, where they can be true."""
        return Intensity.from_dict(self.numbers)


class Record(_Stored):
    """What an output of one kind says of how it was made."""

    #: The field that recognises what it was made of.
    ORIGIN: ClassVar = "input"

    kind: str

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """Read the record, or refuse it with pydantic's ValidationError."""
        return cls.model_validate(dict(attributes))

    def to_attributes(self) -> dict[str, Any]:
        """Give JSON values, without the facts that an older version did not state."""
        return self.model_dump(exclude_unset=True)

    def determinants(self) -> dict[str, Any]:
        """Give what decides the stored values: a resume refuses to differ in it."""
        return self.to_attributes()

    @property
    def stored_type(self) -> str | None:
        """Data type of the stored values; None where it may be any."""
        return None

    @property
    def stored_shape(self) -> list[int] | None:
        """Voxels, (z, y, x), by what it was made of."""
        origin: Table = getattr(self, self.ORIGIN)
        if "crop" in origin:  # of a padded array
            try:
                pairs = zip(origin["crop"]["start"], origin["crop"]["stop"], strict=True)
                return [stop - start for start, stop in pairs]
            except (KeyError, TypeError, ValueError):
                return None
        shape, axes = origin.get("shape"), origin.get("axes")
        if "chunks" in origin and isinstance(shape, list) and isinstance(axes, str):
            by_axis = dict(zip(axes, shape, strict=False))  # a Zarr: stored axes
            return [by_axis.get(axis, 1) for axis in "zyx"]
        return shape

    def mismatches(self, volume: Volume) -> Iterator[str]:
        """Say where what is stored cannot be what the record speaks of."""
        if volume.array.shards is None:
            yield "the array has no shards, and every output of tilenet has"
        if volume.array.fill_value != 0:
            yield f"the array's fill value is {volume.array.fill_value}, not 0"
        shape = self.stored_shape
        if shape != list(volume.shape):
            yield f"the input had the shape {shape}, and what is stored has {list(volume.shape)}"
        if self.stored_type not in (None, str(volume.dtype)):
            yield f"values are stored as {volume.dtype}, and it says {self.stored_type}"


class Prediction(Record):
    """What ``predict`` stores."""

    kind: Literal["prediction"]
    model_sha256: Sha256
    input: Identity
    mask: Table | None
    intensity: GreyRule
    test_time_augmentation: Any
    output: Output
    numeric_plan: NumericPlan
    trained_on: list[Table] | None = None  # what the model's file says of its training

    def determinants(self) -> dict[str, Any]:
        # The model is known by its digest; what it says of itself decides nothing.
        return self.model_dump(exclude_unset=True, exclude={"trained_on"})

    @property
    def stored_type(self) -> str:
        return self.output.dtype

    def mismatches(self, volume: Volume) -> Iterator[str]:
        yield from super().mismatches(volume)
        channels, named = volume.channels or 1, len(self.output.channels)
        if named != channels:
            yield f"{channels} channels are stored, and output.channels names {named}"
        block, shard = self.numeric_plan.block, volume.write_shape
        if any(b % s for b, s in zip(block, shard, strict=True)):
            yield f"numeric_plan.block {list(block)} is not whole shards of {list(shard)}"
        for name, read in (
            ("intensity.numbers", lambda: self.intensity.intensity),
            ("test_time_augmentation", lambda: parse_orientations(self.test_time_augmentation)),
        ):
            try:
                read()
            except (InvalidData, TypeError, ValueError, KeyError, AttributeError) as error:
                yield f"{name}: {one_line(str(error), None)}"


class Derived(Record):
    """What decides the values of a volume that is computed from another, without a network."""

    input: Identity
    rule: Table
    arithmetic: Any = None  # version 0.1.0 did not state it
    tilenet: str

    @classmethod
    def of(cls, kind: str, volume: Volume, rule: Table) -> Self:
        """State what decides an output that is computed from a volume here and now."""
        seen = identify(volume)
        return cls(kind=kind, input=seen, rule=rule, arithmetic=ARITHMETIC, tilenet=__version__)

    def determinants(self) -> dict[str, Any]:
        return self.model_dump(include={"input", "rule", "arithmetic"}, exclude_unset=True)


class Instances(Derived):
    """What ``label`` stores."""

    kind: Literal["instances"]
    instances: Annotated[int, Field(ge=0)]
    made_of: Table | None = None  # the prediction behind the masks; it decides nothing

    @property
    def stored_type(self) -> str:
        return str(id_dtype(self.instances))


class Counts(_Stored, extra="forbid"):
    """Voxels per class, and the range of labels (:class:`tilenet.labels.ClassCounts`)."""

    background: Positive
    foreground: Positive
    lowest: int | None = None
    highest: int | None = None


class Weights(Derived):
    """What ``weights`` stores."""

    kind: Literal["weights"]
    counts: Counts

    @property
    def stored_type(self) -> str:
        return "float32"


class Ingested(Record):
    """What ``ingest`` stores."""

    ORIGIN: ClassVar = "source"

    kind: Literal["volume"]
    source: Table
    region: Ranges | None = None  # of the source, where it is a part of it
    dtype: str | None = None  # where it is another than the source's

    @property
    def stored_type(self) -> str | None:
        return self.dtype

    @property
    def stored_shape(self) -> list[int] | None:
        if self.region is None:
            return super().stored_shape
        return [stop - start for start, stop in self.region]

    def mismatches(self, volume: Volume) -> Iterator[str]:
        yield from super().mismatches(volume)
        said, found = self.source.get("channels"), volume.channels or 1
        if said is not None and said != found:
            yield f"the source had {said} channels, and {found} are stored"


#: The records, by their kind.
KINDS: dict[str, type[Record]] = {
    "prediction": Prediction,
    "instances": Instances,
    "weights": Weights,
    "volume": Ingested,
}
