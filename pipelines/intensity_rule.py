"""How the user wants grey values to be normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tilenet.checkpoint import ModelHeader
from tilenet.errors import InvalidData
from tilenet.intensity import Intensity


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

    Raises
    ------
    InvalidData
        When the text is none of these.
    """

    text: str
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

    def known(self, header: ModelHeader, stored: Mapping[str, Any]) -> Intensity | None:
        """Give the rule's numbers where they need no pass over the volume.

        Parameters
        ----------
        header : ModelHeader
            The model's.
        stored : mapping
            The intensity provenance of a begun output, or nothing.

        Returns
        -------
        Intensity or None
            None when the volume has to be measured first.
        """
        if self.text == "volume":
            # Computed once: an output that is continued keeps the numbers it was begun with.
            if stored.get("rule") != "volume" or stored.get("void") != self.void:
                return None
            numbers = Intensity.from_dict(stored["numbers"])
        else:
            numbers = header.intensity if self.text == "model" else self._numbers()
        invert = self.invert != (self.text == "model" and numbers.invert)
        return replace(numbers, invert=invert)

    def to_dict(self, numbers: Intensity) -> dict[str, Any]:
        """State the rule and its numbers.

        Parameters
        ----------
        numbers : Intensity
            What it came to.

        Returns
        -------
        dict
            JSON values.
        """
        return {"rule": self.text, "void": self.void, "numbers": numbers.to_dict()}
