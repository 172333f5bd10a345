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
from tilenet.training.label_values import HIGHEST_VALUE, IGNORED, Meaning, whole_numbers
from tilenet.training.recipe import Targets
from tilenet.volumes import Placed, Volume, fingerprint


@dataclass(frozen=True, kw_only=True)
class TrainingVolume:
    """One volume to learn from.

    Parameters
    ----------
    raw : Volume
        Grey values.
    labels : Placed
        Integer labels, where they lie in the raw volume.
    weights : Placed or None
        Loss weight per voxel.
    region : Box
        The part to learn from, in voxels of the raw volume; labels and weights hold it.
    context : Box or None
        Where grey values may be read around the region; None is the region itself. Nothing outside
        of it is read for a patch.
    """

    raw: Volume
    labels: Placed
    weights: Placed | None = None
    region: Box
    context: Box | None = None

    def __post_init__(self) -> None:
        labels = self.labels.volume
        if labels.dtype.kind not in "uibf":
            problem = f"are of type {labels.dtype}, and a class or an instance is a whole number"
            cure = "Give integer labels: store them as uint8, say, with 'tilenet ingest'."
            raise InvalidData(f"Labels {labels.location}", problem, cure)
        if labels.channels is not None:
            problem = f"have {labels.channels} channels, and a voxel has one label"
            raise InvalidData(f"Labels {labels.location}", problem, "Give labels of one channel.")
        if self.weights is not None:
            weights = self.weights.volume
            what, cure = f"The weight map {weights.location}", "Make one with 'tilenet weights'."
            if weights.dtype.kind != "f":
                problem = f"is of type {weights.dtype}"
                raise InvalidData(what, problem, cure)
            kind = weights.attributes.get("kind", "weights")
            if kind not in ("weights", "volume"):  # a volume is what was ingested, whatever it is
                raise InvalidData(what, f"says that it holds {kind!r}, not 'weights'", cure)

    @property
    def readable(self) -> Box:
        """Where grey values may be read."""
        return self.context or self.region


def check_voxel_size(raw: Volume, other: Volume) -> None:
    """Refuse labels or weights of other voxels than the raw volume's, naming the level that fits.

    Parameters
    ----------
    raw, other : Volume
    """
    size, others = raw.voxel_size, other.voxel_size
    if size is None or others is None or _same(size, others):
        return
    problem = f"have voxels of {others} nm, but the raw volume {raw.location} has {size} (z, y, x)"
    cure = "Correct the voxel size of the one that is wrong."
    for volume, wanted in ((other, size), (raw, others)):
        levels = (volume.layout.levels or {}).items()
        fitting = [path for path, found in levels if found is not None and _same(found, wanted)]
        if fitting:
            cure = f"Give the path of level {fitting[0]} of {volume.location}, which fits."
            break
    raise InvalidData(f"Labels {other.location}", problem, cure)


def _same(first: Sequence[float], second: Sequence[float]) -> bool:
    return np.allclose(first, second, rtol=0.02, atol=0)


def target_values(
    labels: Placed, box: Box, *, within: Box, targets: Targets, per_section: bool
) -> npt.NDArray[np.int64]:
    """Read labels as what is learnt: class values, and ``IGNORED``.

    Nothing outside of ``within`` is read. Values are 0 and 1 when the targets are binary.
    """
    grown = box.grow(*gap_margins(targets.gap, per_section=per_section)).intersect(within)
    where, meaning = f"Labels {labels.location} in {box}", Meaning.of(targets)
    stored = meaning.normal(whole_numbers(labels.read(grown), where))
    ignore = meaning.normal_ignore
    if targets.gap:
        stored = separate(stored, targets.gap, per_section=per_section, ignore=ignore)
    inner = stored[box.relative_to(grown.start).slices]
    if targets.binary:
        values: npt.NDArray[np.int64] = (inner != 0).astype(np.int64)
    else:
        _check_values(inner, where, ignore)
        values = inner.astype(np.int64)
    if ignore is not None:
        values[inner == ignore] = IGNORED
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
        cure = (
            f"If it marks what was not labelled, say --ignore {value}; if it is the background of "
            f"instances, --binary --background {value}; else correct it."
        )
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
    return [_identity(volume) for volume in volumes]


def _identity(volume: TrainingVolume) -> dict[str, Any]:
    weights = volume.weights
    told: dict[str, Any] = {
        "raw": fingerprint(volume.raw),
        "labels": fingerprint(volume.labels.volume),
        "weights": None if weights is None else fingerprint(weights.volume),
        "region": str(volume.region),
    }
    # Where nothing is placed, as older versions said it.
    for name, placed in (("label_offset", volume.labels), ("weight_offset", weights)):
        if placed is not None and any(placed.offset):
            told[name] = list(placed.offset)
    if volume.readable != volume.region:
        told["context"] = str(volume.readable)
    return told
