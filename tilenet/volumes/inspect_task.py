"""What a worker runs to verify one block: decode all that is stored of it."""

from __future__ import annotations

from dataclasses import dataclass

from tilenet.geometry import BlockGrid, Box
from tilenet.volumes.inspection import Bounds, Flaw, check_shard, views
from tilenet.volumes.references import VolumeReference, reader
from tilenet.worker import BlockReport, Clock


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in a block.

    Parameters
    ----------
    flaws : tuple of Flaw
    objects, near : int
        Stored objects that were looked at or compared, and those of them that another numeric plan
        made, and that differ within the tolerance.
    farthest : float, by how much these differ at most, as stored
    """

    flaws: tuple[Flaw, ...]
    objects: int
    near: int = 0
    farthest: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CheckTask:
    """Decode all that is stored of one block.

    Parameters
    ----------
    output : VolumeReference
    run : str
    bounds : Bounds or None
    region : Box or None
        Only what lies in whole shards of this part is looked at.
    """

    output: VolumeReference
    run: str
    bounds: Bounds | None = None
    region: Box | None = None

    def __call__(self, box: Box) -> BlockReport:
        clock, volume = Clock(), reader(self.output, self.run)
        part = box if self.region is None else box.intersect(self.region)
        found = [
            check_shard(view, shard, self.bounds)
            for shard in BlockGrid(volume.shape, volume.write_shape, part)
            for view in views(volume)
        ]
        clock.phase("read")
        flaws = tuple(flaw for flaw in found if flaw is not None)
        return BlockReport(box, clock.seconds, Checked(flaws, len(found)))
