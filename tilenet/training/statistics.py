"""One pass over what is trained on: grey values, voxels per class, and what cannot be meant."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.training.recipe import Targets
from tilenet.training.volumes import IGNORED, TrainingVolume, target_values
from tilenet.volumes import Intensity, Moments, Volume, check_finite, fingerprint
from tilenet.volumes.stores import is_remote, local_path

#: More label values than this are instances, not classes.
MOST_CLASSES = 8

#: Voxels of a block of the pass over the volumes, at most: some 500 MB while it is counted.
PASS_VOXELS = 2**24

#: Share of the voxels below which a class is rare.
RARE = 0.001


@dataclass(frozen=True)
class Statistics:
    """What is known of the training volumes after one pass over their regions.

    Parameters
    ----------
    intensity : Intensity
        Mean and standard deviation of the grey values.
    counts : mapping
        Voxels per label value, ascending by value; ignored ones are left out.
    blocks : sequence of (int, Box, mapping)
        Volume, box and voxels per label value of every block.
    """

    intensity: Intensity
    counts: Mapping[int, int]
    blocks: Sequence[tuple[int, Box, Mapping[int, int]]] = field(default=(), repr=False)

    @property
    def values(self) -> list[int]:
        """Label values of the classes, ascending."""
        return list(self.counts)

    @property
    def rare(self) -> list[int]:
        """Label values that hardly a voxel has: a mistake in the labels, more often than not."""
        least = RARE * sum(self.counts.values())
        return [value for value, voxels in self.counts.items() if voxels < least]

    def class_weights(self) -> npt.NDArray[np.float32]:
        """Weigh classes by the inverse of their frequency."""
        voxels = np.array(list(self.counts.values()), np.float64)
        return np.asarray(voxels.sum() / (len(voxels) * voxels), np.float32)


def measure(
    volumes: Sequence[TrainingVolume],
    targets: Targets,
    *,
    per_section: bool,
    keep_blocks: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> Statistics:
    """Pass once over the training regions, block by block.

    Parameters
    ----------
    volumes : sequence of TrainingVolume
    targets : Targets
    per_section, keep_blocks : bool
        Gaps are made in each section alone; the counts of every block are kept, to find rare
        classes by.
    stopped : callable
        Asked before every block; true raises InterruptedError.

    Returns
    -------
    Statistics
        Of all voxels.
    """
    moments, counts = Moments(), dict[int, int]()
    blocks: list[tuple[int, Box, Mapping[int, int]]] = []
    for number, volume in enumerate(volumes):
        weighty = volume.weights is None
        for box in _blocks(volume, stopped):
            grey = volume.raw.read(box)
            check_finite(grey, volume.raw.location, box)
            moments += Moments.of(grey)
            seen = _targets(volume, box, targets, per_section)
            weighty |= _check_weights(volume, box, seen != IGNORED)
            found = _count(seen)
            if keep_blocks:
                blocks.append((number, box, found))
            _add(counts, found)
            if len(counts) > MOST_CLASSES:
                problem = f"hold more than {MOST_CLASSES} values: instances, not classes"
                cure = "Train on inside against outside with --binary."
                raise InvalidData(f"Labels {volume.labels.location}", problem, cure)
        if not weighty:
            problem = "are 0 wherever a voxel has a class, so nothing would be learnt"
            raise _bad_weights(volume, volume.region, problem)
    if len(counts) < 2:
        held = f"hold the value {next(iter(counts))} only" if counts else "hold ignored voxels only"
        cure = "Two classes at least are needed in the training region."
        raise InvalidData(f"Labels {volumes[0].labels.location}", held, cure)
    return Statistics(moments.intensity, dict(sorted(counts.items())), blocks)


def check_held_out(
    volume: TrainingVolume,
    targets: Targets,
    *,
    values: Sequence[int],
    per_section: bool,
    stopped: Callable[[], bool] = lambda: False,
) -> Mapping[int, int]:
    """Refuse a held-out box that cannot judge: of unknown classes (naming the block), or of none.

    Parameters
    ----------
    volume : TrainingVolume
        Its region is the held-out box.
    targets : Targets
    values : sequence of int, label values of the classes
    per_section : bool
        Gaps are made in each section alone.
    stopped : callable
        Asked before every block; true raises InterruptedError.

    Returns
    -------
    mapping
        Voxels per label value, ascending by value.
    """
    counts = dict[int, int]()
    for box in _blocks(volume, stopped):
        found = _count(_targets(volume, box, targets, per_section))
        unknown = sorted(set(found) - set(values))
        if unknown:
            problem = f"hold the values {unknown}, which the training region has not"
            cure = "Choose another held-out box, or --binary."
            raise InvalidData(f"Labels {volume.labels.location} in {box}", problem, cure)
        _add(counts, found)
    if not counts:
        # Every network would have the loss 0 on it, and the first would be kept as the best.
        where = f"Labels {volume.labels.location} in the held-out box {volume.region}"
        cure = "Choose a box that holds labelled voxels."
        raise InvalidData(where, "hold ignored voxels only", cure)
    return dict(sorted(counts.items()))


def holds_same(volume: TrainingVolume, other: Volume) -> bool:
    """Tell whether another volume is the same one, wherever it lies.

    Parameters
    ----------
    volume : TrainingVolume
        Its region is what must not be found again.
    other : Volume
        Raw values.

    Returns
    -------
    bool
        Of one location; or stored alike, with the same voxels in the region.
    """
    mine = volume.raw
    if is_remote(mine.location) or is_remote(other.location):
        same = mine.location.rstrip("/") == other.location.rstrip("/")
    else:
        same = local_path(mine.location) == local_path(other.location)
    # Uncompressed volumes of one shape are stored alike whatever they hold.
    return same or (
        fingerprint(mine) == fingerprint(other)
        and all(np.array_equal(mine.read(b), other.read(b)) for b in _blocks(volume))
    )


def _blocks(volume: TrainingVolume, stopped: Callable[[], bool] = lambda: False) -> Iterator[Box]:
    size = _pass_block(volume.raw.chunk_shape)
    for whole in BlockGrid(volume.raw.shape, size, volume.region):
        if stopped():
            raise InterruptedError
        yield whole.intersect(volume.region)


def _pass_block(chunk: ZYX) -> ZYX:
    # Whole chunks, so that none is decoded twice, as long as they are of a reasonable size.
    size = list(chunk)
    for axis in (2, 1, 0):
        while size[axis] < 64 and math.prod(size) * 2 <= PASS_VOXELS:
            size[axis] *= 2
    while math.prod(size) > PASS_VOXELS:
        axis = size.index(max(size))
        size[axis] = -(-size[axis] // 2)
    return zyx(size)


def _targets(
    volume: TrainingVolume, box: Box, targets: Targets, per_section: bool
) -> npt.NDArray[np.int64]:
    return target_values(
        volume.labels, box, within=volume.region, targets=targets, per_section=per_section
    )


def _check_weights(volume: TrainingVolume, box: Box, known: npt.NDArray[np.bool]) -> bool:
    # Whether any voxel of a known class counts.
    if volume.weights is None:
        return False
    weights = volume.weights.read(box)
    if not np.isfinite(weights).all():
        raise _bad_weights(volume, box, "hold NaN or infinite values")
    if weights.min() < 0:
        raise _bad_weights(volume, box, f"hold negative values, down to {weights.min():g}")
    return bool((weights[known] > 0).any())


def _bad_weights(volume: TrainingVolume, box: Box, problem: str) -> InvalidData:
    assert volume.weights is not None
    where = f"The weights {volume.weights.location} in {box}"
    return InvalidData(where, problem, "Make them with 'tilenet weights', or correct them.")


def _count(seen: npt.NDArray[np.int64]) -> dict[int, int]:
    values, voxels = np.unique(seen[seen != IGNORED], return_counts=True)
    return dict(zip(values.tolist(), voxels.tolist(), strict=True))


def _add(counts: dict[int, int], found: Mapping[int, int]) -> None:
    for value, voxels in found.items():
        counts[value] = counts.get(value, 0) + voxels
