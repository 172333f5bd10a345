"""Numbers in the names of section files, and which of them are missing.

One number has to vary in the names, whatever its leading zeros. Its steps are what all differences
have in common, so 0, 10, 20, 40 lacks 30, and 0, 10, 20 nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath

_DIGITS = re.compile("[0-9]+")

#: A message lists at most so many ranges of numbers.
_LISTED = 12


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
    stems = [str(PurePath(name).with_suffix("")) for name in names]
    if len({_DIGITS.sub("0", stem) for stem in stems}) > 1:
        note = "The names of its files differ in more than numbers; they are read in natural order."
        return Numbers(none, notes=(note,))
    found = zip(*([int(n) for n in _DIGITS.findall(stem)] for stem in stems), strict=True)
    varying = [column for column in found if len(set(column)) > 1]
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
