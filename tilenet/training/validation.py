"""How good a network is on a held-out box, while it is being trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tilenet.geometry import Box, zyx
from tilenet.inference import UNet, read_mirrored
from tilenet.metrics import IsbiTally, tally_section
from tilenet.networks import Tile, TileGrid
from tilenet.training.label_values import IGNORED
from tilenet.training.loop import weighted_loss
from tilenet.training.recipe import Targets
from tilenet.training.sampling import Patch
from tilenet.training.statistics import Statistics
from tilenet.training.volumes import TrainingVolume, target_values


@dataclass(frozen=True)
class ValidationResult:
    """How good a network is on the held-out box; all are errors, the lower the better.

    Parameters
    ----------
    loss : float
        Cross-entropy, weighted by class.
    pixel_error, rand_error : float or None
        As ISBI 2012 defines them, for two classes; None for more.
    """

    loss: float
    pixel_error: float | None = None
    rand_error: float | None = None

    def get(self, name: str) -> float:
        """Give one by its name; the loss where that one is not defined."""
        value: float | None = getattr(self, name)
        return self.loss if value is None else value

    def __str__(self) -> str:
        more = (
            ""
            if self.pixel_error is None
            else (f", pixel error {self.pixel_error:.4f}, Rand error {self.rand_error:.4f}")
        )
        return f"loss {self.loss:.4f}{more}"


def validate(
    network: UNet,
    volume: TrainingVolume,
    *,
    box: Box,
    targets: Targets,
    statistics: Statistics,
    patch: tuple[int, int, int],
) -> ValidationResult:
    """Predict a held-out box, and compare.

    Parameters
    ----------
    network : UNet
        Left in training mode.
    volume : TrainingVolume
        Its raw volume and labels hold the box.
    box : Box
        Apart from every training region, and without classes that they have not.
    targets : Targets
    statistics : Statistics
        Of the training regions; classes and intensity are theirs.
    patch : tuple of int, output voxels of an evaluation, about, (z, y, x)

    Returns
    -------
    ValidationResult
        Of the whole box.
    """
    architecture = network.architecture
    step = architecture.alignment
    tile = zyx(max(a, p // a * a) for p, a in zip(patch, step, strict=True))
    grid = TileGrid(Box.of_shape(box.shape), tile, architecture, box.shape)
    judge = _Judge(network, volume, box, targets, statistics)
    network.eval()
    with torch.inference_mode():
        # Tiles come in the order of their sections, so only a few sections are held at a time.
        for _, tiles in itertools.groupby(grid, key=lambda one: one.kept.start[0]):
            judge.add(list(tiles))
    network.train()
    return judge.result()


class _Judge:
    # Sums up what tiles of the held-out box say; box coordinates begin at 0.

    def __init__(
        self,
        network: UNet,
        volume: TrainingVolume,
        box: Box,
        targets: Targets,
        statistics: Statistics,
    ) -> None:
        self.network, self.volume, self.box = network, volume, box
        self.targets, self.statistics = targets, statistics
        self.losses = self.weights = 0.0
        self.tally: IsbiTally | None = None
        self.binary = len(statistics.values) == 2

    def add(self, tiles: Sequence[Tile]) -> None:
        # All tiles of the same sections.
        first, last = tiles[0].kept, tiles[-1].kept
        slab = Box((first.start[0], 0, 0), last.stop)
        values = target_values(
            self.volume.labels,
            slab.relative_to(zyx(-n for n in self.box.start)),
            within=self.box,
            targets=self.targets,
            per_section=self.network.architecture.is_planar,
        )
        known = self.statistics.values
        classes = np.searchsorted(known, values).clip(0, len(known) - 1)
        judged = values != IGNORED
        foreground = np.empty(slab.shape, np.float32)
        for one in tiles:
            where = one.kept.relative_to(slab.start).slices
            foreground[where] = self._predict(one, classes[where], judged[where])
        self.binary = self.binary and bool(judged.all())
        if self.binary:
            for section in zip(classes, foreground, strict=True):
                found = tally_section(*section, figures={"pixel", "rand"})
                self.tally = found if self.tally is None else self.tally.plus(found)

    def _predict(
        self, one: Tile, classes: npt.NDArray[np.intp], judged: npt.NDArray[np.bool]
    ) -> npt.NDArray[np.float32]:
        device = next(self.network.parameters()).device
        # Mirrored at the box's own faces: what lies beyond was trained on.
        wanted = one.input.relative_to(zyx(-n for n in self.box.start))
        stored = read_mirrored(self.volume.raw.read, wanted, self.box)
        grey = self.statistics.intensity.apply(stored, np.float32)
        x = torch.from_numpy(grey if grey.ndim == 4 else grey[None]).to(device)[None]
        scores = self.network(x)[(slice(None), slice(None), *one.crop)]
        weights = self.statistics.class_weights()[classes] * judged
        loss = weighted_loss(scores, _patch(x, classes, weights, device))
        self.losses += float(loss) * float(weights.sum())
        self.weights += float(weights.sum())
        foreground: npt.NDArray[np.float32] = torch.softmax(scores.float(), 1)[0, -1].cpu().numpy()
        return foreground

    def result(self) -> ValidationResult:
        mean = self.losses / max(self.weights, 1e-12)
        # One that is not finite is about to diverge, which the next update will say.
        if not (math.isfinite(mean) and self.binary and self.tally and self.tally.judged):
            return ValidationResult(mean)
        return ValidationResult(mean, self.tally.pixel_curve.error, self.tally.rand_curve.error)


def _patch(
    x: torch.Tensor,
    classes: npt.NDArray[np.intp],
    weights: npt.NDArray[np.float32],
    device: torch.device,
) -> Patch:
    truth = torch.from_numpy(classes.astype(np.int64))[None].to(device)
    return Patch(x, truth, torch.from_numpy(weights)[None].to(device))
