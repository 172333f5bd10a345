"""What a worker runs to compare one block of a prediction with the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, Box
from tilenet.metrics.arrays import check_instances, check_probabilities
from tilenet.metrics.isbi import IsbiTally, tally_section
from tilenet.metrics.overlaps import segments
from tilenet.metrics.pair_table import PairTable, SegTally
from tilenet.networks import UINT8
from tilenet.volumes import VolumeReference, reader
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
    """

    isbi: IsbiTally | None
    seg: SegTally | None
    lowest: int
    highest: int
    touching: int


@dataclass(frozen=True, kw_only=True)
class SectionTask:
    """Compare the sections of a block, one after the other.

    Parameters
    ----------
    prediction, truth : VolumeReference
    run : str
    isbi, seg : bool
        What to tally for: the figures of ISBI 2012, for which the prediction holds probabilities,
        and the SEG score.
    offset : tuple of int
        First voxel of the truth, in voxels of the prediction, (z, y, x).
    threshold : float or None
        Probabilities above it make instances for SEG; None when the prediction is instances.
    invert : bool
        The prediction is the probability of what is not interior.
    """

    prediction: VolumeReference
    truth: VolumeReference
    run: str
    isbi: bool
    seg: bool
    offset: ZYX = (0, 0, 0)
    threshold: float | None = None
    invert: bool = False

    def __call__(self, box: Box) -> BlockReport:
        clock = Clock()
        predicted = reader(self.prediction, self.run).read_whole(box)
        labels = reader(self.truth, self.run).read_whole(box.relative_to(self.offset))
        clock.phase("read")
        tallies = tuple(self._tally(*pair) for pair in zip(predicted, labels, strict=True))
        clock.phase("compute")
        return BlockReport(box, clock.seconds, tallies)

    def _tally(self, predicted: npt.NDArray[Any], labels: npt.NDArray[Any]) -> SectionTally:
        check_instances(labels, self.truth.location)
        isbi, instances = None, predicted
        if self.isbi or self.threshold is not None:
            scores = probabilities(predicted, invert=self.invert)
            check_probabilities(scores)
            isbi = tally_section(labels, scores) if self.isbi else None
            if self.threshold is not None:
                instances = segments(scores.astype(np.float64) > self.threshold)
        seg = None
        if self.seg:
            check_instances(instances, self.prediction.location)
            seg = PairTable.of(labels, instances).seg()
        lowest, highest = label_range(labels)
        return SectionTally(isbi, seg, lowest, highest, _touching(labels))


@dataclass(frozen=True, kw_only=True)
class PairTask:
    """Count the voxels that true and predicted instances share in a block.

    Parameters
    ----------
    prediction, truth : VolumeReference
    run : str
    offset : tuple of int
        First voxel of the truth, in voxels of the prediction, (z, y, x).
    """

    prediction: VolumeReference
    truth: VolumeReference
    run: str
    offset: ZYX = (0, 0, 0)

    def __call__(self, box: Box) -> BlockReport:
        clock = Clock()
        predicted = reader(self.prediction, self.run).read_whole(box)
        labels = reader(self.truth, self.run).read_whole(box.relative_to(self.offset))
        clock.phase("read")
        check_instances(labels, self.truth.location)
        check_instances(predicted, self.prediction.location)
        table = PairTable.of(labels, predicted)
        clock.phase("compute")
        return BlockReport(box, clock.seconds, table)


def probabilities(values: npt.NDArray[Any], *, invert: bool = False) -> npt.NDArray[Any]:
    """Scale stored values to probabilities of interior.

    Parameters
    ----------
    values : ndarray of uint8, bool or float
        uint8 holds 255 p, as predictions store it.
    invert : bool
        Give 1 - p.

    Returns
    -------
    ndarray of float32 or float64, same shape
        p; of uint8 in float32, as the official figures hold an image of 32 bits.
    """
    if values.dtype == UINT8.name:
        grey = UINT8.one - values if invert else values
        return grey.astype(np.float32) / np.float32(UINT8.one)
    if values.dtype.kind not in "bf":
        problem = f"the dtype {values.dtype} holds no probabilities"
        raise InvalidData(
            "prediction", problem, f"Give uint8 ({UINT8.meaning}) or floating-point values."
        )
    exact = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
    return 1 - exact if invert else exact


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
