"""The largest splits and mergers: which instances they are, and in which section they show best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilenet.geometry import ZYX, Box
from tilenet.metrics.pair_table import PairTable
from tilenet.volumes import VolumeReference, reader
from tilenet.worker import BlockReport, Clock

#: Splits, and mergers, that are shown.
SHOWN = 4


@dataclass(frozen=True, slots=True)
class Mistake:
    """A true instance in pieces, or a proposed one that joins several.

    Parameters
    ----------
    kind : {"split", "merger"}
    instance : int
        The true one that is split, or the proposed one that merges.
    parts : tuple of int
        The two largest of the other volume that it is made of.
    voxels : int
        Those outside of its largest part, in other parts; background is none.
    """

    kind: Literal["split", "merger"]
    instance: int
    parts: tuple[int, int]
    voxels: int


def largest_mistakes(table: PairTable, count: int = SHOWN) -> list[Mistake]:
    """List the largest splits, then the largest mergers.

    Parameters
    ----------
    table : PairTable
    count : int
        Of each kind at most.

    Returns
    -------
    list of Mistake
        The largest first; of equal ones that of the smaller number.
    """
    inside = (table.true > 0) & (table.proposed > 0)
    true, proposed, voxels = table.true[inside], table.proposed[inside], table.voxels[inside]
    return [
        *_largest("split", true, proposed, voxels, count),
        *_largest("merger", proposed, true, voxels, count),
    ]


def _largest(
    kind: Literal["split", "merger"],
    owners: npt.NDArray[np.uint64],
    others: npt.NDArray[np.uint64],
    voxels: npt.NDArray[np.int64],
    count: int,
) -> list[Mistake]:
    order = np.lexsort((others, -voxels, owners))  # of each owner the largest part first
    owners, others, voxels = owners[order], others[order], voxels[order]
    starts = np.flatnonzero(np.diff(owners, prepend=owners[:1] + np.uint64(1)) != 0)
    if not len(starts):
        return []
    lost = np.add.reduceat(voxels, starts) - voxels[starts]
    worst = np.argsort(-lost, kind="stable")[:count]
    return [
        Mistake(kind, int(owners[i]), (int(others[i]), int(others[i + 1])), int(n))
        for i, n in ((starts[w], lost[w]) for w in worst)
        if n > 0
    ]


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of a mistake in one section.

    Parameters
    ----------
    parts : tuple of int
        Pixels of either part.
    low, high : tuple of int
        First row and column of both, and last ones, (y, x).
    """

    parts: tuple[int, int]
    low: tuple[int, int]
    high: tuple[int, int]

    def plus(self, other: Sight) -> Sight:
        """Add what is seen in another block of the section."""
        return Sight(
            (self.parts[0] + other.parts[0], self.parts[1] + other.parts[1]),
            (min(self.low[0], other.low[0]), min(self.low[1], other.low[1])),
            (max(self.high[0], other.high[0]), max(self.high[1], other.high[1])),
        )


#: What is seen, by the number of the mistake and the section.
Sights = dict[tuple[int, int], Sight]


def best_sights(reports: Iterable[Sights]) -> dict[int, tuple[int, Sight]]:
    """Choose for every mistake the section in which the smaller of both parts is largest.

    Parameters
    ----------
    reports : iterable of dict
        Of disjoint blocks.

    Returns
    -------
    dict
        Number of the mistake to the section and what is seen there.
    """
    found: Sights = {}
    for sights in reports:
        for key, sight in sights.items():
            found[key] = found[key].plus(sight) if key in found else sight
    best: dict[int, tuple[int, Sight]] = {}
    for (number, z), sight in sorted(found.items()):
        known = best.get(number)
        if known is None or _clarity(sight) > _clarity(known[1]):
            best[number] = z, sight
    return best


def _clarity(sight: Sight) -> tuple[int, int]:
    return min(sight.parts), sum(sight.parts)


@dataclass(frozen=True, kw_only=True)
class SightTask:
    """Look in a block where mistakes are seen.

    Parameters
    ----------
    prediction, truth : VolumeReference
    run : str
    mistakes : sequence of Mistake
    offset : tuple of int
        First voxel of the truth, in voxels of the prediction, (z, y, x).
    """

    prediction: VolumeReference
    truth: VolumeReference
    run: str
    mistakes: Sequence[Mistake]
    offset: ZYX = (0, 0, 0)

    def __call__(self, box: Box) -> BlockReport:
        clock = Clock()
        proposed = reader(self.prediction, self.run).read_whole(box)
        true = reader(self.truth, self.run).read_whole(box.relative_to(self.offset))
        clock.phase("read")
        sights: Sights = {}
        for number, mistake in enumerate(self.mistakes):
            owner, other = (true, proposed) if mistake.kind == "split" else (proposed, true)
            inside = owner == mistake.instance
            for z in np.flatnonzero(inside.any(axis=(1, 2))).tolist():
                sight = _sight(inside[z], other[z], mistake.parts, box.start)
                if sight is not None:
                    sights[number, box.start[0] + z] = sight
        clock.phase("compute")
        return BlockReport(box, clock.seconds, sights)


def _sight(
    inside: npt.NDArray[np.bool], other: npt.NDArray[Any], parts: tuple[int, int], start: ZYX
) -> Sight | None:
    masks = [inside & (other == part) for part in parts]
    rows, columns = np.nonzero(masks[0] | masks[1])
    if not rows.size:
        return None
    y, x = start[1:]
    return Sight(
        (int(masks[0].sum()), int(masks[1].sum())),
        (int(rows.min()) + y, int(columns.min()) + x),
        (int(rows.max()) + y, int(columns.max()) + x),
    )
