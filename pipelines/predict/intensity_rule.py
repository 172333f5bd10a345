"""How the user wants grey values to be normalised."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipelines.outputs import GreyRule
from tilenet.errors import InvalidData, UnreadableBlock
from tilenet.geometry import Box, zyx
from tilenet.inference import ModelHeader
from tilenet.volumes import Intensity, Volume

#: Voxels that are looked at before a prediction, at most.
LOOKED_AT = (1, 256, 256)

#: Mean and standard deviation of normalised grey values beyond which something is likely wrong:
#: those of the training volume are 0 and 1.
LIKELY_MEAN, LIKELY_STD = 5.0, (0.05, 20.0)


@dataclass(frozen=True)
class IntensityRule:
    """How grey values are to be normalised.

    Parameters
    ----------
    text : str
        "model", "volume", "MEAN,STD" or "window:LOW,HIGH".
    void : float, optional
        Grey value outside the specimen, left out of the volume's statistics.
    invert : bool
        Negate the result.
    """

    text: str = "model"
    void: float | None = None
    invert: bool = False

    def __post_init__(self) -> None:
        if self.text not in ("model", "volume"):
            self._numbers()

    def _numbers(self) -> Intensity:
        kind, _, numbers = self.text.rpartition(":")
        try:
            first, second = (float(number) for number in numbers.split(","))
            if kind not in ("", "window"):
                raise ValueError(kind)
        except ValueError as error:
            cure = "Give model, volume, MEAN,STD or window:LOW,HIGH."
            raise InvalidData(f"Intensity {self.text!r}", "is not a rule", cure) from error
        return Intensity.window(first, second) if kind else Intensity(first, second)

    def known(self, header: ModelHeader, stored: GreyRule | None) -> Intensity | None:
        """Give the rule's numbers; None where they need a pass over the volume.

        ``stored`` is what a begun output says of it.
        """
        if self.text == "volume":
            # Computed once: an output that is continued keeps the numbers it was begun with.
            if stored is None or (stored.rule, stored.void) != ("volume", self.void):
                return None
            numbers = stored.intensity
        else:
            numbers = header.intensity if self.text == "model" else self._numbers()
        invert = self.invert != (self.text == "model" and numbers.invert)
        return replace(numbers, invert=invert)

    def stated(self, numbers: Intensity) -> GreyRule:
        """State the rule and its numbers."""
        return GreyRule(rule=self.text, void=self.void, numbers=numbers.to_dict())


def grey_value_warning(volume: Volume, region: Box, intensity: Intensity) -> str | None:
    """Say so where grey values in the middle of a region are unlike those trained on."""
    sizes = zyx(min(n, most) for n, most in zip(region.shape, LOOKED_AT, strict=True))
    start = zyx(a + (n - m) // 2 for a, n, m in zip(region.start, region.shape, sizes, strict=True))
    box = Box(start, zyx(a + m for a, m in zip(start, sizes, strict=True)))
    try:
        stored = volume.read(box)
    except UnreadableBlock:  # its block will say so, and the others are computed
        return None
    with np.errstate(all="ignore"):
        values = intensity.apply(stored, np.float64)
        mean, std = float(values.mean()), float(values.std())
    if abs(mean) <= LIKELY_MEAN and LIKELY_STD[0] <= std <= LIKELY_STD[1]:
        return None
    return (
        f"In the middle ({box}), grey values have mean {mean:.3g} "
        f"and standard deviation {std:.3g} when normalised; the network was trained on 0 and 1. "
        "If that is not void there, see --intensity."
    )
