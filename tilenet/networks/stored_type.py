"""Data types that predictions are stored as, and what their values mean. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

#: NumPy's names of the data types that predictions are stored as.
StoredName = Literal["uint8", "float16", "float32"]


@dataclass(frozen=True, slots=True)
class StoredType:
    """A data type, by NumPy's name, that predictions are stored as.

    ``rule`` says how a probability becomes a stored value. ``one`` is what is stored of a
    probability of 1; 255 where it is rounded to a whole number. ``step`` is the relative distance
    of neighbouring values; 0 where only whole numbers from 0 to ``one`` are stored, not scores
    without bounds.
    """

    name: StoredName
    size: int
    rule: str
    one: int = 1
    step: float = 0.0

    @property
    def is_bounded(self) -> bool:
        """Whether only probabilities can be stored, and no scores without bounds."""
        return self.step == 0

    @property
    def meaning(self) -> str:
        """What a stored value is of a probability p."""
        return "p" if self.one == 1 else f"{self.one} p"

    def tolerance(self, tolerance: float, largest: float) -> float:
        """Give by how much stored values may differ where probabilities may by a tolerance.

        ``largest`` is the largest value, where there are no bounds: one that is stored in few
        digits jumps by one of them.
        """
        if self.is_bounded:
            return float(math.ceil(self.one * tolerance))
        return largest * (tolerance + self.step)


#: A probability as an integer of 8 bits.
UINT8 = StoredType("uint8", 1, "round(255 * value), halves to even", one=255)

#: All of them, by name.
STORED_TYPES: dict[str, StoredType] = {
    kind.name: kind
    for kind in (
        UINT8,
        StoredType("float16", 2, "value, rounded to float16", step=2**-10),
        StoredType("float32", 4, "value", step=2**-23),
    )
}
