"""A network on one device: tiles of a block in, stored values out."""

from __future__ import annotations

import platform
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilenet import __version__
from tilenet.allocator import keep_freed_memory
from tilenet.checkpoint import Model
from tilenet.errors import DeviceUnavailable, NonFiniteOutput
from tilenet.geometry import Box
from tilenet.intensity import Intensity
from tilenet.orientation import IDENTITY, Orientation
from tilenet.settings import Settings
from tilenet.streaming import StreamedNetwork
from tilenet.tiling import Tile, TileGrid

#: Data type of the network by the name that --precision takes.
PRECISIONS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Predictor:
    """A model on a device; one evaluation at a time, fed slab by slab.

    Parameters
    ----------
    model : Model
        Network and header.
    settings : Settings
        Device, precision and threads.
    intensity : Intensity, optional
        Rule to use instead of the model's.

    Raises
    ------
    DeviceUnavailable
        When there is no such device.
    """

    def __init__(
        self, model: Model, settings: Settings, intensity: Intensity | None = None
    ) -> None:
        self.device = check_device(settings.device)
        keep_freed_memory()  # also in workers that we did not start
        self.settings = settings
        self.header = model.header
        self.intensity = intensity or model.intensity
        # Two tasks of a worker read, write and convert at once, but only one computes.
        self._device_lock = threading.Lock()
        network = model.network.to(device=self.device, dtype=PRECISIONS[settings.precision])
        self._network = StreamedNetwork(network, settings.axis)
        self._wide: type[np.floating[Any]] = (
            np.float64 if settings.precision == "float64" else np.float32
        )

    def predict(
        self, padded: npt.NDArray[Any], tiles: TileGrid, dtype: npt.DTypeLike
    ) -> npt.NDArray[Any]:
        """Compute a block, tile by tile.

        Parameters
        ----------
        padded : ndarray, shape (z, y, x) or (c, z, y, x), any real dtype
            Grey values of the tiles' common input box.
        tiles : TileGrid
            The tiles of the block.
        dtype : dtype
            Of the stored values: uint8, float16 or float32.

        Returns
        -------
        ndarray, shape (z, y, x) or (channels, z, y, x), ``dtype``
            Foreground probability of two softmax classes, or all channels; its mean over the tiles'
            orientations. As uint8 a probability p is stored as 255 p, rounded to the nearest whole
            number, halves to even.
        """
        block = np.empty((*self._leading, *tiles.block.shape), dtype)
        with self._device_lock, torch.inference_mode():
            torch.set_num_threads(self.settings.threads)
            for tile in tiles:
                kept = block[(..., *tile.kept.relative_to(tiles.block.start).slices)]
                if tiles.orientations == (IDENTITY,):
                    box = tile.input.relative_to(tiles.input_box.start)
                    self._evaluate(padded[(..., *box.slices)], kept, tile.kept)
                else:
                    kept[...] = store(self._mean(padded, tiles, tile), dtype)
        return block

    @property
    def _leading(self) -> tuple[int, ...]:
        channels = self.header.stored_channels
        return () if channels is None else (len(channels),)

    def _mean(
        self, padded: npt.NDArray[Any], tiles: TileGrid, tile: Tile
    ) -> npt.NDArray[np.floating[Any]]:
        # What the activation gives is summed in the order of the orientations, then divided once.
        total: npt.NDArray[Any] | None = None
        for orientation in tiles.orientations:
            seen = tiles.seen(tile, orientation)
            cut = padded[(..., *seen.input.relative_to(tiles.input_box.start).slices)]
            # Turned by quarters a tile is square.
            values = np.empty((*self._leading, *tiles.output_shape), self._wide)
            self._evaluate(turn(cut, orientation), values, tile.kept)
            values = turn_back(values, orientation)[(..., *seen.crop)]
            with np.errstate(over="ignore", invalid="ignore"):  # found by _check_finite
                total = values if total is None else np.add(total, values, out=total)
        assert total is not None, "there is one orientation at least"
        self._check_finite(total, tile.kept)
        return total / len(tiles.orientations)

    def _check_finite(self, values: npt.NDArray[Any], box: Box) -> None:
        # As uint8 a NaN would be stored as 0 and look like a result.
        broken = values.size - int(np.isfinite(values).sum())
        if broken:
            raise NonFiniteOutput(str(box), broken, self.settings.precision)

    def _evaluate(self, cut: npt.NDArray[Any], out: npt.NDArray[Any], box: Box) -> None:
        # Fill ``out`` with the first voxels of the network's output; what lies beyond is cropped.
        if not self._network.by_section:
            self._stream(cut, out, box)
            return
        for z in range(out.shape[-3]):
            self._stream(cut[..., z : z + 1, :, :], out[..., z : z + 1, :, :], box)

    def _stream(self, cut: npt.NDArray[Any], out: npt.NDArray[Any], box: Box) -> None:
        axis, kept = self.settings.axis, [slice(n) for n in out.shape[-3:]]

        def planes(piece: slice, others: list[slice]) -> tuple[Any, ...]:
            return (..., *others[:axis], piece, *others[axis + 1 :])

        def load(piece: slice) -> Tensor:
            values = self.intensity.apply(cut[planes(piece, [slice(None)] * 3)], self._wide)
            grey = torch.from_numpy(values)
            grey = grey if grey.ndim == 4 else grey[None]
            return grey.to(self.device, PRECISIONS[self.settings.precision])

        done, wanted, size = 0, out.shape[axis - 3], cut.shape[axis - 3]
        for scores in self._network.evaluate(load, size, self.settings.slab):
            count = min(scores.shape[axis - 3], wanted - done)
            values = self._values(scores)[planes(slice(count), kept)]
            self._check_finite(values, box)
            out[planes(slice(done, done + count), kept)] = store(values, out.dtype)
            done += count
            if done == wanted:  # the rest overhangs the volume
                return

    def _values(self, scores: Tensor) -> npt.NDArray[np.floating[Any]]:
        wide = torch.float64 if self.settings.precision == "float64" else torch.float32
        values: npt.NDArray[Any] = self._activate(scores.to(wide)).cpu().numpy()
        # Of two softmax classes the second is stored, the foreground.
        return values[1] if self.header.stored_channels is None else values

    def _activate(self, scores: Tensor) -> Tensor:
        if self.header.activation == "softmax":
            return torch.softmax(scores, dim=0)
        return torch.sigmoid(scores) if self.header.activation == "sigmoid" else scores


def turn(values: npt.NDArray[Any], orientation: Orientation) -> npt.NDArray[Any]:
    """Turn sections.

    Parameters
    ----------
    values : ndarray, shape (..., y, x), any dtype
        As they lie in the volume.
    orientation : Orientation
        How they are to be seen.

    Returns
    -------
    ndarray, shape (..., y, x) or (..., x, y)
        As the network sees them; ``values`` themselves where nothing is turned.
    """
    if orientation.transposed or any(orientation.flips):
        values = values[_reversal(orientation)]
        values = values.swapaxes(-1, -2) if orientation.transposed else values
        # One memory layout for every evaluation; PyTorch takes no negative strides.
        values = np.ascontiguousarray(values)
    return values


def turn_back(values: npt.NDArray[Any], orientation: Orientation) -> npt.NDArray[Any]:
    """Undo :func:`turn`.

    Parameters
    ----------
    values : ndarray, shape (..., y, x) or (..., x, y), any dtype
        As the network sees them.
    orientation : Orientation
        How they are seen.

    Returns
    -------
    ndarray, shape (..., y, x)
        As they lie in the volume; shares memory with ``values``.
    """
    values = values.swapaxes(-1, -2) if orientation.transposed else values
    back: npt.NDArray[Any] = values[_reversal(orientation)]
    return back


def _reversal(orientation: Orientation) -> tuple[Any, ...]:
    return (..., *(slice(None, None, -1 if flipped else 1) for flipped in orientation.flips))


def store(values: npt.NDArray[np.floating[Any]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Convert probabilities to what is stored.

    Parameters
    ----------
    values : ndarray of float, any shape
        Probabilities, or scores for a floating-point ``dtype``.
    dtype : dtype
        uint8, float16 or float32.

    Returns
    -------
    ndarray, same shape, ``dtype``
        For uint8 the nearest whole number to 255 times the value, halves to even.
    """
    if np.dtype(dtype) == np.uint8:
        values = np.rint(values * 255)
    stored: npt.NDArray[Any] = values.astype(dtype)
    return stored


def check_device(name: str) -> torch.device:
    """Find a device.

    Parameters
    ----------
    name : str
        "cpu", "cuda" or "cuda:N".

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    DeviceUnavailable
        When there is no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(name, "is not a device name") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise DeviceUnavailable(name, "is not supported")
    if not torch.cuda.is_available():
        raise DeviceUnavailable(name, "PyTorch finds no CUDA device here")
    if (device.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailable(name, f"only {torch.cuda.device_count()} CUDA devices are here")
    return device


def numeric_facts(device: str) -> dict[str, str]:
    """Tell what else decides the last bits of a result: the device's model and the libraries.

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "cuda:N".

    Returns
    -------
    dict
        ``device``, ``torch`` and ``tilenet``.

    Raises
    ------
    DeviceUnavailable
        When there is no such device.
    """
    found = check_device(device)
    if found.type == "cuda":
        model = torch.cuda.get_device_name(found)
    else:
        model = f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"device": model, "torch": torch.__version__, "tilenet": __version__}
