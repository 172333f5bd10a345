"""The tree of errors: its drawing, its messages, and its way through pickle."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tilenet import errors
from tilenet.errors import (
    AmbiguousVolume,
    BlocksFailed,
    InvalidData,
    NotEnoughMemory,
    OutputExists,
    ResumeRefused,
    TilenetError,
    UnreadableVolume,
    VoxelSizeMismatch,
    WorkerOverMemory,
    WorkerTooSmall,
    one_line,
)


def family(cls: type[TilenetError]) -> Iterator[type[TilenetError]]:
    """A class and everything below it, in the order of definition."""
    yield cls
    for child in cls.__subclasses__():
        yield from family(child)


CLASSES = list(family(TilenetError))
LEAVES = [cls for cls in CLASSES if not cls.__subclasses__()]
BASES = [cls for cls in CLASSES if cls.__subclasses__()]

#: A plausible value for every type that a field may have.
VALUES: dict[str, Any] = {
    "int": 123,
    "float": 0.25,
    "Sequence[str]": ["steps = 0"],
    "object": (1, 2),
    "bool": True,
    "str | None": "s1",
    "tuple[int, ...]": (112, 128),
    "tuple[float, ...]": (50.0, 4.0, 4.5),
    "tuple[str, ...]": ("s0", "s1"),
    "Sequence[tuple[str, str]]": [("z=0:1,y=0:2,x=0:3", "corrupt")],
    "Mapping[str, tuple[object, object]]": {"precision": ("float32", "bfloat16")},
}


def fields_of(cls: type[TilenetError]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)  # type: ignore[arg-type]


def example(cls: type[TilenetError]) -> TilenetError:
    """Build an error; text is unlike the message's own words, and a cure is a sentence."""
    texts = {f.name: f"some-{f.name}" + "." * (f.name == "cure") for f in fields_of(cls)}
    return cls(**{f.name: VALUES.get(str(f.type), texts[f.name]) for f in fields_of(cls)})


def values_of(error: TilenetError) -> dict[str, Any]:
    return {f.name: getattr(error, f.name) for f in fields_of(type(error))}


def leaves_of(value: Any) -> Iterator[str]:
    """The words and numbers in a value, as a message would write them."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from leaves_of(item)
    elif value is not None and not isinstance(value, bool):
        yield f"{value:g}" if isinstance(value, float) else str(value)


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for indent, name in re.findall(r"^    ((?:[|` ]  )*(?:[|`]- )?)(\w+)\b", errors.__doc__, re.M):
        depth = len(indent) // 3
        above[depth:] = [name]
        drawn[name] = above[depth - 1] if depth else ""
    actual = {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES[1:]}
    assert drawn == {"TilenetError": "", **actual}


def test_every_error_of_the_module_belongs_to_the_tree() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert defined == set(CLASSES)


@pytest.mark.parametrize("cls", BASES)
def test_a_base_has_no_fields_of_its_own(cls: type[TilenetError]) -> None:
    assert "__dataclass_fields__" not in vars(cls)


@pytest.mark.parametrize("cls", LEAVES)
def test_an_error_survives_pickle_with_its_fields(cls: type[TilenetError]) -> None:
    error = example(cls)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is cls
        assert values_of(again) == values_of(error)
        assert str(again) == str(error)


@pytest.mark.parametrize("cls", LEAVES)
def test_an_error_survives_copying(cls: type[TilenetError]) -> None:
    error = example(cls)
    assert values_of(copy.deepcopy(error)) == values_of(error)


@pytest.mark.parametrize("cls", LEAVES)
def test_a_message_is_one_paragraph_that_ends_with_a_full_stop(cls: type[TilenetError]) -> None:
    message = str(example(cls))
    assert message == message.strip()
    assert "\n\n" not in message
    assert "  " not in message.replace("\n  ", "\n")
    assert message.endswith(".")
    assert ".." not in message


#: Bytes are said in mebibytes, and tested below.
IN_MEBIBYTES = (NotEnoughMemory, WorkerOverMemory, WorkerTooSmall)


@pytest.mark.parametrize("cls", [cls for cls in LEAVES if cls not in IN_MEBIBYTES])
def test_a_message_says_the_value_of_every_field(cls: type[TilenetError]) -> None:
    error = example(cls)
    for name, value in values_of(error).items():
        for text in leaves_of(value):
            assert text in str(error), f"{name} of {cls.__name__} is not said"


def test_a_worker_s_memory_is_said_in_mebibytes() -> None:
    small = str(WorkerTooSmall("tcp://a:1", 3 * 2**30, 500 * 2**20, "Start a larger one."))
    assert "has 500 MiB of memory, and the plan needs 3,072 MiB of each" in small
    over = str(WorkerOverMemory("tcp://a:1", 3 * 2**30, 500 * 2**20))
    assert "tcp://a:1 was ended because it took 3,072 MiB of the 500 MiB" in over


def test_missing_memory_is_said_in_mebibytes() -> None:
    message = str(NotEnoughMemory(3 * 2**30, 500 * 2**20, "The tile"))
    assert message.startswith("The tile needs 3,072 MiB per worker, but 500 MiB are allowed.")
    assert "--memory" in message
    assert "a smaller --block or --shard, or a smaller network." in message
    ingested = str(NotEnoughMemory(3 * 2**30, 500 * 2**20, "A shard", "a smaller --shard"))
    assert ingested.endswith("or take a smaller --shard.")
    assert "network" not in ingested


def test_a_cure_gets_exactly_one_full_stop() -> None:
    for cure in ("Mend it", "Mend it."):
        assert str(UnreadableVolume("em.zarr", "is broken", cure)).endswith("broken. Mend it.")
        assert str(AmbiguousVolume("em.zarr", "has two", ("a", "b"), cure)).endswith(
            "has two (a, b). Mend it."
        )


def test_a_voxel_size_mismatch_names_the_level_that_fits() -> None:
    message = str(VoxelSizeMismatch("em.zarr", (50, 4, 4), (50, 8, 8), "s1"))
    assert "voxels of 50 x 4 x 4 nm" in message
    assert "--level s1" in message


def test_a_voxel_size_mismatch_without_a_fitting_level_says_so() -> None:
    message = str(VoxelSizeMismatch("em.zarr", (50, 4, 4), (50, 8, 8), None))
    assert "No pyramid level of this volume fits" in message
    assert "--level" not in message


def test_overwriting_is_offered_only_where_it_would_help() -> None:
    assert "--overwrite" in str(OutputExists("a.zarr", "a Zarr group"))
    assert "--overwrite" not in str(OutputExists("notes", "a folder", replaceable=False))


def test_a_refused_resume_names_every_field_on_a_line_of_its_own() -> None:
    differences = {"precision": ("float32", "bfloat16"), "numeric_plan.tile": ([1, 2], [3, 4])}
    lines = str(ResumeRefused("out.zarr", differences)).splitlines()
    assert "  precision: stored 'float32', now 'bfloat16'" in lines
    assert "  numeric_plan.tile: stored [1, 2], now [3, 4]" in lines


def test_failed_blocks_are_listed_one_to_a_line() -> None:
    failed = [("z=0:1", "corrupt"), ("z=1:2", "gone")]
    lines = str(BlocksFailed("predict", failed, 10)).splitlines()
    assert lines[:3] == ["2 of 10 blocks failed:", "  z=0:1: corrupt", "  z=1:2: gone"]


def test_errors_are_told_apart_by_identity_and_can_be_hashed() -> None:
    first, second = (InvalidData("a", "b", "c") for _ in range(2))
    assert len({first, second}) == 2


def test_what_a_library_says_becomes_one_line() -> None:
    assert one_line(" two\n  lines\t") == "two lines"
    assert one_line(ValueError("a\nb")) == "a b"
    assert [one_line(ValueError()), one_line("")] == ["ValueError", ""]
    assert one_line("x" * 200) == "x" * 200
    assert one_line("x" * 201) == "x" * 197 + "..."
    assert one_line("x" * 201, None) == "x" * 201
