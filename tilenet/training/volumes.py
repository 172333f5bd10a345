"""What is trained on: raw, labels and weights of a box of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import AXES, ZYX, Box
from tilenet.labels import gap_margins, separate
from tilenet.networks import UNetArchitecture
from tilenet.training.recipe import Targets
from tilenet.volumes import Volume, fingerprint

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
            what, cure = (
                f"The weight map {self.weights.location}",
                "Make one with 'tilenet weights'.",
            )
            if self.weights.dtype.kind != "f":
                problem = f"is of type {self.weights.dtype}"
                raise InvalidData(what, problem, cure)
            kind = self.weights.attributes.get("kind", "weights")
            if kind not in ("weights", "volume"):  # a volume is what was ingested, whatever it is
                raise InvalidData(what, f"says that it holds {kind!r}, not 'weights'", cure)

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

    Nothing outside of ``within`` is read. Values are 0 and 1 when the targets are binary.
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


def check_patch(patch: ZYX, volume: TrainingVolume, architecture: UNetArchitecture) -> None:
    """Refuse a patch that a training region is too small for, naming the largest legal size.

    Parameters
    ----------
    patch : tuple of int, output voxels, (z, y, x), legal for the network
    volume : TrainingVolume
    architecture : UNetArchitecture
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

    Returns
    -------
    list of dict
        JSON values: fingerprints, independent of paths, and the region.
    """
    return [
        {
            "raw": fingerprint(volume.raw),
            "labels": fingerprint(volume.labels),
            "weights": None if volume.weights is None else fingerprint(volume.weights),
            "region": str(volume.region),
        }
        for volume in volumes
    ]
