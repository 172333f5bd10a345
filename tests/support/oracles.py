"""The dumb ways: what the clever code has to equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tilenet.geometry import ZYX, round_up, zyx
from tilenet.inference import ModelHeader, OutputChannel, UNet, save_model
from tilenet.networks import UNetArchitecture
from tilenet.volumes import Intensity


def whole_pass(
    network: UNet, volume: npt.NDArray[Any], dtype: torch.dtype = torch.float64
) -> npt.NDArray[Any]:
    """Mirror-pad the whole volume, evaluate once, crop: shape (channels, z, y, x)."""
    architecture = network.architecture
    shape = zyx(volume.shape[-3:])
    output = architecture.output_for(shape)
    pads = [(h, h + o - n) for h, o, n in zip(architecture.halo, output, shape, strict=True)]
    leading = [(0, 0)] * (volume.ndim - 3)
    padded = np.pad(volume, [*leading, *pads], mode="reflect")
    x = torch.from_numpy(padded).to(dtype)
    x = x.reshape(1, -1, *padded.shape[-3:])
    with torch.inference_mode():
        scores: npt.NDArray[Any] = network.to(dtype)(x)[0].numpy()
    return np.asarray(scores[:, : shape[0], : shape[1], : shape[2]])


def probabilities(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Softmax over the leading channel axis, in the dumb way."""
    powers: npt.NDArray[Any] = np.exp(scores - scores.max(axis=0))
    shares: npt.NDArray[Any] = powers / powers.sum(axis=0)
    return shares


#: The symmetries of a square: mirrored along x or not, then turned by so many quarters.
SYMMETRIES = [(mirrored, quarters) for mirrored in (False, True) for quarters in range(4)]


def turned_pass(
    network: UNet, volume: npt.NDArray[Any], mirrored: bool, quarters: int
) -> npt.NDArray[Any]:
    """Mirror-pad the whole volume, turn it, evaluate once, turn back, crop.

    It is turned about the centre of the volume extended to a multiple of the alignment.
    """
    architecture = network.architecture
    shape = zyx(volume.shape[-3:])
    extended = zyx(round_up(n, a) for n, a in zip(shape, architecture.alignment, strict=True))
    output, halo = architecture.output_for(extended), architecture.halo
    excess = [o - e for o, e in zip(output, extended, strict=True)]
    pads = [(h + e, h + o - n) for h, e, o, n in zip(halo, excess, output, shape, strict=True)]
    pads[0] = (halo[0], pads[0][1])  # z is not turned
    leading = [(0, 0)] * (volume.ndim - 3)
    seen = turned(np.pad(volume, [*leading, *pads], mode="reflect"), mirrored, quarters)
    if quarters % 2:
        excess[1:] = excess[:0:-1]
        extended = zyx((extended[0], extended[2], extended[1]))
    # Its first voxel of the extended volume is at halo + excess: where the network has to begin.
    seen = seen[..., excess[1] :, excess[2] :]
    x = torch.from_numpy(seen.copy()).to(torch.float64).reshape(1, -1, *seen.shape[-3:])
    with torch.inference_mode():
        scores: npt.NDArray[Any] = network.to(torch.float64)(x)[0].numpy()
    scores = scores[:, : extended[0], : extended[1], : extended[2]]
    scores = np.rot90(scores, -quarters, axes=(-2, -1))
    scores = scores[..., ::-1] if mirrored else scores
    return np.asarray(scores[:, : shape[0], : shape[1], : shape[2]])


def turned(values: npt.NDArray[Any], mirrored: bool, quarters: int) -> npt.NDArray[Any]:
    """Mirror sections along x or not, then turn them by quarters."""
    return np.rot90(values[..., ::-1] if mirrored else values, quarters, axes=(-2, -1))


def mean_pass(
    network: UNet,
    volume: npt.NDArray[Any],
    symmetries: Sequence[tuple[bool, int]],
    activation: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = lambda scores: scores,
) -> npt.NDArray[Any]:
    """Average the turned passes: shape (channels, z, y, x)."""
    passes = [activation(turned_pass(network, volume, *symmetry)) for symmetry in symmetries]
    return np.asarray(sum(passes) / len(passes))


def integer_network(architecture: UNetArchitecture, seed: int = 0) -> UNet:
    """A network with sparse weights in {-1, 0, 1}: its sums are whole numbers, so exact."""
    rng = np.random.default_rng(seed)
    network = UNet(architecture)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            shape = tuple(parameter.shape)
            values = rng.integers(-1, 2, shape)
            if name.endswith("weight"):
                values *= rng.random(shape) < min(1.0, 6 / np.prod(shape[1:]))
            parameter.copy_(torch.from_numpy(values))
    return network.eval()


def random_network(architecture: UNetArchitecture, seed: int = 0) -> UNet:
    """A float32 network with the initial weights of training."""
    torch.manual_seed(seed)
    return UNet(architecture).eval()


def save_linear(path: Path, network: UNet) -> str:
    """Save a network so that prediction stores its raw scores."""
    outputs = tuple(
        OutputChannel(f"c{i}", activation="linear")
        for i in range(network.architecture.out_channels)
    )
    header = ModelHeader(network.architecture, Intensity(), outputs)
    save_model(path, network, header)
    return str(path)


def save_softmax(path: Path, network: UNet, intensity: Intensity | None = None) -> str:
    """Save a network of two classes whose foreground probability is stored."""
    save_model(path, network, ModelHeader(network.architecture, intensity or Intensity()))
    return str(path)


def grey_values(shape: ZYX, seed: int = 0, top: int = 4) -> npt.NDArray[np.uint8]:
    """Small whole numbers, so that sums stay exact."""
    return np.random.default_rng(seed).integers(0, top, shape, dtype=np.uint8)


#: Small networks of every kind: planar, volumetric, and mixed as for serial sections.
ARCHITECTURES = {
    "planar": UNetArchitecture.planar(2, 2, dropout=0.0),
    "volumetric": UNetArchitecture.volumetric(2, 2, dropout=0.0),
    "anisotropic": UNetArchitecture(
        channels=(2, 2, 3),
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        pools=((1, 2, 2), (2, 2, 2)),
        dropout=0.0,
    ),
    "pool of three": UNetArchitecture(
        channels=(2, 3, 4),
        kernels=((1, 3, 3), (1, 3, 5), (1, 3, 3)),
        pools=((1, 3, 2), (1, 2, 3)),
        dropout=0.0,
    ),
}
