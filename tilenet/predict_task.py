"""What a worker runs to predict one block."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilenet.architecture import UNetArchitecture
from tilenet.checkpoint import load_model, model_sha256
from tilenet.errors import InvalidData, ModelMismatch
from tilenet.geometry import ZYX, Box, zyx
from tilenet.intensity import Intensity
from tilenet.mask import enlarge, mask_box, mask_factor
from tilenet.orientation import IDENTITY, Orientation
from tilenet.padding import mirror
from tilenet.settings import Settings
from tilenet.tasks import (
    BlockReport,
    Clock,
    OutputReference,
    VolumeReference,
    once,
    read_finite,
    reader,
    writer,
)
from tilenet.tiling import TileGrid
from tilenet.volume import Volume

if TYPE_CHECKING:
    from tilenet.predictor import Predictor

#: What :func:`numeric_facts` gives, such that it can be hashed.
Facts = tuple[tuple[str, str], ...]


@once
def _predictor(
    path: str, sha256: str, settings: Settings, intensity: Intensity, facts: Facts
) -> Predictor:
    from tilenet.predictor import Predictor

    _check_facts(facts, settings.device)
    if model_sha256(path) != sha256:
        problem = "was changed after the run began"
        raise ModelMismatch(path, problem, "Start the command again.")
    return Predictor(load_model(path), settings, intensity)


def _check_facts(facts: Facts, device: str) -> None:
    # The workers that were there when the run began agreed; this one may have come later.
    here = numeric_facts(device)
    differences = [
        f"{name} is {here.get(name)!r}, not {value!r}"
        for name, value in facts
        if here.get(name) != value
    ]
    if differences:
        problem = f"differs from the workers that the run began with: {', '.join(differences)}"
        cure = "One output comes from one kind of device and one set of versions: stop this worker."
        raise InvalidData(f"Worker on {platform.node()}", problem, cure)


@dataclass(frozen=True, kw_only=True)
class PredictTask:
    """Predict one block and store it.

    Parameters
    ----------
    source : VolumeReference
        The input.
    output : OutputReference
        The output, created already.
    model, model_sha256 : str
        The model file, and the content that it must have.
    settings : Settings
        Device, precision and threads.
    intensity : Intensity
        Rule that normalises grey values.
    architecture : UNetArchitecture
        The model's.
    tile : tuple of int
        Voxels that an evaluation keeps, (z, y, x).
    run : str
        Name of the run.
    orientations : tuple of Orientation
        Those whose predictions are averaged.
    mask : VolumeReference or None
        Where to predict; elsewhere 0 is stored.
    facts : tuple of (str, str)
        What :func:`numeric_facts` gave where the run began; a worker of another kind is refused.
    """

    source: VolumeReference
    output: OutputReference
    model: str
    model_sha256: str
    settings: Settings
    intensity: Intensity
    architecture: UNetArchitecture
    tile: ZYX
    run: str
    orientations: tuple[Orientation, ...] = (IDENTITY,)
    mask: VolumeReference | None = None
    facts: Facts = ()

    def __call__(self, box: Box) -> BlockReport:
        """Read, compute and write a block.

        Parameters
        ----------
        box : Box
            The block, inside the volume.

        Returns
        -------
        BlockReport
            Seconds per phase.

        Raises
        ------
        UnreadableBlock, NonFiniteValues
            When the input is corrupt there.
        InvalidData
            When the output was replaced, or the process differs from those that the run began with.
        """
        clock, dtype = Clock(), writer(self.output, self.run).dtype
        values = self.compute(box, dtype, clock)
        self.output.write(box, values, self.run)
        clock.phase("write")
        return BlockReport(box, clock.seconds)

    def compute(
        self, box: Box, dtype: npt.DTypeLike, clock: Clock | None = None
    ) -> npt.NDArray[Any]:
        """Compute a block without storing it.

        Parameters
        ----------
        box : Box
            The block, inside the volume.
        dtype : dtype
            Of the stored values.
        clock : object, optional
            Takes the seconds per phase.

        Returns
        -------
        ndarray, shape (z, y, x) or (channels, z, y, x), ``dtype``
            What is stored.
        """
        clock = clock or Clock()
        inside = self._inside(box)
        predictor = _predictor(
            self.model, self.model_sha256, self.settings, self.intensity, self.facts
        )
        if inside is not None and not inside.any():
            channels = predictor.header.stored_channels
            leading = () if channels is None else (len(channels),)
            return np.zeros((*leading, *box.shape), dtype)
        volume = reader(self.source, self.run)
        tiles = TileGrid(box, self.tile, self.architecture, volume.shape, self.orientations)
        padded = _read_mirrored(volume, tiles)
        clock.phase("read")
        values = predictor.predict(padded, tiles, dtype)
        if inside is not None:
            values *= inside
        clock.phase("compute")
        return values

    def _inside(self, box: Box) -> npt.NDArray[np.bool_] | None:
        if self.mask is None:
            return None
        mask, volume = reader(self.mask, self.run), reader(self.source, self.run)
        factor = factor_of(volume, mask)
        return enlarge(mask.read(mask_box(box, factor)), box, factor)


def factor_of(volume: Volume, mask: Volume) -> ZYX:
    """Give how many voxels of a volume one voxel of its mask covers.

    Parameters
    ----------
    volume, mask : Volume
        The input and its mask.

    Returns
    -------
    tuple of int
        From the voxel sizes where both state one, else from the shapes, (z, y, x).

    Raises
    ------
    InvalidData
        When the mask does not fit the volume.
    """
    ratio = None
    if volume.voxel_size is not None and mask.voxel_size is not None:
        ratio = tuple(m / v for m, v in zip(mask.voxel_size, volume.voxel_size, strict=True))
    return mask_factor(volume.shape, mask.shape, ratio)


def _read_mirrored(volume: Volume, tiles: TileGrid) -> npt.NDArray[Any]:
    stored = read_finite(volume, tiles.read_box)
    return mirror(stored, tiles.read_box, input_box=tiles.input_box, volume_shape=volume.shape)


def compute_block(task: PredictTask, dtype: str, block_info: Mapping[Any, Any]) -> npt.NDArray[Any]:
    """Compute one chunk of a lazy Dask array.

    Parameters
    ----------
    task : PredictTask
        What to compute; its ``output`` is not used.
    dtype : str
        Of the values.
    block_info : mapping
        Given by ``dask.array.map_blocks``.

    Returns
    -------
    ndarray, shape (z, y, x) or (channels, z, y, x), ``dtype``
        The chunk.
    """
    ranges = block_info[None]["array-location"][-3:]
    return task.compute(Box(zyx(a for a, _ in ranges), zyx(b for _, b in ranges)), dtype)


def numeric_facts(device: str) -> dict[str, str]:
    """Tell, from inside a worker, what decides the last bits of its results.

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "cuda:N".

    Returns
    -------
    dict
        Device model and library versions.
    """
    from tilenet import predictor

    return predictor.numeric_facts(device)
