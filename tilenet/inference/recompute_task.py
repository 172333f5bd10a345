"""What a worker runs to verify one block by computing it anew."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.geometry import Box
from tilenet.inference.predict_task import PredictTask
from tilenet.networks import STORED_TYPES
from tilenet.volumes import (
    VOLUMES,
    Checked,
    Flaw,
    Volume,
    VolumeReference,
    object_path,
)
from tilenet.worker import BlockReport, Clock, once

#: By how much values may differ where they are computed by another numeric plan, by precision:
#: what was measured between plans (README, "How exactness is meant"), of probabilities.
TOLERANCES = {"float64": 1e-5, "float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-2}


@once(VOLUMES)
def _stored(reference: VolumeReference, run: str) -> Volume:
    del run
    return reference.open()


@dataclass(frozen=True, kw_only=True)
class RecomputeTask:
    """Predict one block anew, and compare it with what is stored.

    Parameters
    ----------
    predict : PredictTask
        How it was computed; its output is only read.
    tolerance : float
        What values may differ by where another numeric plan made them, of probabilities.
    exact : bool
        Whether the same plan made them, so that every bit has to be the same.
    """

    predict: PredictTask
    tolerance: float
    exact: bool

    def __call__(self, box: Box) -> BlockReport:
        location, run = self.predict.output.location, self.predict.run
        clock, volume = Clock(), _stored(VolumeReference(location), run)
        found, one = list[tuple[Box, list[Difference | None]]](), threading.Lock()

        def compare(shard: Box, values: npt.NDArray[Any]) -> None:
            stored = volume.read(shard).reshape(-1, *shard.shape)
            pairs = zip(stored, values.reshape(stored.shape), strict=True)
            # One shard after another, though several threads come: what is compared takes several
            # times its own memory, which the plan does not count for each.
            with one:
                found.append((shard, [difference(a, b, self.tolerance) for a, b in pairs]))

        self.predict.stream(box, volume, compare, clock)
        found.sort(key=lambda pair: pair[0].start)  # in whatever order the threads came
        return BlockReport(box, clock.seconds, self._checked(volume, found))

    def _checked(
        self, volume: Volume, found: Sequence[tuple[Box, Sequence[Difference | None]]]
    ) -> Checked:
        flaws, near = list[Flaw](), list[float]()
        for shard, differences in found:
            for key, apart in zip(volume.shard_keys(shard), differences, strict=True):
                if apart is not None and apart.tolerable and not self.exact:
                    near.append(apart.largest)
                elif apart is not None:
                    path = object_path(volume, key)
                    flaws.append(
                        Flaw("different", path, str(shard), str(apart), tolerable=apart.tolerable)
                    )
        objects = sum(len(differences) for _, differences in found)
        return Checked(tuple(flaws), objects, len(near), max(near, default=0.0))


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much stored values differ from computed ones."""

    # count, size: voxels that differ, of so many.
    count: int
    size: int
    # largest, allowed: the largest difference, and what is allowed between numeric plans, as
    # stored.
    largest: float
    allowed: float

    @property
    def tolerable(self) -> bool:
        """Whether another numeric plan can be the reason."""
        return self.largest <= self.allowed  # a NaN never is

    def __str__(self) -> str:
        where = "within" if self.tolerable else "more than"
        return (
            f"{self.count} of {self.size} voxels differ from what is computed anew, by up to "
            f"{self.largest:g}: {where} the {self.allowed:g} that numeric plans may differ by"
        )


def difference(
    stored: npt.NDArray[Any], computed: npt.NDArray[Any], tolerance: float
) -> Difference | None:
    """Say by how much stored values differ from computed ones."""
    # Plane by plane: float64 copies of a shard would be many times what the plan counts.
    bits = np.dtype(f"u{stored.dtype.itemsize}")
    count, largest, scale = 0, 0.0, 1.0
    for a, b in zip(stored, computed, strict=True):
        other = a.view(bits) != b.view(bits)
        if other.any():
            count += int(other.sum())
            apart = np.abs(a[other].astype(np.float64) - b[other])
            largest = float(np.maximum(largest, apart.max()))  # NaN, where there is one
        scale = max(scale, float(a.max()), -float(a.min()))
    if not count:
        return None
    allowed = STORED_TYPES[stored.dtype.name].tolerance(tolerance, scale)
    return Difference(count, stored.size, largest, allowed)
