"""What a worker runs to copy one block of a source."""

from __future__ import annotations

from dataclasses import dataclass

from tilenet.formats.source import Source
from tilenet.geometry import Box
from tilenet.volumes import (
    OutputReference,
)
from tilenet.worker import BlockReport, Clock


@dataclass(frozen=True, kw_only=True)
class IngestTask:
    """Copy one block of a source into a volume.

    Parameters
    ----------
    source : Source
    output : OutputReference
    run : str
    """

    source: Source
    output: OutputReference
    run: str

    def __call__(self, box: Box) -> BlockReport:
        clock = Clock()
        values = self.source.read(box)
        clock.phase("read")
        self.output.write(box, values, self.run)
        clock.phase("write")
        return BlockReport(box, clock.seconds)
