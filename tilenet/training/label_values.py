"""What stored label values mean: whole numbers, a background, and one that says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.training.recipe import Targets

#: Stored as the class of voxels whose label says nothing.
IGNORED = -1

#: The highest label value that can be a class; negative ones cannot.
HIGHEST_VALUE = 2**63 - 1

#: More label values than this are instances, not classes, unless the recipe says otherwise.
MOST_CLASSES = 8

#: Whole numbers beyond it are not all to be had as floats.
_WHOLE_FLOATS = 2**53


class _Stored(Protocol):
    # A volume of labels.
    @property
    def location(self) -> str: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


@dataclass(frozen=True)
class Meaning:
    """Which values are background and ignored, once the background is 0."""

    background: int
    ignore: int | None

    @classmethod
    def of(cls, targets: Targets) -> Meaning:
        return cls(targets.background or 0, targets.ignore)

    def normal(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Exchange the background and 0, so that instances of either number stay apart."""
        if not self.background or not can_hold(stored.dtype, self.background):
            return stored
        changed = stored.copy()
        changed[stored == self.background] = 0
        changed[stored == 0] = self.background
        return changed

    @property
    def normal_ignore(self) -> int | None:
        """The ignored value after :meth:`normal`."""
        return self.background if self.background and self.ignore == 0 else self.ignore


def can_hold(dtype: npt.DTypeLike, value: int) -> bool:
    """Tell whether a label of a type can have a value."""
    known = np.dtype(dtype)
    if known.kind == "b":
        return value in (0, 1)
    if known.kind == "f":  # they are read as 64 bits
        return abs(value) <= _WHOLE_FLOATS
    bounds = np.iinfo(known)
    return int(bounds.min) <= value <= int(bounds.max)


def check_can_occur(labels: Sequence[_Stored], targets: Targets) -> None:
    """Refuse an ignored value that no volume can hold, and a background that one cannot."""
    ignore, background = targets.ignore, targets.background
    if ignore is not None and not any(can_hold(one.dtype, ignore) for one in labels):
        raise _cannot_occur("Ignored label", ignore, labels[0])
    for one in labels:
        if background is not None and not can_hold(one.dtype, background):
            raise _cannot_occur("Background", background, one)


def _cannot_occur(what: str, value: int, labels: _Stored) -> InvalidData:
    known = np.dtype(labels.dtype)
    cure = "Say which value is meant there."
    if known.kind == "u":
        cure += f" A {value} that was stored as {known} is {value % 2 ** (8 * known.itemsize)} now."
    problem = f"cannot occur in the labels {labels.location}, of type {known}"
    return InvalidData(f"{what} {value}", problem, cure)


def whole_numbers(stored: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Give labels as integers; floats are taken where they are whole."""
    if stored.dtype.kind != "f":
        return stored
    wide = stored.astype(np.float64)
    wrong = ~(np.abs(wide) <= _WHOLE_FLOATS) | (wide != np.floor(wide))  # NaN is wrong too
    if wrong.any():
        problem = f"hold the value {wide[wrong][0]:g}, and a class or an instance is a whole number"
        raise InvalidData(where, problem, "Give labels, not probabilities or grey values.")
    return wide.astype(np.int64)


def _all_of(locations: Sequence[str]) -> str:
    return f"Labels {' and '.join(dict.fromkeys(locations))}"


def not_classes(locations: Sequence[str], targets: Targets) -> InvalidData:
    """Say that labels hold more values than can be meant."""
    where, said = _all_of(locations), targets.expected
    if said is not None and said > MOST_CLASSES:
        problem = f"hold more than the {said} values that are to be classes"
        cure = "Correct the number, or train on inside against outside of instances with --binary."
        return InvalidData(where, problem, cure)
    problem = f"hold more than {MOST_CLASSES} values: instances, not classes"
    cure = "Train on inside against outside with --binary, or say how many classes there are with "
    return InvalidData(where, problem, f"{cure}--classes N.")


def check_classes(locations: Sequence[str], counts: Mapping[int, int], targets: Targets) -> None:
    """Refuse a number of classes that is not the one said, or below two."""
    where, values = _all_of(locations), list(counts)
    if len(values) < 2 and targets.binary:
        raise _one_sided(where, values == [0], targets.background or 0)
    if len(values) < 2:
        cure = "Two classes at least are needed in the training region."
        raise InvalidData(where, f"hold the value {values[0]} only", cure)
    if targets.classes is not None and len(values) != targets.classes:
        problem = f"hold {len(values)} values, {values}, but {targets.classes} are to be classes"
        raise InvalidData(where, problem, f"Say --classes {len(values)}, or correct the labels.")


def _one_sided(where: str, outside: bool, background: int) -> InvalidData:
    if outside:
        problem = f"hold background, {background}, only"
        cure = "Check the region, and which value is the background (--background)."
        return InvalidData(where, problem, cure)
    problem = f"hold instances only: no voxel of the training region is background, {background}"
    cure = (
        "Where instances touch, make background between them with --gap 2, say; if another value "
        "is the background, name it with --background."
    )
    return InvalidData(where, problem, cure)
