"""What a worker runs to verify one block: decode all that is stored, or compute it anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.geometry import Box
from tilenet.predict_task import PredictTask
from tilenet.shards import Bounds, Flaw, check_shard, object_path, views
from tilenet.tasks import BlockReport, Clock, VolumeReference, once, reader
from tilenet.tiling import BlockGrid
from tilenet.volume import Volume

#: By how much values may differ where they are computed by another numeric plan, by precision:
#: what was measured between plans (README, "How exactness is meant"), of probabilities.
TOLERANCES = {"float64": 1e-5, "float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-2}


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in a block.

    Parameters
    ----------
    flaws : tuple of Flaw
        What is wrong.
    objects : int
        Stored objects that were looked at, or compared.
    """

    flaws: tuple[Flaw, ...]
    objects: int


@dataclass(frozen=True, kw_only=True)
class CheckTask:
    """Decode all that is stored of one block.

    Parameters
    ----------
    output : VolumeReference
        What is verified.
    run : str
        Name of the run.
    bounds : Bounds or None
        What its values can be.
    """

    output: VolumeReference
    run: str
    bounds: Bounds | None = None

    def __call__(self, box: Box) -> BlockReport:
        """Check a block.

        Parameters
        ----------
        box : Box
            Whole shards, or up to the volume's edge.

        Returns
        -------
        BlockReport
            Its value is a :class:`Checked`.
        """
        clock, volume = Clock(), reader(self.output, self.run)
        found = [
            check_shard(view, shard, self.bounds)
            for shard in BlockGrid(volume.shape, volume.write_shape, box)
            for view in views(volume)
        ]
        clock.phase("read")
        flaws = tuple(flaw for flaw in found if flaw is not None)
        return BlockReport(box, clock.seconds, Checked(flaws, len(found)))


@once
def _stored(reference: VolumeReference, run: str) -> Volume:
    # Beside the input and its mask, which `reader` remembers.
    del run
    return reference.open()


@dataclass(frozen=True, kw_only=True)
class RecomputeTask:
    """Predict one block anew, and compare it with what is stored.

    Parameters
    ----------
    predict : PredictTask
        How it was computed; its output is only read.
    tolerance : float or None
        Largest difference that is let pass, of probabilities; None compares bit for bit.
    """

    predict: PredictTask
    tolerance: float | None = None

    def __call__(self, box: Box) -> BlockReport:
        """Compute and compare a block.

        Parameters
        ----------
        box : Box
            The block, inside the volume.

        Returns
        -------
        BlockReport
            Its value is a :class:`Checked`.
        """
        location, run = self.predict.output.location, self.predict.run
        clock, volume = Clock(), _stored(VolumeReference(location), run)
        flaws, objects = list[Flaw](), 0

        def compare(shard: Box, values: npt.NDArray[Any]) -> None:
            nonlocal objects
            stored = volume.read(shard).reshape(-1, *shard.shape)
            pairs = zip(stored, values.reshape(stored.shape), strict=True)
            causes = [difference(a, b, self.tolerance) for a, b in pairs]
            objects += len(causes)
            for key, cause in zip(volume.shard_keys(shard), causes, strict=True):
                if cause is not None:
                    path = object_path(volume, key)
                    flaws.append(Flaw("different", path, str(shard), cause))

        self.predict.stream(box, volume, compare, clock)
        return BlockReport(box, clock.seconds, Checked(tuple(flaws), objects))


def difference(
    stored: npt.NDArray[Any], computed: npt.NDArray[Any], tolerance: float | None
) -> str | None:
    """Say by how much stored values differ from computed ones.

    Parameters
    ----------
    stored, computed : ndarray of one shape and dtype
        The values.
    tolerance : float or None
        Largest difference that is let pass, of probabilities: of uint8, 255 times as much, rounded
        up; of scores, relative to the largest. None compares bit for bit.

    Returns
    -------
    str or None
        None where they are alike.
    """
    bits = np.dtype(f"u{stored.dtype.itemsize}")
    other = stored.view(bits) != np.ascontiguousarray(computed).view(bits)
    if not other.any():
        return None
    a, b = stored[other].astype(np.float64), computed[other].astype(np.float64)
    largest = float(np.max(np.abs(a - b)))
    if tolerance is not None and largest <= _allowed(stored, tolerance):
        return None
    count = f"{int(other.sum())} of {stored.size} voxels"
    return f"{count} differ from what is computed anew, by up to {largest:g}"


def _allowed(stored: npt.NDArray[Any], tolerance: float) -> float:
    if stored.dtype.kind == "u":
        return float(np.ceil(np.iinfo(stored.dtype).max * tolerance))
    # A value that is stored in few digits jumps by one of them.
    scale = max(1.0, float(np.abs(stored).max()))
    return scale * (tolerance + float(np.finfo(stored.dtype).eps))
