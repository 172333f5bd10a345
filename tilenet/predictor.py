"""A network on one device: tiles of a block in, stored values out."""

from __future__ import annotations

import functools
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilenet import __version__
from tilenet.allocator import keep_freed_memory
from tilenet.checkpoint import Model
from tilenet.errors import DeviceUnavailable, NonFiniteOutput
from tilenet.geometry import ZYX, Box, zyx
from tilenet.intensity import Intensity
from tilenet.orientation import IDENTITY, Orientation
from tilenet.settings import Settings
from tilenet.slabs import row_axis
from tilenet.streaming import StreamedNetwork
from tilenet.tiling import Tile, TileGrid, is_streamed, sections

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
        #: Held by the task that computes: those of a worker read and write at once.
        self.turn = threading.Lock()
        network = model.network.to(device=self.device, dtype=PRECISIONS[settings.precision])
        self._network = StreamedNetwork(network, settings.axis)
        self._wide: type[np.floating[Any]] = (
            np.float64 if settings.precision == "float64" else np.float32
        )

    def predict(
        self, padded: npt.NDArray[Any], tiles: TileGrid, dtype: npt.DTypeLike
    ) -> npt.NDArray[Any]:
        """Compute a block in memory.

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
            See :meth:`planes`.
        """
        axis = self.row_axis
        found = list(self.planes(functools.partial(_planes_of, padded, axis), tiles, dtype))
        return found[0] if len(found) == 1 else np.concatenate(found, axis=axis - 3)

    @property
    def row_axis(self) -> int:
        """Axis along which a block is read and its result comes: 0, 1 or 2 for z, y or x."""
        return row_axis(self.header.architecture, self.settings.axis)

    def planes(
        self, load: Callable[[slice], npt.NDArray[Any]], tiles: TileGrid, dtype: npt.DTypeLike
    ) -> Iterator[npt.NDArray[Any]]:
        """Compute a block plane by plane.

        Parameters
        ----------
        load : callable
            Gives a range of planes of the tiles' common input box along :attr:`row_axis`, as an
            ndarray of shape (z, y, x) or (c, z, y, x); asked for in ascending order.
        tiles : TileGrid
            The tiles of the block.
        dtype : dtype
            Of the stored values: uint8, float16 or float32.

        Yields
        ------
        ndarray, shape (z, y, x) or (channels, z, y, x), ``dtype``
            The next planes of the block: foreground probability of two softmax classes, or all
            channels; its mean over the tiles' orientations. As uint8 a probability p is stored as
            255 p, rounded to the nearest whole number, halves to even. A planar network gives
            section after section; others what is complete along the stream axis, or the block
            as a whole where it has several tiles or orientations.
        """
        torch.set_num_threads(self.settings.threads)
        if self.header.architecture.is_planar:
            for n, section in enumerate(sections(tiles)):
                yield self._block(load(slice(n, n + 1)), section, dtype)
        elif is_streamed(tiles):
            shapes = tiles.input_shape, tiles.block.shape
            yield from self._stream(load, shapes, tiles.block, dtype)
        else:
            size = tiles.input_box.shape[self.row_axis]
            yield self._block(load(slice(0, size)), tiles, dtype)

    def _block(
        self, padded: npt.NDArray[Any], tiles: TileGrid, dtype: npt.DTypeLike
    ) -> npt.NDArray[Any]:
        block = np.empty((*self._leading, *tiles.block.shape), dtype)
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

    def _evaluate(self, cut: npt.NDArray[Any], out: npt.NDArray[Any], kept: Box) -> None:
        # Fill ``out`` with the first voxels of the network's output; what lies beyond is cropped.
        axis, done = self.settings.axis, 0
        shapes = zyx(cut.shape[-3:]), zyx(out.shape[-3:])
        load = functools.partial(_planes_of, cut, axis)
        for values in self._stream(load, shapes, kept, out.dtype):
            count = values.shape[axis - 3]
            _planes_of(out, axis, slice(done, done + count))[...] = values
            done += count

    @torch.inference_mode()
    def _stream(
        self,
        load: Callable[[slice], npt.NDArray[Any]],
        shapes: tuple[ZYX, ZYX],
        kept: Box,
        dtype: npt.DTypeLike,
    ) -> Iterator[npt.NDArray[Any]]:
        # The first planes and voxels that the network returns for an input, as many as wanted.
        axis, (given, wanted) = self.settings.axis, shapes
        inside, left = Box.of_shape(wanted), wanted[axis]
        evaluation = self._network.evaluate(
            lambda piece: self._grey(load(piece)), given[axis], self.settings.slab
        )
        for scores in evaluation:
            values = _cut(self._values(scores), inside.with_range(axis, 0, left).slices)
            self._check_finite(values, kept)
            yield store(values, dtype)
            left -= values.shape[axis - 3]
            if not left:  # the rest overhangs the volume
                return

    def _grey(self, values: npt.NDArray[Any]) -> Tensor:
        grey = torch.from_numpy(self.intensity.apply(values, self._wide))
        grey = grey if grey.ndim == 4 else grey[None]
        return grey.to(self.device, PRECISIONS[self.settings.precision])

    def _values(self, scores: Tensor) -> npt.NDArray[np.floating[Any]]:
        wide = torch.float64 if self.settings.precision == "float64" else torch.float32
        values: npt.NDArray[Any] = self._activate(scores.to(wide)).cpu().numpy()
        # Of two softmax classes the second is stored, the foreground.
        return values[1] if self.header.stored_channels is None else values

    def _activate(self, scores: Tensor) -> Tensor:
        if self.header.activation == "softmax":
            return torch.softmax(scores, dim=0)
        return torch.sigmoid(scores) if self.header.activation == "sigmoid" else scores


def _planes_of(values: npt.NDArray[Any], axis: int, piece: slice) -> npt.NDArray[Any]:
    slices = [slice(None)] * 3
    slices[axis] = piece
    return _cut(values, slices)


def _cut(values: npt.NDArray[Any], slices: Sequence[slice]) -> npt.NDArray[Any]:
    index: tuple[Any, ...] = (..., *slices)
    part: npt.NDArray[Any] = values[index]
    return part


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
