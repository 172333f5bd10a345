"""What the sections of a comparison say together."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilenet.metrics import IsbiTally, ObjectTally, SectionTally, SegTally


@dataclass(frozen=True)
class SectionSum:
    """What is known of the sections so far."""

    isbi: IsbiTally | None = None
    seg: SegTally = field(default_factory=SegTally)
    lowest: int = 0
    highest: int = 0
    touching: int = 0
    objects: ObjectTally | None = None
    ignored: int = 0

    @classmethod
    def of(cls, tally: SectionTally) -> SectionSum:
        return cls(
            tally.isbi, tally.seg or SegTally(), tally.lowest, tally.highest, tally.touching,
            tally.objects, tally.ignored,
        )  # fmt: skip

    def plus(self, other: SectionSum) -> SectionSum:
        return SectionSum(
            other.isbi if self.isbi is None or other.isbi is None else self.isbi.plus(other.isbi),
            self.seg.plus(other.seg),
            min(self.lowest or other.lowest, other.lowest or self.lowest),
            max(self.highest, other.highest),
            self.touching + other.touching,
            _plus(self.objects, other.objects),
            self.ignored + other.ignored,
        )


def _plus(one: ObjectTally | None, other: ObjectTally | None) -> ObjectTally | None:
    return other if one is None or other is None else one.plus(other)
