"""From stored grey values to what the network is given: one affine rule for a whole volume.

Statistics are the training volume's, stored in the model, or the volume's own, computed once over
all of it. They are never a tile's: that would give neighbouring tiles different grey scales, and
the stitched result would no longer be one prediction.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData, NonFiniteValues
from tilenet.geometry import Box

#: Mean and standard deviation of normalised grey values beyond which something is likely wrong:
#: those that a network is trained on are 0 and 1.
LIKELY_MEAN, LIKELY_STD = 5.0, (0.05, 20.0)

#: Voxels that are widened to float64 at once: 8 MiB, whatever a block holds. The squares of as many
#: 16-bit integers add up exactly.
SLICE = 2**20


@dataclass(frozen=True, slots=True)
class Intensity:
    """``(clip(value, low, high) - mean) / std``, negated when inverted.

    Parameters
    ----------
    mean, std : float
        Grey value that becomes 0, and the step that becomes 1; ``std`` is positive.
    low, high : float or None
        Grey values to clip at, ``low`` below ``high``; None does not clip.
    invert : bool
        Dark membranes become bright and the other way round.
    """

    mean: float = 0.0
    std: float = 1.0
    low: float | None = None
    high: float | None = None
    invert: bool = False

    def __post_init__(self) -> None:
        numbers = [self.mean, self.std, *(n for n in (self.low, self.high) if n is not None)]
        if not np.all(np.isfinite(numbers)):
            raise InvalidData(f"Intensity {numbers}", "is not finite", "Give finite numbers.")
        if self.std <= 0:
            cure = "Give a positive number; an image of one grey value cannot be segmented."
            raise InvalidData(f"Intensity std {self.std:g}", "is not positive", cure)
        if self.low is not None and self.high is not None and self.low >= self.high:
            window = f"Intensity window {self.low:g},{self.high:g}"
            raise InvalidData(window, "is empty", "Give the lower grey value first.")

    @classmethod
    def window(cls, low: float, high: float, *, invert: bool = False) -> Self:
        """Map a window of grey values to 0..1, and clip beyond it.

        Parameters
        ----------
        low, high : float
            Grey values that become 0 and 1.
        invert : bool
            Map them to 0 and -1.

        Returns
        -------
        Intensity
            The rule.
        """
        if low >= high:
            cure = "Give the lower grey value first."
            raise InvalidData(f"Intensity window {low:g},{high:g}", "is empty", cure)
        return cls(low, high - low, low, high, invert)

    @classmethod
    def from_text(cls, text: str, names: str) -> Self:
        """Read MEAN,STD or window:LOW,HIGH.

        Parameters
        ----------
        text : str
        names : str
            What may stand in their place, for the message: "model, volume".

        Returns
        -------
        Intensity
            The rule.
        """
        kind, _, numbers = text.rpartition(":")
        try:
            first, second = (float(number) for number in numbers.split(","))
            if kind not in ("", "window"):
                raise ValueError(kind)
        except ValueError as error:
            cure = f"Give {names}, MEAN,STD or window:LOW,HIGH."
            raise InvalidData(f"Intensity {text!r}", "is not a rule", cure) from error
        return cls.window(first, second) if kind else cls(first, second)

    def apply(
        self, values: npt.NDArray[Any], dtype: npt.DTypeLike = np.float32
    ) -> npt.NDArray[np.floating[Any]]:
        """Normalise grey values.

        Parameters
        ----------
        values : ndarray, any shape, any real dtype
        dtype : float32 or float64
            Precision to compute in and to return.

        Returns
        -------
        ndarray, same shape, ``dtype``
            A new array.
        """
        with np.errstate(over="ignore"):  # the output is checked for what overflows
            result = np.array(values, dtype=dtype)
            if self.low is not None or self.high is not None:
                np.clip(result, self.low, self.high, out=result)
            result -= result.dtype.type(self.mean)
            # Two roundings, subtraction and division, the same wherever a voxel lies.
            result /= result.dtype.type(-self.std if self.invert else self.std)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as JSON values.

        Returns
        -------
        dict
            What :meth:`from_dict` takes.
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the fields from JSON values.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        Intensity
            The rule.
        """
        return cls(**values)


@dataclass(frozen=True, slots=True)
class OwnStatistics:
    """The rule that normalises every volume by its own mean and standard deviation.

    Parameters
    ----------
    clip : (float, float) or None
        Percentiles to clip at first; None does not clip.
    void : float or None
        Grey value outside the specimen, which does not count.
    """

    clip: tuple[float, float] | None = None
    void: float | None = None

    def __post_init__(self) -> None:
        check_clip(self.clip)
        if self.void is not None and not math.isfinite(self.void):
            raise InvalidData(f"Void value {self.void}", "is not finite", "Give a grey value.")

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as JSON values.

        Returns
        -------
        dict
            What :meth:`from_dict` takes.
        """
        return {"clip": None if self.clip is None else list(self.clip), "void": self.void}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the fields from JSON values.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        OwnStatistics
            The rule.
        """
        clip = values["clip"]
        low, high = clip if clip is not None else (0.0, 0.0)
        return cls(None if clip is None else (float(low), float(high)), values["void"])


def check_clip(clip: tuple[float, float] | None) -> None:
    """Refuse percentiles that are none, or in the wrong order.

    Parameters
    ----------
    clip : (float, float) or None
    """
    if clip is not None and not 0 <= clip[0] < clip[1] <= 100:
        cure = "Give two percentiles from 0 to 100, the lower first: 0.1,99.9."
        raise InvalidData(f"Clipping {clip[0]:g},{clip[1]:g}", "is not a range", cure)


def is_likely(mean: float, std: float) -> bool:
    """Tell whether normalised grey values may be what a network was trained on.

    Parameters
    ----------
    mean, std : float
        Of normalised grey values.

    Returns
    -------
    bool
        Nothing is certain: a piece of a volume may well be flat.
    """
    return abs(mean) <= LIKELY_MEAN and LIKELY_STD[0] <= std <= LIKELY_STD[1]


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, sum and sum of squares of grey values, which add up over blocks.

    Parameters
    ----------
    count : int
    total, squares : float
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: npt.NDArray[Any], void: float | None = None) -> Self:
        """Sum over the voxels of a block, but those of the value that marks what is no specimen.

        In float64: exact for integers of up to 16 bits, but for the last rounding.
        """
        flat = values.ravel(order="K")  # no copy, unless the array has gaps
        count, totals, squares = 0, [], []
        for start in range(0, flat.size, SLICE):
            seen = flat[start : start + SLICE]
            wide = (seen if void is None else seen[seen != void]).astype(np.float64)
            count += wide.size
            totals.append(float(wide.sum()))
            squares.append(float(np.dot(wide, wide)))
        return cls(count, math.fsum(totals), math.fsum(squares))

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    @property
    def mean(self) -> float:
        """Mean of the voxels, of which there are some."""
        return self.total / self.count

    @property
    def deviation(self) -> float:
        """Standard deviation of the voxels, of which there are some; 0 where it is rounding."""
        mean = self.mean
        variance = self.squares / self.count - mean * mean
        # Below that it is rounding: one grey value such as 0.1 gives variances around 1e-17.
        return 0.0 if variance <= 1e-14 * mean * mean else variance**0.5

    @property
    def intensity(self) -> Intensity:
        """The rule that gives these voxels mean 0 and standard deviation 1."""
        if self.count == 0:
            raise InvalidData("Volume", "has no voxels beside the void value", "Check --void.")
        mean, deviation = self.mean, self.deviation
        if deviation == 0:
            cure = "Check the path and the region: what has no contrast cannot be segmented."
            raise InvalidData("The volume", f"holds one grey value only, {mean:g}", cure)
        return Intensity(mean, deviation)


def check_finite(values: npt.NDArray[Any], location: str, box: Box) -> None:
    """Refuse NaN and infinity, naming the box and how many there are.

    Parameters
    ----------
    values : ndarray, any shape, any real dtype
    location : str, path or URL
    box : Box
    """
    if values.dtype.kind == "f":
        broken = values.size - int(np.isfinite(values).sum())
        if broken:
            raise NonFiniteValues(location, str(box), broken)
