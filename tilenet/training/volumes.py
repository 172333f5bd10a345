"""What is trained on: raw, labels and weights of a box of a volume, and what is known of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.architecture import UNetArchitecture
from tilenet.errors import InvalidData
from tilenet.geometry import AXES, ZYX, Box, zyx
from tilenet.intensity import Intensity, Moments
from tilenet.separation import gap_margins, separate
from tilenet.tiling import BlockGrid
from tilenet.training.recipe import Targets
from tilenet.volume import Volume

#: More label values than this are instances, not classes.
MOST_CLASSES = 8

#: Voxels of a block of the pass over the volumes, at most: some 500 MB while it is counted.
PASS_VOXELS = 2**24

#: Stored as the class of voxels whose label says nothing.
IGNORED = -1

#: The highest label value that can be a class; negative ones cannot.
HIGHEST_VALUE = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class TrainingVolume:
    """One volume to learn from.

    Parameters
    ----------
    raw, labels : Volume
        Grey values and integer labels of one shape.
    weights : Volume or None
        Loss weight per voxel.
    region : Box
        The part to learn from; nothing outside of it is ever read.

    Raises
    ------
    InvalidData
        When they do not belong together.
    """

    raw: Volume
    labels: Volume
    weights: Volume | None = None
    region: Box

    def __post_init__(self) -> None:
        labels = self.labels
        if labels.dtype.kind not in "uib":
            problem = f"are of type {labels.dtype}, and a class or an instance is a whole number"
            cure = "Give integer labels: store them as uint8, say, with 'tilenet ingest'."
            raise InvalidData(f"Labels {labels.location}", problem, cure)
        if labels.channels is not None:
            problem = f"have {labels.channels} channels, and a voxel has one label"
            raise InvalidData(f"Labels {labels.location}", problem, "Give labels of one channel.")
        self._check_fits("Labels", labels)
        if self.weights is not None:
            self._check_fits("The weight map", self.weights)
            if self.weights.dtype.kind != "f":
                problem = f"is of type {self.weights.dtype}"
                cure = "Make one with 'tilenet weights'."
                raise InvalidData(f"The weight map {self.weights.location}", problem, cure)

    def _check_fits(self, what: str, other: Volume) -> None:
        place, raw = f"{what} {other.location}", self.raw
        if other.shape != raw.shape:
            problem = f"have the shape {other.shape}, but the raw volume has {raw.shape} (z, y, x)"
            raise InvalidData(place, problem, "Give labels and weights of the same volume.")
        sizes = raw.voxel_size, other.voxel_size
        if None not in sizes and not np.allclose(*sizes, rtol=0.02):  # type: ignore[arg-type]
            problem = f"have voxels of {sizes[1]} nm, but the raw volume has {sizes[0]} (z, y, x)"
            raise InvalidData(place, problem, "Correct the voxel size of the one that is wrong.")


def target_values(
    volume: Volume, box: Box, *, within: Box, targets: Targets, per_section: bool
) -> npt.NDArray[np.int64]:
    """Read labels as what is learnt: class values, and :data:`IGNORED`.

    Parameters
    ----------
    volume : Volume
        Integer labels.
    box : Box
        What is wanted, inside the volume.
    within : Box
        Nothing outside of it is read.
    targets : Targets
        What label values mean.
    per_section : bool
        Gaps are made in each section alone.

    Returns
    -------
    ndarray, shape (z, y, x), int64
        Label values; 0 and 1 when binary.

    Raises
    ------
    InvalidData
        When a value cannot be a class.
    """
    grown = box.grow(*gap_margins(targets.gap, per_section=per_section)).intersect(within)
    stored = volume.read(grown)
    if targets.gap:
        stored = separate(stored, targets.gap, per_section=per_section, ignore=targets.ignore)
    inner = stored[box.relative_to(grown.start).slices]
    if targets.binary:
        values: npt.NDArray[np.int64] = (inner != 0).astype(np.int64)
    else:
        _check_values(inner, f"Labels {volume.location} in {box}", targets.ignore)
        values = inner.astype(np.int64)
    if targets.ignore is not None:
        values[inner == targets.ignore] = IGNORED
    return values


def _check_values(labels: npt.NDArray[Any], where: str, ignore: int | None) -> None:
    # Negative ones are ours (IGNORED), and higher ones would become negative.
    if int(labels.min()) >= 0 and int(labels.max()) <= HIGHEST_VALUE:
        return
    wrong = (labels < 0) | (labels > HIGHEST_VALUE)
    if ignore is not None:
        wrong &= labels != ignore
    if wrong.any():
        value = int(labels[wrong][0])
        cure = f"If it marks what was not labelled, say --ignore {value}; else correct it."
        raise InvalidData(where, f"hold the value {value}; classes are 0 to 2^63 - 1", cure)


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

    def class_weights(self) -> npt.NDArray[np.float32]:
        """Weigh classes by the inverse of their frequency.

        Returns
        -------
        ndarray, shape (classes,), float32
            Voxels / (classes x voxels of the class).
        """
        voxels = np.array(list(self.counts.values()), np.float64)
        weights: npt.NDArray[np.float32] = (voxels.sum() / (len(voxels) * voxels)).astype(
            np.float32
        )
        return weights


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
        What is trained on.
    targets : Targets
        What label values mean.
    per_section : bool
        Gaps are made in each section alone.
    keep_blocks : bool
        Keep the counts of every block, to find rare classes by.
    stopped : callable
        Asked before every block; true ends the pass.

    Returns
    -------
    Statistics
        Of all voxels.

    Raises
    ------
    InvalidData
        When the labels cannot be classes.
    InterruptedError
        When it was asked to stop.
    """
    moments, counts = Moments(), dict[int, int]()
    blocks: list[tuple[int, Box, Mapping[int, int]]] = []
    for number, volume in enumerate(volumes):
        size = _pass_block(volume.raw.chunk_shape)
        for whole in BlockGrid(volume.raw.shape, size, volume.region):
            if stopped():
                raise InterruptedError
            box = whole.intersect(volume.region)
            moments += Moments.of(volume.raw.read(box))
            found = _count(volume, box, targets, per_section)
            if keep_blocks:
                blocks.append((number, box, found))
            for value, voxels in found.items():
                counts[value] = counts.get(value, 0) + voxels
            if len(counts) > MOST_CLASSES:
                problem = f"hold more than {MOST_CLASSES} values: instances, not classes"
                cure = "Train on inside against outside with --binary."
                raise InvalidData(f"Labels {volume.labels.location}", problem, cure)
    if len(counts) < 2:
        held = f"hold the value {next(iter(counts))} only" if counts else "hold ignored voxels only"
        cure = "Two classes at least are needed in the training region."
        raise InvalidData(f"Labels {volumes[0].labels.location}", held, cure)
    return Statistics(moments.intensity, dict(sorted(counts.items())), blocks)


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


def _count(volume: TrainingVolume, box: Box, targets: Targets, per_section: bool) -> dict[int, int]:
    seen = target_values(
        volume.labels, box, within=volume.region, targets=targets, per_section=per_section
    )
    values, voxels = np.unique(seen[seen != IGNORED], return_counts=True)
    return dict(zip(values.tolist(), voxels.tolist(), strict=True))


def check_patch(patch: ZYX, volume: TrainingVolume, architecture: UNetArchitecture) -> None:
    """Refuse a patch that is larger than a training region.

    Parameters
    ----------
    patch : tuple of int
        Output voxels, (z, y, x), legal for the network.
    volume : TrainingVolume
        Where patches are cut from.
    architecture : UNetArchitecture
        The network.

    Raises
    ------
    InvalidData
        Naming the largest legal size that fits.
    """
    for axis, size, room, law in zip(
        AXES, patch, volume.region.shape, architecture.laws, strict=True
    ):
        if size <= room:
            continue
        fits = [n for n in law.nearest_outputs(room) if n <= room]
        cure = (
            f"The largest that is legal for this network is {fits[0]}."
            if fits
            else (f"The network gives {law.smallest_output} at least: take fewer levels (--depth).")
        )
        problem = (
            f"is larger than the {room} voxels of the training region in {volume.raw.location}"
        )
        raise InvalidData(f"A patch of {size} along {axis}", problem, cure)


def identities(volumes: Sequence[TrainingVolume]) -> list[dict[str, Any]]:
    """Say what was trained on.

    Parameters
    ----------
    volumes : sequence of TrainingVolume
        The volumes.

    Returns
    -------
    list of dict
        JSON values: fingerprints, independent of paths, and the region.
    """
    from tilenet.identity import fingerprint

    return [
        {
            "raw": fingerprint(volume.raw),
            "labels": fingerprint(volume.labels),
            "weights": None if volume.weights is None else fingerprint(volume.weights),
            "region": str(volume.region),
        }
        for volume in volumes
    ]
