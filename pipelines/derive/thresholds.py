"""Where the foreground of masks begins: a probability, a stored value, or whatever is not 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilenet.errors import InvalidData
from tilenet.geometry import Box, zyx
from tilenet.labels import ValueRange
from tilenet.networks import UINT8
from tilenet.volumes import Volume, read_finite

#: Of probabilities, where no threshold is given.
DEFAULT = 0.5

#: What the provenance of masks says that are 0 or not 0, however many values there are.
_MASKS = ("instances",)

#: Sections looked at before the work, and pixels of each along y and x.
SAMPLES, WINDOW = 3, 512

_CURE = (
    "Give --threshold 0.5 if they are probabilities, --raw-threshold V for stored values above V, "
    "or --by-value for labels."
)


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What the user said of it.

    Parameters
    ----------
    probability, raw : float or None
        ``--threshold`` and ``--raw-threshold``; not both.
    """

    probability: float | None = None
    raw: float | None = None

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

    def stored(self, volume: Volume) -> float:
        """Give the stored value above which foreground begins."""
        if self.raw is not None:
            return self.raw
        kind = volume.attributes.get("kind")
        if kind == "prediction":
            _check_bounded(volume)
            return _stored(DEFAULT if self.probability is None else self.probability, volume)
        return 0.0 if self.probability is None else _stored(self.probability, volume)

    def check(self, volume: Volume, values: ValueRange, *, sampled: bool = False) -> None:
        """Refuse masks whose values, all or a sample, are not what they are taken for."""
        what, low, high = f"Masks {volume.location}", values.lowest, values.highest
        if self.raw is not None or low is None or high is None:
            return
        kind = volume.attributes.get("kind")
        if self.probability is None and kind != "prediction":
            if low != high and kind not in _MASKS:
                problem = f"hold several values beside 0 ({low:g} and {high:g} among them)"
                raise InvalidData(what, f"{problem}, and nothing says what they mean", _CURE)
            if low < 0:
                problem = f"hold {low:g}, and foreground is what is above 0"
                raise InvalidData(what, problem, "Say with --raw-threshold above what it is.")
        elif volume.dtype.kind == "f" and not 0 <= low <= high <= 1:
            problem = f"hold values from {low:g} to {high:g}, and probabilities are 0 to 1"
            cure = "Give --raw-threshold for stored values above it."
            raise InvalidData(what, problem, cure)
        elif high == 1 and volume.dtype == UINT8.name and kind != "prediction" and not sampled:
            problem = f"hold only 0 and 1, and as probabilities uint8 means {UINT8.meaning}"
            raise InvalidData(what, problem, "Leave out --threshold: a mask needs none.")


def sampled_range(volume: Volume) -> ValueRange:
    """Look at some voxels before the work: a window in the middle of a few sections."""
    found = ValueRange()
    for i in range(SAMPLES):
        z = (2 * i + 1) * volume.shape[0] // (2 * SAMPLES)
        middle = [(max(0, (n - WINDOW) // 2), min(n, (n + WINDOW) // 2)) for n in volume.shape[1:]]
        starts, stops = zip((z, z + 1), *middle, strict=True)
        found = found.plus(ValueRange.of(read_finite(volume, Box(zyx(starts), zyx(stops)))))
    return found


def _stored(probability: float, volume: Volume) -> float:
    """Give the stored value of a probability: what is above the one is above the other."""
    if volume.dtype == UINT8.name:
        # As `evaluate` scales them, in float32.
        scaled = np.arange(UINT8.one + 1, dtype=np.float32) / np.float32(UINT8.one)
        return float(np.flatnonzero(scaled.astype(np.float64) <= probability)[-1])
    if volume.dtype.kind not in "bf":
        problem = f"is a probability, and {volume.location} holds {volume.dtype} values"
        cure = "Give --raw-threshold for stored values above it."
        raise InvalidData(f"--threshold {probability:g}", problem, cure)
    return probability


def _check_bounded(volume: Volume) -> None:
    output: Any = volume.attributes.get("output")
    if isinstance(output, Mapping) and output.get("activation") == "linear":
        problem = "holds scores without bounds (activation linear), and no probabilities"
        raise InvalidData(volume.location, problem, "Give --raw-threshold for scores above it.")
