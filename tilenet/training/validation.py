"""How good a network is on a held-out box, while it is being trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tilenet.geometry import Box, zyx
from tilenet.metrics import pixel_error, rand_error
from tilenet.padding import mirror
from tilenet.tiling import TileGrid, read_box_of
from tilenet.training.loop import weighted_loss
from tilenet.training.recipe import Targets
from tilenet.training.sampling import Patch
from tilenet.training.statistics import Statistics
from tilenet.training.volumes import IGNORED, TrainingVolume, target_values
from tilenet.unet import UNet


@dataclass(frozen=True)
class Figures:
    """Figures of a network on the held-out box; all are errors, the lower the better.

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
        """Give a figure by its name.

        Parameters
        ----------
        name : str
            "loss", "pixel_error" or "rand_error".

        Returns
        -------
        float
            The loss where the figure is not defined.
        """
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
) -> Figures:
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
        What label values mean.
    statistics : Statistics
        Of the training regions; classes and intensity are theirs.
    patch : tuple of int
        Output voxels of an evaluation, about, (z, y, x).

    Returns
    -------
    Figures
        Of the whole box.
    """
    architecture = network.architecture
    step = architecture.alignment
    tile = zyx(max(a, p // a * a) for p, a in zip(patch, step, strict=True))
    inside = BoxVolume(volume, box)
    values = target_values(
        volume.labels, box, within=box, targets=targets, per_section=architecture.is_planar
    )
    classes = np.searchsorted(statistics.values, values).clip(0, len(statistics.values) - 1)
    losses, weights = 0.0, 0.0
    foreground = np.empty(box.shape, np.float32)
    device = next(network.parameters()).device
    network.eval()
    with torch.inference_mode():
        for one in TileGrid(Box.of_shape(box.shape), tile, architecture, box.shape):
            grey = statistics.intensity.apply(inside.mirrored(one.input), np.float32)
            x = torch.from_numpy(grey if grey.ndim == 4 else grey[None]).to(device)[None]
            scores = network(x)[(slice(None), slice(None), *one.crop)]
            where = one.kept.slices
            weight = statistics.class_weights()[classes[where]] * (values[where] != IGNORED)
            loss = weighted_loss(scores, _patch(x, classes[where], weight, device))
            losses += float(loss) * float(weight.sum())
            weights += float(weight.sum())
            foreground[where] = torch.softmax(scores.float(), 1)[0, -1].cpu().numpy()
    network.train()
    mean = losses / max(weights, 1e-12)
    if not math.isfinite(mean):
        return Figures(mean)  # about to diverge, which the next update will say
    if len(statistics.values) != 2 or (values == IGNORED).any() or not classes.any():
        return Figures(mean)
    return Figures(
        mean, pixel_error(classes, foreground).error, rand_error(classes, foreground).error
    )


def _patch(
    x: torch.Tensor,
    classes: npt.NDArray[np.intp],
    weights: npt.NDArray[np.float32],
    device: torch.device,
) -> Patch:
    truth = torch.from_numpy(classes.astype(np.int64))[None].to(device)
    return Patch(x, truth, torch.from_numpy(weights)[None].to(device))


@dataclass(frozen=True)
class BoxVolume:
    """A box of a volume, mirrored at its own faces: what lies beyond was trained on.

    Parameters
    ----------
    volume : TrainingVolume
        The volume.
    box : Box
        Inside it.
    """

    volume: TrainingVolume
    box: Box

    def mirrored(self, inside: Box) -> npt.NDArray[np.generic]:
        """Read grey values.

        Parameters
        ----------
        inside : Box
            In coordinates of the box; may leave it.

        Returns
        -------
        ndarray, shape (z, y, x) or (c, z, y, x), the stored dtype
            Mirrored where it leaves it.
        """
        stored_box = read_box_of(inside, self.box.shape)
        back = zyx(-n for n in self.box.start)
        stored = self.volume.raw.read(stored_box.relative_to(back))
        return mirror(stored, stored_box, input_box=inside, volume_shape=self.box.shape)
