"""How much of a volume is stored, at a glance: what is not there reads as the fill value."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tilenet.errors import UnreadableVolume
from tilenet.geometry import Box, unravel
from tilenet.volumes.listing import key_reader, lattice, some_names_below, touched
from tilenet.volumes.stores import can_list, stored_sizes
from tilenet.volumes.volume import WHOLE_KINDS, Volume

#: Objects that are looked for first: a round of requests.
SAMPLE = 64

#: Objects that are looked for where few of the first are there: seconds, also over a network.
MANY = 4096

#: Names that are listed where none of all those is there.
LISTED = 10_000

#: A smaller share of stored objects is few.
FEW = 0.5

#: What stands before the first number of a key, and between two: all that Zarr's metadata can say.
STYLES = (("c/", "/"), ("c.", "."), ("", "/"), ("", "."))


@dataclass(frozen=True, slots=True)
class Survey:
    """How many of a volume's objects were looked for, and found.

    Parameters
    ----------
    found, looked, total : int
        Stored, looked for, and all that there may be.
    unit : str
        "chunks", or "shards".
    none : bool
        Whether nothing is stored of the volume, as far as its store tells.
    key, other : str
        A key by the metadata; where nothing is stored by such keys, the name of a file that lies
        there and is a key by other metadata, or nothing.
    """

    found: int
    looked: int
    total: int
    unit: str
    none: bool
    key: str
    other: str

    def __str__(self) -> str:
        text = f"{self.found:,} of {self.total:,} {self.unit} are stored"
        if self.looked < self.total:
            looked = f"{self.looked:,} {self.unit} that were looked for"
            text = f"{self.found:,} of {looked}, among {self.total:,}, are stored"
        if not self.other:
            return text
        return (
            f"{text}: its metadata name them like {self.key!r}, and files lie like {self.other!r}"
        )


def survey(volume: Volume) -> Survey:
    """Look how much is stored of a volume, at a bounded cost.

    Parameters
    ----------
    volume : Volume
        Of its channels those that are read.

    Returns
    -------
    Survey
        Exact where the volume is small, or has few objects; else by a sample.
    """
    ranges = touched(volume.array, volume.layout.index(Box.of_shape(volume.shape)))
    total, encode = math.prod(map(len, ranges)), volume.array.metadata.encode_chunk_key
    found = looked = 0
    for most in (SAMPLE, MANY):
        looked = min(most, total)
        places = _places(ranges, looked)
        found = _count(volume, list(map(encode, places)))
        if found >= FEW * looked:
            break
    key = encode((0,) * volume.array.ndim)
    none, other = (False, "") if found else _look_around(volume, ranges, places, looked == total)
    unit = "shards" if volume.array.shards else "chunks"
    return Survey(found, looked, total, unit, none, key, other)


def check_stored(volume: Volume) -> str | None:
    """Refuse a volume of which nothing is stored; warn of one of which little is.

    Parameters
    ----------
    volume : Volume
        An input. What commands of ours made is not looked at: they know what has to be there.

    Returns
    -------
    str or None
        A sentence about what is stored, where that is little.

    Raises
    ------
    UnreadableVolume
        When no chunk is stored: it would read as its fill value everywhere.
    """
    if volume.attributes.get("kind") in WHOLE_KINDS:
        return None
    try:
        seen = survey(volume)
    except OSError as error:
        raise UnreadableVolume.unreachable(volume.location, error) from error
    fill = volume.array.fill_value or 0
    if not seen.none:
        return few_stored(seen.found, seen.looked, str(seen), fill)
    problem = f"none of its {seen.total:,} {seen.unit} is stored"
    if seen.other:
        problem += f" by its metadata ({seen.key}), but under other names ({seen.other})"
        raise UnreadableVolume(volume.location, problem, _renaming(volume, seen))
    problem += f", so that every voxel would read as {fill}"
    cure = "Check the path, and that all its files were copied"
    meant = f"If every voxel is meant to be {fill}, store them (zarr: write_empty_chunks)"
    raise UnreadableVolume(volume.location, problem, f"{cure}. {meant}")


def few_stored(found: int, looked: int, text: str, fill: object) -> str | None:
    """Say what is stored, where that is little.

    Parameters
    ----------
    found, looked : int
        Chunks that are stored, and all that there may be.
    text : str
        How many are, in words.
    fill : object
        What the others read as.

    Returns
    -------
    str or None
        A sentence.
    """
    return f"{text}; what is not reads as {fill}." if found < FEW * looked else None


def _places(ranges: Sequence[range], count: int) -> list[tuple[int, ...]]:
    # By chance: an even step may meet nothing but corners of sections.
    counts = [len(each) for each in ranges]
    picked = random.Random(0).sample(range(math.prod(counts)), count)  # noqa: S311
    inside = (unravel(pick, counts) for pick in sorted(picked))
    return [tuple(r[i] for r, i in zip(ranges, place, strict=True)) for place in inside]


def _count(volume: Volume, keys: list[str]) -> int:
    return sum(size is not None for size in stored_sizes(volume.array, keys))


def _look_around(
    volume: Volume, ranges: Sequence[range], places: Sequence[tuple[int, ...]], exact: bool
) -> tuple[bool, str]:
    # No key was found. Whether there is none at all, and a file that would be one otherwise.
    for start, separator in _other_styles(volume):
        keys = [start + separator.join(map(str, place)) for place in places[:SAMPLE]]
        sizes = stored_sizes(volume.array, keys)
        there = [key for key, size in zip(keys, sizes, strict=True) if size is not None]
        if there:
            return True, there[0]
    if not can_list(volume.array.store):
        return exact, ""
    names = some_names_below(volume.array.store, volume.array.path, LISTED)
    position, counts = key_reader(volume.array), lattice(volume.array)
    found = (position(name) for name in names)
    places_found = (unravel(place, counts) for place in found if place is not None)
    if any(all(i in r for i, r in zip(p, ranges, strict=True)) for p in places_found):
        return False, ""
    pattern = "|".join(
        rf"{re.escape(start)}\d+(?:{re.escape(separator)}\d+){{{volume.array.ndim - 1}}}"
        for start, separator in _other_styles(volume)
    )
    other = next((name for name in names if re.fullmatch(pattern, name)), "")
    return exact or bool(other) or len(names) < LISTED, other


def _other_styles(volume: Volume) -> list[tuple[str, str]]:
    key = volume.array.metadata.encode_chunk_key((0,) * volume.array.ndim)
    return [
        (start, separator)
        for start, separator in STYLES
        if start + separator.join("0" * volume.array.ndim) != key
    ]


def _renaming(volume: Volume, seen: Survey) -> str:
    # What the metadata have to say so that the files are found.
    separator = "/" if "/" in seen.other.removeprefix("c/") else "."
    below = f"{volume.array.path}/" if volume.array.path else ""
    name = "default" if seen.other.startswith("c") else "v2"
    if volume.array.metadata.zarr_format == 3:
        said = {"name": name, "configuration": {"separator": separator}}
        return f'Set "chunk_key_encoding" to {json.dumps(said)} in {below}zarr.json'
    if name == "v2":
        return f'Set "dimension_separator" to "{separator}" in {below}.zarray'
    return f"Rename the files: {seen.other} to {seen.key}, for example"
