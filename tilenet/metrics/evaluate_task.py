"""What a worker runs to compare one block of a prediction with the truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.geometry import ZYX, Box
from tilenet.metrics.arrays import check_finite_values, check_instances, check_probabilities
from tilenet.metrics.isbi import IsbiTally, tally_section
from tilenet.metrics.objects import Centres, ObjectTally
from tilenet.metrics.overlaps import segments
from tilenet.metrics.pair_table import PairTable, SegTally
from tilenet.metrics.truth_rule import TruthRule
from tilenet.volumes import ValueRange, VolumeReference, probabilities, reader
from tilenet.worker import BlockReport, Clock


@dataclass(frozen=True, slots=True)
class SectionTally:
    """What one section says.

    Parameters
    ----------
    isbi : IsbiTally or None
    seg : SegTally or None
    lowest, highest : int
        Smallest and largest label above 0; both 0 when there is none.
    touching : int
        Pairs of 4-neighbours with different labels above 0.
    objects : ObjectTally or None
    ignored : int
        Pixels of the value that says nothing.
    """

    isbi: IsbiTally | None
    seg: SegTally | None
    lowest: int
    highest: int
    touching: int
    objects: ObjectTally | None = None
    ignored: int = 0


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where interior begins in stored values.

    Parameters
    ----------
    above : float
        Values above it are interior; where inverted, those that are not.
    invert : bool
    bounded : bool
        Values are probabilities, and none may lie beyond 0 and 1.
    """

    above: float
    invert: bool = False
    bounded: bool = True

    def interior(self, values: npt.NDArray[Any]) -> npt.NDArray[np.bool]:
        """Apply it.

        Parameters
        ----------
        values : ndarray

        Returns
        -------
        ndarray of bool, same shape
        """
        if self.bounded:
            check_probabilities(probabilities(values))
        else:
            check_finite_values(values)
        return np.asarray((values > self.above) != self.invert, bool)


@dataclass(frozen=True, kw_only=True)
class SectionTask:
    """Compare the sections of a block, one after the other.

    Parameters
    ----------
    prediction, truth : VolumeReference
    run : str
    rule : TruthRule
        Which voxels are judged.
    isbi, seg, objects : bool
        What to tally for: the figures of ISBI 2012, for which the prediction holds probabilities,
        the SEG score, and whole objects.
    offset : tuple of int
        First voxel of the truth, in voxels of the prediction, (z, y, x).
    cut : Cut or None
        What makes instances of the prediction; None when it is instances.
    invert : bool
        The prediction is the probability of what is not interior.
    border : int or None
        Pixels from the edges of the section within which centres of instances count neither way.
    """

    prediction: VolumeReference
    truth: VolumeReference
    run: str
    rule: TruthRule
    isbi: bool
    seg: bool
    objects: bool = False
    offset: ZYX = (0, 0, 0)
    cut: Cut | None = None
    invert: bool = False
    border: int | None = None

    def __call__(self, box: Box) -> BlockReport:
        clock = Clock()
        predicted = reader(self.prediction, self.run).read_whole(box)
        labels = reader(self.truth, self.run).read_whole(box.relative_to(self.offset))
        clock.phase("read")
        tallies = tuple(self._tally(*pair) for pair in zip(predicted, labels, strict=True))
        clock.phase("compute")
        return BlockReport(box, clock.seconds, tallies)

    def _tally(self, predicted: npt.NDArray[Any], section: npt.NDArray[Any]) -> SectionTally:
        truth = self.rule.judged(section[np.newaxis]).cropped((0,))
        labels, left_out = truth.labels, truth.left_out
        check_instances(labels, self.truth.location)
        isbi, instances = None, predicted
        if self.isbi:
            scores = truth.background_where_left_out(probabilities(predicted, invert=self.invert))
            check_probabilities(scores)
            isbi = tally_section(labels, scores)
            if left_out is not None:
                isbi = replace(isbi, pixels=int(np.count_nonzero(~left_out)))
        if self.cut is not None:
            seen = truth.background_where_left_out(predicted)
            instances = segments(truth.background_where_left_out(self.cut.interior(seen)))
        seg = objects = None
        if self.seg or self.objects:
            instances = truth.background_where_left_out(instances)
            check_instances(instances, self.prediction.location)
            table = PairTable.of(labels, instances, left_out)
            beside = [_beside(ids, self.border) for ids in (labels, instances)]
            seg = table.seg(beside[0]) if self.seg else None
            objects = ObjectTally.of(table, *beside) if self.objects else None
        lowest, highest = label_range(labels)
        return SectionTally(isbi, seg, lowest, highest, _touching(labels), objects, truth.ignored)


def _beside(ids: npt.NDArray[Any], border: int | None) -> npt.NDArray[np.uint64]:
    if border is None:
        return np.empty(0, np.uint64)
    return Centres.of(ids[np.newaxis]).beside(ids.shape, border)


@dataclass(frozen=True, slots=True, eq=False)
class PairTally:
    """What one block says; tallies of blocks add up.

    Parameters
    ----------
    table : PairTable
        Of instances, or of classes.
    true, proposed : Centres or None
        Of its instances, where those at the border are looked for.
    ignored : int
        Voxels of the value that says nothing.
    lowest, highest : int
        Smallest and largest label above 0; both 0 when there is none.
    values : ValueRange
        Of the prediction, where a threshold cuts it.
    """

    table: PairTable
    true: Centres | None = None
    proposed: Centres | None = None
    ignored: int = 0
    lowest: int = 0
    highest: int = 0
    values: ValueRange = field(default_factory=ValueRange)

    @classmethod
    def pooled(cls, tallies: Iterable[PairTally]) -> PairTally:
        """Add up tallies of disjoint blocks, in whatever order."""
        ignored = lowest = highest = 0
        true, proposed, values = list[Centres](), list[Centres](), ValueRange()

        def tables() -> Iterator[PairTable]:
            nonlocal ignored, lowest, highest, values
            for tally in tallies:
                ignored += tally.ignored
                values = values.plus(tally.values)
                lowest = min(lowest or tally.lowest, tally.lowest or lowest)
                highest = max(highest, tally.highest)
                if tally.true is not None and tally.proposed is not None:
                    true.append(tally.true)
                    proposed.append(tally.proposed)
                yield tally.table

        table = PairTable.pooled(tables())
        a, b = (Centres.pooled(parts) if parts else None for parts in (true, proposed))
        return cls(table, a, b, ignored, lowest, highest, values)

    def objects(self, shape: Sequence[int], border: int | None) -> ObjectTally:
        """Match its instances; ``shape`` is that of the sections of all that is compared."""
        if border is None or self.true is None or self.proposed is None:
            return ObjectTally.of(self.table)
        beside = self.true.beside(shape, border), self.proposed.beside(shape, border)
        return ObjectTally.of(self.table, *beside)


@dataclass(frozen=True, kw_only=True)
class PairTask:
    """Count the voxels that true and predicted instances, or classes, share in a block.

    Parameters
    ----------
    prediction, truth : VolumeReference
    run : str
    region : Box
        All that is compared: what a block sees around itself, and where the border lies.
    rule : TruthRule
        Which voxels are judged.
    offset : tuple of int
        First voxel of the truth, in voxels of the prediction, (z, y, x).
    centres : bool
        Say where instances lie.
    classes : tuple of int or None
        What the channels of the prediction stand for: that of the highest value is a voxel's class.
    cut : Cut or None
        What is class 1 of the prediction, and all other class 0.
    """

    prediction: VolumeReference
    truth: VolumeReference
    run: str
    region: Box
    rule: TruthRule
    offset: ZYX = (0, 0, 0)
    centres: bool = False
    classes: tuple[int, ...] | None = None
    cut: Cut | None = None

    def __call__(self, box: Box) -> BlockReport:
        clock, reach = Clock(), (0, self.rule.reach, self.rule.reach)
        seen = box.grow(reach, reach).intersect(self.region)
        predicted = reader(self.prediction, self.run).read_whole(box)
        labels = reader(self.truth, self.run).read_whole(seen.relative_to(self.offset))
        clock.phase("read")
        truth = self.rule.judged(labels).cropped(box.relative_to(seen.start).slices)
        check_instances(truth.labels, self.truth.location)
        # Before and after: what is left out may hold anything, and becomes no class.
        predicted = truth.background_where_left_out(predicted)
        proposed = self._proposed(predicted)
        proposed = truth.background_where_left_out(proposed)
        check_instances(proposed, self.prediction.location)
        labels = truth.labels if self.cut is None else truth.labels > 0
        table = PairTable.of(labels, proposed, truth.left_out)
        tally = PairTally(
            table,
            self._centres(truth.labels, box),
            self._centres(proposed, box),
            truth.ignored,
            *label_range(truth.labels),
            ValueRange() if self.cut is None else ValueRange.of(predicted),
        )
        clock.phase("compute")
        return BlockReport(box, clock.seconds, tally)

    def _centres(self, ids: npt.NDArray[Any], box: Box) -> Centres | None:
        _, y, x = box.relative_to(self.region.start).start
        return Centres.of(ids, (y, x)) if self.centres else None

    def _proposed(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.classes is not None:
            return most_probable(values, self.classes)
        return values if self.cut is None else self.cut.interior(values).astype(np.uint8)


def most_probable(values: npt.NDArray[Any], classes: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Give the class of the channel that has the highest value; of equal ones, of the first.

    Parameters
    ----------
    values : ndarray, (c, z, y, x)
    classes : sequence of int, one per channel

    Returns
    -------
    ndarray of uint64, (z, y, x)
        Some of ``classes``.
    """
    check_finite_values(values)
    found: npt.NDArray[np.uint64] = np.asarray(classes, np.uint64)[values.argmax(axis=0)]
    return found


def label_range(labels: npt.NDArray[Any]) -> tuple[int, int]:
    """Give the smallest and the largest label above 0.

    Parameters
    ----------
    labels : ndarray of int or bool, any shape

    Returns
    -------
    tuple of int
        Both 0 when there is no label above 0.
    """
    positive = labels[labels > 0]
    return (int(positive.min()), int(positive.max())) if positive.size else (0, 0)


def _touching(labels: npt.NDArray[Any]) -> int:
    neighbours = (labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])
    return sum(int(((a != b) & (a > 0) & (b > 0)).sum()) for a, b in neighbours)
