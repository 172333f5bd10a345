"""Patches straight from Zarr: where they lie, what is read for them, and how they are deformed.

The n-th sample is the same whatever was drawn before, in whichever process and thread.
"""

from __future__ import annotations

import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilenet.errors import InvalidData, NonFiniteValues
from tilenet.geometry import ZYX, Box, zyx
from tilenet.inference import read_mirrored
from tilenet.networks import UNetArchitecture
from tilenet.training.augmentation import (
    Deformation,
    GreyCurve,
    draw_deformation,
    draw_grey_curve,
    reach,
    resample,
)
from tilenet.training.label_values import IGNORED
from tilenet.training.pass_blocks import pass_blocks
from tilenet.training.recipe import Recipe
from tilenet.training.statistics import Statistics
from tilenet.training.volumes import TrainingVolume, target_values
from tilenet.volumes import read_finite

_Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was read for one patch, and what is to become of it."""

    index: int  # number of the sample
    grey: npt.NDArray[np.float32]  # normalised grey values around the patch
    # Classes (:data:`tilenet.training.volumes.IGNORED` among them), and the weight map if
    # any.
    targets: npt.NDArray[np.float32]
    # grey_centre, targets_centre: the patch's centre in either array, voxels, (z, y, x).
    grey_centre: _Point
    targets_centre: _Point
    deformation: Deformation  # of the geometry
    curve: GreyCurve  # of the grey values


@dataclass(frozen=True)
class Patch:
    """What the loop is given.

    Parameters
    ----------
    x : Tensor, shape (1, C, Z, Y, X), float32, input of the network
    classes, weights : Tensor, shape (1, Z, Y, X), int64 and float32
        Class and loss weight per output voxel; both 0 where ignored.
    """

    x: Tensor
    classes: Tensor
    weights: Tensor


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Random patches of several volumes, none larger than a region (see :func:`check_patch`).

    Parameters
    ----------
    volumes : sequence of TrainingVolume
    architecture : UNetArchitecture
        Says how much context a patch needs.
    recipe : Recipe
    statistics : Statistics, of the training regions
    """

    volumes: Sequence[TrainingVolume]
    architecture: UNetArchitecture
    recipe: Recipe
    statistics: Statistics

    @functools.cached_property
    def patch(self) -> ZYX:
        """Output voxels of a patch, (z, y, x)."""
        rooms = zip(*(volume.region.shape for volume in self.volumes), strict=True)
        return self.recipe.patch_for(self.architecture, zyx(min(sizes) for sizes in rooms))

    @property
    def input_shape(self) -> ZYX:
        """Input voxels of a patch, (z, y, x)."""
        return self.architecture.input_for(self.patch)

    def sample(self, index: int) -> Sample:
        """Read what a patch needs; its number and the recipe's seed decide everything."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.optimization.seed, index])
        number, start = self._position(rng)
        chosen = recipe.augmentation
        deformation = draw_deformation(
            rng,
            self.input_shape,
            std=chosen.elastic_std,
            spacing=chosen.elastic_spacing,
            rotation=chosen.rotation,
            flips=chosen.flips,
        )
        curve = draw_grey_curve(rng, chosen.grey_slope, chosen.grey_shift)
        volume = self.volumes[number]
        centre = tuple(a + (n - 1) / 2 for a, n in zip(start, self.patch, strict=True))
        grey_box, targets_box = (self._needed(centre, n) for n in (self.input_shape, self.patch))
        return Sample(
            index=index,
            grey=self._grey(number, grey_box),
            targets=self._targets(volume, targets_box),
            grey_centre=_relative(centre, grey_box),
            targets_centre=_relative(centre, targets_box),
            deformation=deformation,
            curve=curve,
        )

    def augmented(self, sample: Sample, device: torch.device | str = "cpu") -> Patch:
        """Deform a sample, on a device."""
        relative = sample.deformation.coordinates(self.input_shape, device)
        halo = self.architecture.halo
        inner = relative[
            (slice(None), *(slice(h, h + n) for h, n in zip(halo, self.patch, strict=True)))
        ]
        grey = resample(
            torch.from_numpy(sample.grey).to(device), relative + _column(sample.grey_centre, device)
        )
        places = inner + _column(sample.targets_centre, device)
        targets = torch.from_numpy(sample.targets).to(device)
        classes = resample(targets[:1], places, nearest=True).round().long()
        if len(targets) == 2:
            weights = resample(targets[1:], places)
        else:
            weights = torch.from_numpy(self.statistics.class_weights()).to(device)[classes]
        weights = torch.where(classes == IGNORED, 0.0, weights)
        return Patch(sample.curve.apply(grey)[None], classes.clamp(min=0), weights)

    # -- where ----------------------------------------------------------------------------------

    def _position(self, rng: np.random.Generator) -> tuple[int, ZYX]:
        # First output voxel of the patch. Every volume as often as it has room for patches.
        if self.recipe.sampling.positions == "class":
            return self._near_class(rng)
        if self.recipe.sampling.positions == "labelled":
            return self._near_label(rng)
        room = [math.prod(stop - a for a, stop in self._starts(v)) for v in self.volumes]
        number = int(rng.choice(len(room), p=np.array(room) / sum(room)))
        starts = self._starts(self.volumes[number])
        return number, zyx(int(rng.integers(a, stop)) for a, stop in starts)

    def _near_class(self, rng: np.random.Generator) -> tuple[int, ZYX]:
        value = self.statistics.values[int(rng.integers(len(self.statistics.values)))]
        voxels = np.array([counts.get(value, 0) for _, _, counts in self.statistics.blocks], float)
        number, box, _ = self.statistics.blocks[
            int(rng.choice(len(voxels), p=voxels / voxels.sum()))
        ]
        volume = self.volumes[number]
        places = np.argwhere(self._read_targets(volume, box) == value)
        chosen = places[int(rng.integers(len(places)))]
        start = zyx(
            min(max(a, int(p) + origin - n // 2), stop - 1)
            for (a, stop), p, origin, n in zip(
                self._starts(volume), chosen, box.start, self.patch, strict=True
            )
        )
        return number, start

    @functools.cached_property
    def _labelled(self) -> npt.NDArray[np.int64]:
        # Labelled voxels up to the end of each section.
        return np.cumsum([voxels for _, _, voxels in self.statistics.sections])

    def _near_label(self, rng: np.random.Generator) -> tuple[int, ZYX]:
        # Every labelled voxel as often, in the middle of the patch as far as the region allows.
        one = int(rng.integers(self._labelled[-1]))
        at = int(np.searchsorted(self._labelled, one, side="right"))
        number, box, voxels = self.statistics.sections[at]
        volume = self.volumes[number]
        places = np.argwhere(self._read_targets(volume, box) != IGNORED)
        chosen = places[one - int(self._labelled[at]) + voxels]
        start, augmentation = [], self.recipe.augmentation
        for axis, (first, stop) in enumerate(self._starts(volume)):
            place, size = int(chosen[axis]) + box.start[axis], self.patch[axis]
            lowest, highest = first, stop - 1
            turned = axis > 0 and augmentation.rotation == "any"
            if turned or augmentation.elastic_std[axis]:
                # It could be moved out, unless it is about the middle: then the patch overhangs the
                # region, which is mirrored there.
                lowest = min(lowest, place - 3 * size // 8)
                highest = max(highest, place - 5 * size // 8)
            start.append(min(max(lowest, place - size // 2), highest))
        return number, zyx(start)

    def _starts(self, volume: TrainingVolume) -> list[tuple[int, int]]:
        region = volume.region
        return [
            (a, b - n + 1) for a, b, n in zip(region.start, region.stop, self.patch, strict=True)
        ]

    # -- what -----------------------------------------------------------------------------------

    def reachable(self, number: int) -> Box:
        """Give the box of a volume that patches may read grey values of."""
        volume, start, stop = self.volumes[number], [], []
        chosen = self.recipe.augmentation
        far = reach(self.input_shape, std=chosen.elastic_std, rotation=chosen.rotation)
        for (first, last), n, r in zip(self._starts(volume), self.patch, far, strict=True):
            over = 3 * n // 8 if self.recipe.sampling.positions == "labelled" else 0
            start.append(math.floor(first - over + (n - 1) / 2 - r))
            stop.append(math.ceil(last - 1 + over + (n - 1) / 2 + r) + 1)
        return Box(zyx(start), zyx(stop)).intersect(volume.readable)

    def check_context(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Refuse NaN and infinity around the training regions, where patches would meet them."""
        for number, volume in enumerate(self.volumes):
            if volume.raw.dtype.kind != "f":
                continue
            for box in pass_blocks(volume.raw, self.reachable(number), stopped):
                if volume.region.contains(box):
                    continue
                try:
                    read_finite(volume.raw, box)
                except NonFiniteValues as error:
                    around = f"around the training region {volume.region}, where patches are read"
                    problem = f"holds {error.count} values that are NaN or infinite {around}"
                    cure = "Replace them"
                    cure += "." if number else f", or read nothing there: --region {volume.region}."
                    raise InvalidData(f"{volume.raw.location} in {box}", problem, cure) from error

    def _needed(self, centre: Sequence[float], shape: ZYX) -> Box:
        chosen = self.recipe.augmentation
        far = reach(shape, std=chosen.elastic_std, rotation=chosen.rotation)
        start = zyx(math.floor(c - r) for c, r in zip(centre, far, strict=True))
        return Box(start, zyx(math.ceil(c + r) + 1 for c, r in zip(centre, far, strict=True)))

    def _grey(self, number: int, box: Box) -> npt.NDArray[np.float32]:
        volume = self.volumes[number]
        # Its faces mirror, as the volume's do: what lies beyond is held out, perhaps.
        stored = read_mirrored(functools.partial(read_finite, volume.raw), box, volume.readable)
        grey = self.statistics.volumes[number].grey.intensity.apply(stored, np.float32)
        return grey if grey.ndim == 4 else grey[None]

    def _targets(self, volume: TrainingVolume, box: Box) -> npt.NDArray[np.float32]:
        read = functools.partial(self._known_targets, volume)
        values = read_mirrored(read, box, volume.readable)
        classes = np.searchsorted(self.statistics.values, values)
        layers = [np.where(values == IGNORED, IGNORED, classes)]
        if (weights := volume.weights) is not None:

            def read_weights(part: Box) -> npt.NDArray[np.float32]:
                return read_mirrored(weights.read, part, volume.region)

            layers.append(read_mirrored(read_weights, box, volume.readable))
        return np.stack([layer.astype(np.float32) for layer in layers])

    def _known_targets(self, volume: TrainingVolume, box: Box) -> npt.NDArray[np.int64]:
        # Around the region there are grey values, and nothing to learn.
        inner = box.intersect(volume.region)
        if inner == box:
            return self._read_targets(volume, box)
        values = np.full(box.shape, IGNORED, np.int64)
        if inner.size:
            values[inner.relative_to(box.start).slices] = self._read_targets(volume, inner)
        return values

    def _read_targets(self, volume: TrainingVolume, box: Box) -> npt.NDArray[np.int64]:
        return target_values(
            volume.labels,
            box,
            within=volume.region,
            targets=self.recipe.targets,
            per_section=self.architecture.is_planar,
        )


def _relative(centre: Sequence[float], box: Box) -> _Point:
    z, y, x = (c - a for c, a in zip(centre, box.start, strict=True))
    return z, y, x


def _column(point: _Point, device: torch.device | str) -> Tensor:
    return torch.tensor(point, dtype=torch.float32, device=device).view(3, 1, 1, 1)


class Prefetch:
    """Samples in order, read ahead by threads into a bounded queue."""

    def __init__(self, patches: Patches, indices: Sequence[int]) -> None:
        self.patches, self.indices = patches, indices
        #: Seconds that the loop waited for a sample.
        self.waited = 0.0

    def __iter__(self) -> Iterator[Sample]:
        chosen = self.patches.recipe.sampling
        waiting: deque[Future[Sample]] = deque()
        coming = iter(self.indices)
        with ThreadPoolExecutor(chosen.readers) as pool:
            try:
                for index in coming:
                    waiting.append(pool.submit(self.patches.sample, index))
                    if len(waiting) >= chosen.queue:
                        yield self._take(waiting)
                while waiting:
                    yield self._take(waiting)
            finally:
                for future in waiting:
                    future.cancel()

    def _take(self, waiting: deque[Future[Sample]]) -> Sample:
        start = time.perf_counter()
        sample = waiting.popleft().result()
        self.waited += time.perf_counter() - start
        return sample
