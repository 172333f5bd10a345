"""Numbers in the names of section files, and which of them are missing.

One number has to vary in the names, whatever its leading zeros. Its steps are what all differences
have in common, so 0, 10, 20, 40 lacks 30, and 0, 10, 20 nothing.
"""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import NoReturn

from tilenet.errors import AmbiguousVolume

_DIGITS = re.compile("[0-9]+")

#: A message lists at most so many ranges of numbers.
_LISTED = 12

#: And so many names.
_EXAMPLES = 4


@dataclass(frozen=True)
class Numbers:
    """What the numbers in the names of files, in their order, say."""

    missing: tuple[int, ...]  # how many are missing before each file
    ranges: tuple[str, ...] = ()  # which those are: 17, 40 to 43
    step: int = 1
    notes: tuple[str, ...] = ()  # what is doubtful in them, a sentence each

    def __str__(self) -> str:
        left = len(self.ranges) - _LISTED
        listed = ", ".join(self.ranges[:_LISTED])
        return f"{listed}, and {left} more" if left > 0 else listed


def numbers_in(names: Sequence[str], sections: Sequence[int]) -> Numbers:
    """Find the number that counts files, or the sections in them, and its gaps."""
    none = (0,) * len(names)
    if len({_DIGITS.sub("0", _stem(name)) for name in names}) > 1:
        note = "The names of its files differ in more than numbers; they are read in natural order."
        return Numbers(none, notes=(note,))
    varying = [column for column in _columns(names) if len(set(column)) > 1]
    if any(_counts(column, sections) for column in varying):
        return Numbers(none)
    if len(varying) == 1:
        return _gaps(varying[0])
    if not varying:
        return Numbers(none)
    note = (
        "Several numbers vary in the names of its files; they are read in natural order, "
        "and it is not known whether any is missing."
    )
    return Numbers(none, notes=(note,))


def check_one_volume(location: str, names: Sequence[str], sections: Sequence[int]) -> None:
    """Refuse files of a folder whose names say that they are those of several volumes."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_DIGITS.sub("0", _stem(name)), []).append(name)
    several = [group for group in groups.values() if len(group) > 1]
    if len(groups) > 1 and (max(sections) > 1 or several):
        seen = [
            group[0] if len(group) == 1 else f"{len(group)} such as {group[0]}"
            for group in groups.values()
        ]
        largest = max(groups.values(), key=len)
        varying = {i for i, column in enumerate(_columns(largest)) if len(set(column)) > 1}
        _refuse_several(location, "has files of several volumes", seen, largest, varying)
    if len(groups) > 1:
        return
    columns = _columns(names)
    counts = {i: len(set(column)) for i, column in enumerate(columns) if len(set(column)) > 1}
    # Channels by sections, or tiles: no number alone tells the files apart.
    if len(counts) > 1 and max(counts.values()) < len(set(zip(*columns, strict=True))):
        fewest = min(counts, key=lambda i: counts[i])
        problem = "has files with several numbers, of which each comes again"
        _refuse_several(location, problem, names, names, set(counts) - {fewest})


def _refuse_several(
    location: str, problem: str, seen: Sequence[str], names: Sequence[str], varying: set[int]
) -> NoReturn:
    """Give a pattern of the files that are one volume, and one of all."""
    folder, stem = glob.escape(location.rstrip("/")), _stem(names[0])
    texts = map(glob.escape, _DIGITS.split(stem))
    numbers = ["*" if i in varying else n for i, n in enumerate(_DIGITS.findall(stem))]
    one = "".join(text + n for text, n in zip(texts, [*numbers, ""], strict=True))
    suffixes = {PurePath(name).suffix for name in names}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".*"
    left = ("...",) if len(seen) > _EXAMPLES else ()
    cure = (
        f'Choose those of one volume with a quoted pattern, for example "{folder}/{one}{suffix}"; '
        f'or, if all are sections of one, give "{folder}/*"'
    )
    raise AmbiguousVolume(location, problem, (*seen[:_EXAMPLES], *left), cure)


def _stem(name: str) -> str:
    return str(PurePath(name).with_suffix(""))


def _columns(names: Sequence[str]) -> list[tuple[int, ...]]:
    numbers = ([int(n) for n in _DIGITS.findall(_stem(name))] for name in names)
    return list(zip(*numbers, strict=True))


def _counts(column: Sequence[int], sections: Sequence[int]) -> bool:
    steps = [b - a for a, b in pairwise(column)]
    return set(steps) == {1} or steps == list(sections[:-1])


def _gaps(column: Sequence[int]) -> Numbers:
    step = math.gcd(*(b - a for a, b in pairwise(column)))
    twice = sorted({a for a, b in pairwise(column) if a == b})
    notes = [f"Several of its files have the number {n}; all are read." for n in twice[:1]]
    ranges, missing = [], [0]
    for a, b in pairwise(column):
        first, last = a + step, b - step
        missing.append(max((b - a) // step - 1, 0))
        if missing[-1]:
            ranges.append(f"{first}" if first == last else f"{first} to {last}")
    return Numbers(tuple(missing), tuple(ranges), step, tuple(notes))
