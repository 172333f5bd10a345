"""What a worker runs to sum the grey values of one block."""

from __future__ import annotations

from dataclasses import dataclass

from tilenet.geometry import Box
from tilenet.volumes.grey_values import Moments
from tilenet.volumes.references import VolumeReference, read_finite, reader
from tilenet.worker import BlockReport, Clock


@dataclass(frozen=True, kw_only=True)
class MomentsTask:
    """Sum grey values and their squares over one block.

    Parameters
    ----------
    source : VolumeReference
    run : str
    void : float or None
        Grey value that marks voxels outside the specimen.
    """

    source: VolumeReference
    run: str
    void: float | None = None

    def __call__(self, box: Box) -> BlockReport:
        clock = Clock()
        moments = Moments.of(read_finite(reader(self.source, self.run), box), self.void)
        clock.phase("read")
        return BlockReport(box, clock.seconds, moments)
