"""What is predicted: networks, volumes, and the sizes that the baselines use."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.geometry import ZYX, Box, zyx
from tilenet.inference import ModelHeader, save_model
from tilenet.networks import UNetArchitecture
from tilenet.volumes import Intensity, NewVolume, create_volume, reopen_for_writing

#: Chunks of the inputs, those that ``tilenet ingest`` chooses for serial sections and for cubes.
PLANAR_CHUNK, CUBIC_CHUNK = (16, 256, 256), (64, 128, 128)

#: The micrograph that a volume is tiled with; how a network takes grey values costs the same
#: whatever they are.
TEXTURE = (2, 256, 256)


@dataclass(frozen=True)
class Case:
    """One network on one volume."""

    name: str  # as ``--cases`` takes it
    architecture: UNetArchitecture  # the network, with random weights
    shape: ZYX  # voxels of the volume, (z, y, x)
    loop_tile: ZYX  # voxels that the bare loop keeps of an evaluation, (z, y, x)
    overlap_chunk: ZYX  # chunks of the Dask array that ``map_overlap`` works on, (z, y, x)


FULL = (
    Case("2d-16", UNetArchitecture.planar(16), (24, 1024, 1024), (1, 388, 388), (1, 512, 512)),
    Case("2d-64", UNetArchitecture.planar(64), (2, 768, 768), (1, 388, 388), (1, 384, 384)),
    Case("3d-16", UNetArchitecture.volumetric(16), (128,) * 3, (64,) * 3, (64,) * 3),
)

#: The same paths in seconds, for continuous integration.
QUICK = (
    Case("2d-quick", UNetArchitecture.planar(2, 2), (4, 160, 144), (1, 64, 64), (1, 80, 80)),
    Case("3d-quick", UNetArchitecture.volumetric(2, 2), (45, 48, 70), (16,) * 3, (24,) * 3),
)

#: Where tilenet meets its peers: one section, and a cube. An operation costs the same in chunks of
#: 512 and 1024 (87.1 and 88.2 GFLOP/s on one core), so the chunks are those of fewest operations of
#: which one is at hand for every core, within twice the memory that tilenet's plan takes.
RACE = (
    Case("2d-16", UNetArchitecture.planar(16), (1, 4096, 4096), (1, 388, 388), (1, 2048, 2048)),
    Case("2d-64", UNetArchitecture.planar(64), (1, 2048, 2048), (1, 388, 388), (1, 1024, 1024)),
    Case("3d-16", UNetArchitecture.volumetric(16), (256,) * 3, (64,) * 3, (128, 128, 256)),
)
RACE_QUICK = (dataclasses.replace(QUICK[0], shape=(1, 160, 144)), QUICK[1])


@dataclass(frozen=True)
class Inputs:
    """A case on disk."""

    case: Case
    # source, model: the volume and the model file.
    source: str
    model: str


def prepare(case: Case, folder: Path) -> Inputs:
    """Write the volume and the model of a case."""
    import torch

    from tilenet.inference import UNet

    values = _texture(case.shape)
    source, model = folder / f"{case.name}.zarr", folder / f"{case.name}.safetensors"
    _store(source, values, PLANAR_CHUNK if case.architecture.is_planar else CUBIC_CHUNK)
    torch.manual_seed(0)
    intensity = Intensity(float(values.mean()), float(values.std()))
    save_model(model, UNet(case.architecture), ModelHeader(case.architecture, intensity))
    return Inputs(case, str(source), str(model))


def _texture(shape: ZYX) -> npt.NDArray[np.uint8]:
    from tilenet.synthetic import synthetic_em

    raw = synthetic_em(TEXTURE, seed=0).raw
    repeats = tuple(-(-n // t) for n, t in zip(shape, TEXTURE, strict=True))
    return np.tile(raw, repeats)[tuple(slice(n) for n in shape)]


def _store(path: Path, values: npt.NDArray[Any], chunk: ZYX) -> None:
    shape = zyx(values.shape)
    fitting = zyx(min(c, n) for c, n in zip(chunk, shape, strict=True))
    shard = zyx(-(-n // c) * c for n, c in zip(shape, fitting, strict=True))
    new = NewVolume(shape=shape, dtype=str(values.dtype), chunk=fitting, shard=shard, attributes={})
    create_volume(str(path), new)
    reopen_for_writing(str(path)).write(Box.of_shape(shape), values)
