"""One pass over what is trained on: grey values, voxels per class, and what cannot be meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import Box
from tilenet.training.label_values import (
    IGNORED,
    MOST_CLASSES,
    check_can_occur,
    check_classes,
    not_classes,
)
from tilenet.training.normalisation import GreyTally, Normalised, SeenGrey, normalise, see
from tilenet.training.pass_blocks import pass_blocks
from tilenet.training.recipe import Recipe, Targets
from tilenet.training.volumes import TrainingVolume, target_values
from tilenet.training.weight_values import bad_weights, check_weights
from tilenet.volumes import Intensity, Volume, check_finite, fingerprint
from tilenet.volumes.stores import is_remote, local_path

#: Share of the voxels below which a class is rare.
RARE = 0.001


@dataclass(frozen=True)
class VolumeStatistics:
    """What one training region holds.

    Parameters
    ----------
    raw, labels : str, paths or URLs
    counts : mapping
        Voxels per label value, ascending by value.
    ignored : int, voxels whose label says nothing
    grey : Normalised
        How its grey values are normalised.
    """

    raw: str
    labels: str
    counts: Mapping[int, int]
    ignored: int
    grey: Normalised

    @property
    def labelled(self) -> float:
        """Share of the voxels whose label says something."""
        known = sum(self.counts.values())
        return known / (known + self.ignored)


@dataclass(frozen=True)
class Statistics:
    """What is known of the training volumes after one pass over their regions.

    Parameters
    ----------
    counts : mapping
        Voxels per label value, ascending by value; ignored ones are left out.
    volumes : sequence of VolumeStatistics
    blocks : sequence of (int, Box, mapping)
        Volume, box and voxels per label value of every block; kept for positions by class.
    sections : sequence of (int, Box, int)
        Volume, box and labelled voxels of every section of a block that has some; kept for
        positions where labels are.
    """

    counts: Mapping[int, int]
    volumes: Sequence[VolumeStatistics]
    blocks: Sequence[tuple[int, Box, Mapping[int, int]]] = field(default=(), repr=False)
    sections: Sequence[tuple[int, Box, int]] = field(default=(), repr=False)

    @property
    def intensity(self) -> Intensity:
        """How the first volume's grey values are normalised: as those of all, mostly."""
        return self.volumes[0].grey.intensity

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


class _Tally:
    # What a pass over one volume finds.

    def __init__(self, volume: TrainingVolume, recipe: Recipe, per_section: bool) -> None:
        self.volume, self.recipe, self.per_section = volume, recipe, per_section
        self.counts, self.ignored = dict[int, int](), 0
        self.grey = GreyTally(volume.raw, volume.region, recipe.intensity.void)
        self.blocks: list[tuple[Box, Mapping[int, int]]] = []
        self.sections: list[tuple[Box, int]] = []
        self._weighty = volume.weights is None

    def add(self, box: Box) -> dict[int, int]:
        self.grey.add(self.volume.raw.read(box), box)
        seen = _targets(self.volume, box, self.recipe.targets, self.per_section)
        known = seen != IGNORED
        self._weighty |= check_weights(self.volume, box, known)
        found = _count(seen)
        _add(self.counts, found)
        self.ignored += known.size - int(known.sum())
        if self.recipe.sampling.positions == "class":
            self.blocks.append((box, found))
        if self.recipe.sampling.positions == "labelled":
            for z, voxels in enumerate(known.sum((1, 2)).tolist(), box.start[0]):
                section = Box((z, *box.start[1:]), (z + 1, *box.stop[1:]))
                self.sections += [(section, voxels)] if voxels else []
        return found

    def check(self) -> None:
        if not self.counts:
            where = f"Labels {self.volume.labels.location}"
            cure = "Leave the volume out, or take a region that holds labelled voxels."
            raise InvalidData(where, "hold ignored voxels only", cure)
        if not self._weighty:
            problem = "are 0 wherever a voxel has a class, so nothing would be learnt"
            raise bad_weights(self.volume, self.volume.region, problem)

    def result(self, grey: Normalised) -> VolumeStatistics:
        counts = dict(sorted(self.counts.items()))
        raw, labels = self.volume.raw.location, self.volume.labels.location
        return VolumeStatistics(raw, labels, counts, self.ignored, grey)


def measure(
    volumes: Sequence[TrainingVolume],
    recipe: Recipe,
    *,
    per_section: bool,
    stopped: Callable[[], bool] = lambda: False,
) -> Statistics:
    """Pass once over the training regions, block by block.

    Where every volume has its own statistics, its whole raw volume is read too.

    Parameters
    ----------
    volumes : sequence of TrainingVolume
    recipe : Recipe
        Its targets, positions and rule of grey values.
    per_section : bool
        Gaps are made in each section alone.
    stopped : callable
        Asked before every block; true raises InterruptedError.

    Returns
    -------
    Statistics
        Of all voxels.
    """
    targets = recipe.targets
    check_can_occur([v.labels.volume for v in volumes], targets)
    counts, tallies = dict[int, int](), list[_Tally]()
    for volume in volumes:
        tallies.append(_Tally(volume, recipe, per_section))
        for box in pass_blocks(volume.raw, volume.region, stopped):
            _add(counts, tallies[-1].add(box))
            if len(counts) > max(MOST_CLASSES, targets.expected or 0):
                raise not_classes([t.volume.labels.location for t in tallies], targets)
        tallies[-1].check()
    counts = dict(sorted(counts.items()))
    # They are counted over all.
    check_classes([volume.labels.location for volume in volumes], counts, targets)
    seen = [tally.grey.seen for tally in tallies]
    own = recipe.intensity.own
    whole = None if own is None else [_whole(tally, stopped) for tally in tallies]
    greys = normalise(seen, recipe.intensity, whole)
    return Statistics(
        counts,
        [tally.result(grey) for tally, grey in zip(tallies, greys, strict=True)],
        [(n, box, found) for n, tally in enumerate(tallies) for box, found in tally.blocks],
        [(n, box, voxels) for n, tally in enumerate(tallies) for box, voxels in tally.sections],
    )


def _whole(tally: _Tally, stopped: Callable[[], bool]) -> SeenGrey:
    # The rule "volume" is of the whole raw volume wherever it is used, as it is in a prediction.
    volume = tally.volume
    everything = Box.of_shape(volume.raw.shape)
    if volume.region == everything:
        return tally.grey.seen
    return see(volume.raw, everything, tally.recipe.intensity.void, stopped)


def check_held_out(
    volume: TrainingVolume,
    targets: Targets,
    *,
    values: Sequence[int],
    per_section: bool,
    stopped: Callable[[], bool] = lambda: False,
) -> Mapping[int, int]:
    """Refuse a held-out box that cannot judge: of unknown classes (naming the block), or of none.

    One that holds NaN or infinity is refused too.

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
    for box in pass_blocks(volume.raw, volume.region, stopped):
        check_finite(volume.raw.read(box), volume.raw.location, box)
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


def stored_range(volume: TrainingVolume) -> tuple[int, int]:
    """Find the lowest and the highest label of a region, as they are stored.

    Parameters
    ----------
    volume : TrainingVolume

    Returns
    -------
    (int, int)
        Ignored ones among them.
    """
    read = (volume.labels.read(b) for b in pass_blocks(volume.raw, volume.region))
    found = [(int(labels.min()), int(labels.max())) for labels in read]
    return min(low for low, _ in found), max(high for _, high in found)


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
    blocks = pass_blocks(mine, volume.region)
    # Uncompressed volumes of one shape are stored alike whatever they hold.
    return same or (
        fingerprint(mine) == fingerprint(other)
        and all(np.array_equal(mine.read(b), other.read(b)) for b in blocks)
    )


def _targets(
    volume: TrainingVolume, box: Box, targets: Targets, per_section: bool
) -> npt.NDArray[np.int64]:
    return target_values(
        volume.labels, box, within=volume.region, targets=targets, per_section=per_section
    )


def _count(seen: npt.NDArray[np.int64]) -> dict[int, int]:
    values, voxels = np.unique(seen[seen != IGNORED], return_counts=True)
    return dict(zip(values.tolist(), voxels.tolist(), strict=True))


def _add(counts: dict[int, int], found: Mapping[int, int]) -> None:
    for value, voxels in found.items():
        counts[value] = counts.get(value, 0) + voxels
