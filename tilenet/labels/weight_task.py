"""What a worker runs for one block of a weight map: counting the classes, and weighing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from tilenet.geometry import ZYX, Box
from tilenet.labels.weight_map import border_weights
from tilenet.labels.weight_rule import ClassCounts, WeightRule
from tilenet.volumes import OutputReference, Volume, VolumeReference, reader
from tilenet.worker import BlockReport, Clock


@dataclass(frozen=True, kw_only=True)
class CountTask:
    """Count the classes of one block of instances, after the gap was made.

    Parameters
    ----------
    source : VolumeReference
    rule : WeightRule
    run : str
    """

    source: VolumeReference
    rule: WeightRule
    run: str

    def __call__(self, box: Box) -> BlockReport:
        clock = Clock()
        margins = self.rule.gap_margins
        labels, core = _read_around(reader(self.source, self.run), box, margins)
        clock.phase("read")
        counts = ClassCounts.of(self.rule.separate(labels)[core.slices], self.rule.ignore)
        clock.phase("compute")
        return BlockReport(box, clock.seconds, counts)


@dataclass(frozen=True, kw_only=True)
class WeightTask:
    """Compute the weights of one block of instances and store them.

    Parameters
    ----------
    source : VolumeReference
    output : OutputReference
    rule : WeightRule
    counts : ClassCounts, of the whole volume
    run : str
    """

    source: VolumeReference
    output: OutputReference
    rule: WeightRule
    counts: ClassCounts
    run: str

    def __call__(self, box: Box) -> BlockReport:
        clock = Clock()
        labels, core = _read_around(reader(self.source, self.run), box, self.rule.margins)
        clock.phase("read")
        weights = border_weights(labels, self.rule, counts=self.counts, core=core)
        clock.phase("compute")
        self.output.write(box, weights, self.run)
        clock.phase("write")
        return BlockReport(box, clock.seconds)


def _read_around(
    volume: Volume, box: Box, margins: tuple[ZYX, ZYX]
) -> tuple[npt.NDArray[Any], Box]:
    read = box.grow(*margins).intersect(Box.of_shape(volume.shape))
    return volume.read_whole(read), box.relative_to(read.start)
