"""What a worker runs to label one block: once to find what touches, once to store the ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, BlockGrid, Box
from tilenet.labels.components import LabelRule, block_components, extend, label
from tilenet.volumes import OutputReference, VolumeReference, read_finite, read_join, reader
from tilenet.worker import BlockReport, Clock


@dataclass(frozen=True, kw_only=True)
class ComponentsTask:
    """Label one block of masks by itself, and report what it shares with others; nothing is stored.

    Parameters
    ----------
    source : VolumeReference
    rule : LabelRule
    run : str
    """

    source: VolumeReference
    rule: LabelRule
    run: str

    def __call__(self, box: Box) -> BlockReport:
        clock, volume = Clock(), reader(self.source, self.run)
        values = read_finite(volume, extend(box, volume.shape, self.rule))
        clock.phase("read")
        _, components = block_components(values, box, volume.shape, self.rule)
        clock.phase("compute")
        return BlockReport(box, clock.seconds, components)


@dataclass(frozen=True, kw_only=True)
class LabelTask:
    """Label one block of masks again, and store the ids that its labels got in the volume.

    Parameters
    ----------
    source : VolumeReference
    output : OutputReference, with its join tables
    block : tuple of int
        Shape of the blocks, (z, y, x), with which the tables were made.
    rule : LabelRule
    run : str
    """

    source: VolumeReference
    output: OutputReference
    block: ZYX
    rule: LabelRule
    run: str

    def __call__(self, box: Box) -> BlockReport:
        clock, volume = Clock(), reader(self.source, self.run)
        values = read_finite(volume, extend(box, volume.shape, self.rule))
        self.output.check()  # another volume's tables would be misread
        ids = read_join(self.output.location, _index(box, BlockGrid(volume.shape, self.block)))
        clock.phase("read")
        labels, first = label(self.rule.foreground(values), self.rule)
        if len(first) != len(ids) - 1:
            problem = f"changed while they were labelled: {box} had {len(ids) - 1} components"
            cure = "Start anew with --overwrite."
            raise InvalidData(f"Masks {volume.location}", f"{problem}, now {len(first)}", cure)
        labels = labels[box.relative_to(box.start).slices]
        clock.phase("compute")
        self.output.write(box, ids[labels], self.run)
        clock.phase("write")
        return BlockReport(box, clock.seconds)


def _index(box: Box, grid: BlockGrid) -> int:
    place = tuple(a // n for a, n in zip(box.start, grid.block_shape, strict=True))
    return int(np.ravel_multi_index(place, grid.lattice.shape))
