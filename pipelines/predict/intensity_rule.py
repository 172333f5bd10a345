"""How the user wants grey values to be normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.outputs import GreyRule
from tilenet.errors import InvalidData, UnreadableBlock
from tilenet.geometry import Box, zyx
from tilenet.inference import ModelHeader
from tilenet.volumes import Intensity, OwnStatistics, Volume, check_clip, is_likely

#: Voxels that are looked at before a prediction, at most.
LOOKED_AT = (1, 256, 256)


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
    clip : (float, float), optional
        Percentiles at which grey values are clipped for the volume's statistics.
    """

    text: str = "model"
    void: float | None = None
    invert: bool = False
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_clip(self.clip)
        if self.text not in ("model", "volume"):
            self._numbers()

    def _numbers(self) -> Intensity:
        return Intensity.from_text(self.text, "model, volume")

    def of_model(self, header: ModelHeader) -> IntensityRule:
        """Give the rule for a model: one that normalises each volume by its own statistics says so.

        What the user says of void and percentiles goes before what the model says.
        """
        chosen, own = self, header.own
        if own is not None and self.text in ("model", "volume"):
            void = own.void if self.void is None else self.void
            chosen = replace(self, text="volume", void=void, clip=self.clip or own.clip)
        if chosen.clip is not None and chosen.text != "volume":
            problem = f"belongs to a volume's own statistics, and the rule is {self.text!r}"
            cure = "Say --intensity volume, too, or leave it out."
            raise InvalidData(f"--clip {chosen.clip[0]:g},{chosen.clip[1]:g}", problem, cure)
        return chosen

    @property
    def own(self) -> OwnStatistics:
        """What the volume's own statistics are."""
        return OwnStatistics(self.clip, self.void)

    def known(self, header: ModelHeader, stored: GreyRule | None) -> Intensity | None:
        """Give the rule's numbers; None where they need a pass over the volume.

        ``stored`` is what a begun output says of it.
        """
        if self.text == "volume":
            # Computed once: an output that is continued keeps the numbers it was begun with.
            if stored is None or stored.rule != "volume":
                return None
            if (stored.void, stored.percentiles) != (self.void, self.clip):
                return None
            numbers = stored.intensity
        else:
            numbers = header.intensity if self.text == "model" else self._numbers()
        invert = self.invert != (self.text == "model" and numbers.invert)
        return replace(numbers, invert=invert)

    def stated(self, numbers: Intensity) -> GreyRule:
        """State the rule and its numbers."""
        known: dict[str, Any] = {"rule": self.text, "void": self.void, "numbers": numbers.to_dict()}
        if self.clip is not None:
            known["clip"] = list(self.clip)
        return GreyRule(**known)


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
    if is_likely(mean, std):
        return None
    return (
        f"In the middle ({box}), grey values have mean {mean:.3g} "
        f"and standard deviation {std:.3g} when normalised; the network was trained on 0 and 1. "
        "If that is not void there, see --intensity."
    )


def unclipped_warning(header: ModelHeader, rule: IntensityRule) -> str | None:
    """Say so where a network that was trained on clipped grey values is given others."""
    if rule.text != "volume" or rule.clip is not None:
        return None
    # A model's own limits may be those of a window, too.
    clip: Any = header.training
    for name in ("recipe", "intensity", "clip"):
        clip = clip.get(name) if isinstance(clip, Mapping) else None
    if not isinstance(clip, list | tuple):
        return None
    said = ",".join(f"{n}" for n in clip)
    return (
        f"The model was trained on grey values clipped at the percentiles {said}, and the volume's "
        f"own statistics are of all values. Say --clip {said} for the same."
    )
