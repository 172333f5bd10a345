"""What a worker runs to count or to sum the grey values of one block."""

from __future__ import annotations

from dataclasses import dataclass

from tilenet.geometry import Box
from tilenet.volumes.histograms import HistogramCount, MomentsCount
from tilenet.volumes.references import VolumeReference, read_finite, reader
from tilenet.worker import BlockReport, Clock


@dataclass(frozen=True, kw_only=True)
class GreyTask:
    """Count or sum grey values over one block.

    Parameters
    ----------
    source : VolumeReference
    run : str
    count : HistogramCount or MomentsCount
        By default their sums.
    """

    source: VolumeReference
    run: str
    count: HistogramCount | MomentsCount = MomentsCount()  # noqa: RUF009 -- it is frozen

    def __call__(self, box: Box) -> BlockReport:
        clock = Clock()
        found = self.count(read_finite(reader(self.source, self.run), box))
        clock.phase("read")
        return BlockReport(box, clock.seconds, found)
