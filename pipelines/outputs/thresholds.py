"""Where the foreground of masks begins: a probability, a stored value, or whatever is not 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tilenet.errors import InvalidData
from tilenet.geometry import Box, zyx
from tilenet.networks import UINT8
from tilenet.volumes import ValueRange, Volume, read_finite, stored_cut

#: Of probabilities, where no threshold is given.
DEFAULT = 0.5

#: What the provenance of masks says that are 0 or not 0, however many values there are.
_MASKS = ("instances",)

#: Sections looked at before the work, and pixels of each along y and x.
SAMPLES, WINDOW = 3, 512

_CURE = (
    "Give --threshold 0.5 if they are probabilities, --raw-threshold V for stored values above V, "
    "or {} for labels."
)


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What the user said of it.

    Parameters
    ----------
    probability, raw : float or None
        ``--threshold`` and ``--raw-threshold``; not both.
    invert : bool
        Foreground is where 1 - p is above the probability, or where values are not above the other.
    labels : str
        Option that takes the volume for labels.
    """

    probability: float | None = None
    raw: float | None = None
    invert: bool = False
    labels: str = "--by-value"

    def __post_init__(self) -> None:
        if self.probability is not None and self.raw is not None:
            problem = "contradicts --threshold: it is a stored value, and that a probability"
            raise InvalidData("--raw-threshold", problem, "Leave out one of the two.")
        for name, value in (("--threshold", self.probability), ("--raw-threshold", self.raw)):
            if value is not None and not math.isfinite(value):
                raise InvalidData(name, f"is {value}", "Give a finite number.")
        if self.probability is not None and not 0 <= self.probability < 1:
            problem = "is no probability that another may exceed: those are 0 to less than 1"
            cure = f"If it is a stored value, give --raw-threshold {self.probability:g}."
            raise InvalidData(f"--threshold {self.probability:g}", problem, cure)

    @property
    def is_given(self) -> bool:
        """The user said one of the two."""
        return self.probability is not None or self.raw is not None

    def to_dict(self) -> dict[str, float]:
        """Give what is known, by the names of the options."""
        values = {"threshold": self.probability, "raw_threshold": self.raw}
        return {name: value for name, value in values.items() if value is not None}

    def of(self, volume: Volume) -> Threshold:
        """Take the default where nothing is given: a probability, or whatever is not 0."""
        if self.raw is None:
            check_bounded(volume)
        if self.is_given:
            return self
        ours = states_probabilities(volume)
        return replace(self, probability=DEFAULT) if ours else replace(self, raw=0.0)

    def stored(self, volume: Volume) -> float:
        """Give the stored value above which foreground begins, or at which it ends if inverted."""
        chosen = self.of(volume)
        if chosen.probability is None:
            return chosen.raw or 0.0
        if volume.dtype != UINT8.name and volume.dtype.kind not in "bf":
            problem = f"is a probability, and {volume.location} holds {volume.dtype} values"
            cure = "Give --raw-threshold for stored values above it."
            raise InvalidData(f"--threshold {chosen.probability:g}", problem, cure)
        return stored_cut(chosen.probability, volume.dtype, invert=self.invert)

    def check(self, volume: Volume, values: ValueRange, *, sampled: bool = False) -> None:
        """Refuse masks whose values, all or a sample, are not what they are taken for."""
        what, low, high = f"Masks {volume.location}", values.lowest, values.highest
        if self.raw is not None or low is None or high is None:
            return
        ours = states_probabilities(volume)
        if self.probability is None and not ours:
            if low != high and volume.attributes.get("kind") not in _MASKS:
                problem = f"hold several values beside 0 ({low:g} and {high:g} among them)"
                problem += ", and nothing says what they mean"
                raise InvalidData(what, problem, _CURE.format(self.labels))
            if low < 0:
                problem = f"hold {low:g}, and foreground is what is above 0"
                raise InvalidData(what, problem, "Say with --raw-threshold above what it is.")
        elif volume.dtype.kind == "f" and not 0 <= low <= high <= 1:
            problem = f"hold values from {low:g} to {high:g}, and probabilities are 0 to 1"
            cure = "Give --raw-threshold for stored values above it."
            raise InvalidData(what, problem, cure)
        elif high == 1 and volume.dtype == UINT8.name and not (ours or sampled):
            problem = f"hold only 0 and 1, and as probabilities uint8 means {UINT8.meaning}"
            raise InvalidData(what, problem, "Leave out --threshold: a mask needs none.")


def sampled_range(volume: Volume) -> ValueRange:
    """Look at some voxels before the work: a window in the middle of a few sections.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    ValueRange
        Of what was seen.
    """
    found = ValueRange()
    for box in sample_boxes(Box.of_shape(volume.shape), SAMPLES, WINDOW):
        found = found.plus(ValueRange.of(read_finite(volume, box)))
    return found


def sample_boxes(region: Box, count: int, window: int) -> list[Box]:
    """Choose windows in the middle of sections that are spread over a region.

    Parameters
    ----------
    region : Box
    count : int
        Sections at most.
    window : int
        Pixels at most, along y and x.

    Returns
    -------
    list of Box
        One section each.
    """
    depth, first = region.shape[0], region.start[0]
    chosen = sorted({first + (2 * i + 1) * depth // (2 * count) for i in range(count)})
    start, stop = [], []
    for axis in (1, 2):
        size = min(window, region.shape[axis])
        start.append(region.start[axis] + (region.shape[axis] - size) // 2)
        stop.append(start[-1] + size)
    return [Box(zyx((z, *start)), zyx((z + 1, *stop))) for z in chosen]


def check_bounded(volume: Volume) -> None:
    """Refuse scores without bounds where probabilities are needed.

    Parameters
    ----------
    volume : Volume
    """
    if _activation(volume) == "linear":
        problem = "holds scores without bounds (activation linear), and no probabilities"
        cure = "Give --raw-threshold for scores above it, or predict with softmax or sigmoid."
        raise InvalidData(volume.location, problem, cure)


def states_probabilities(volume: Volume) -> bool:
    """Tell whether the provenance of a volume says that it holds probabilities.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    bool
        True of predictions too that do not state their activation.
    """
    is_ours = volume.attributes.get("kind") == "prediction"
    return is_ours or _activation(volume) in ("softmax", "sigmoid")


def _activation(volume: Volume) -> Any:
    output: Any = volume.attributes.get("output")
    return output.get("activation") if isinstance(output, Mapping) else None
