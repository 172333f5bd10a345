"""A network on one device: tiles of a block in, stored values out."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilenet._version import __version__
from tilenet.errors import DeviceUnavailable, NonFiniteOutput
from tilenet.geometry import ZYX, Box, zyx
from tilenet.inference.allocator import keep_freed_memory
from tilenet.inference.cuda_determinism import set_arithmetic
from tilenet.inference.device_lock import DeviceLock
from tilenet.inference.device_values import DeviceIntensity, broken, stored
from tilenet.inference.digest import digest
from tilenet.inference.model_file import Model
from tilenet.inference.speed_cache import cpu_name
from tilenet.inference.streaming import StreamedNetwork
from tilenet.inference.transfers import Pending, Transfers, ahead
from tilenet.inference.turning import turn, turn_back
from tilenet.networks import ARITHMETIC, IDENTITY, VARIABLES, Execution, Tile, TileGrid
from tilenet.planning import ReadingOrder, sections
from tilenet.volumes import Intensity

#: Data type of the network by the name that --precision takes.
PRECISIONS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class _Part:
    # Stored values of a box, and how many of them were not finite, on their way to the host.
    box: Box
    pending: Pending


class Predictor:
    """A model on a device; one evaluation at a time, fed slab by slab.

    Parameters
    ----------
    model : Model
    execution : Execution
    intensity : Intensity, optional
        Rule to use instead of the model's; needed where that is each volume's own statistics.
    """

    def __init__(
        self, model: Model, execution: Execution, intensity: Intensity | None = None
    ) -> None:
        self.device = check_device(execution.device)
        keep_freed_memory()  # also in workers that we did not start
        self.execution = execution
        self.header = model.header
        self.intensity = intensity or model.intensity
        #: Held by the task that computes: those of a worker read and write at once.
        self.turn = DeviceLock(execution.streams)
        if self.device.type == "cuda":
            set_arithmetic()
        self._transfers = Transfers(self.device)
        network = model.network.to(device=self.device, dtype=PRECISIONS[execution.precision])
        self._network = StreamedNetwork(network, execution.axis)
        self._wide: type[np.floating[Any]] = (
            np.float64 if execution.precision == "float64" else np.float32
        )
        wide = torch.float64 if execution.precision == "float64" else torch.float32
        self._intensity = DeviceIntensity(self.intensity, self.device, wide)

    def predict(
        self, padded: npt.NDArray[Any], tiles: TileGrid, dtype: npt.DTypeLike
    ) -> npt.NDArray[Any]:
        axis = self.order(tiles).axis
        found = list(self.planes(functools.partial(_planes_of, padded, axis), tiles, dtype))
        return found[0] if len(found) == 1 else np.concatenate(found, axis=axis - 3)

    def order(self, tiles: TileGrid) -> ReadingOrder:
        return ReadingOrder.of(tiles, self.execution.axis, self.execution.slab)

    def planes(
        self, load: Callable[[slice], npt.NDArray[Any]], tiles: TileGrid, dtype: npt.DTypeLike
    ) -> Iterator[npt.NDArray[Any]]:
        """Compute a block plane by plane: what is stored, its mean over the orientations.

        ``load`` gives planes of the tiles' common input box along the order's axis; it is asked
        in ascending order.
        """
        torch.set_num_threads(self.execution.threads)
        order = self.order(tiles)
        if order.way == "sections":
            parts = ((section, load(slice(n, n + 1))) for n, section in enumerate(sections(tiles)))
            yield from self._wholes(parts, dtype)
        elif order.way == "stream":
            stream = self._stream(load, tiles.input_shape, tiles.block, dtype)
            for part in ahead(stream, self._transfers.depth):
                yield self._arrived(part).astype(dtype, copy=False)
        else:
            size = tiles.input_box.shape[order.axis]
            yield from self._wholes([(tiles, load(slice(0, size)))], dtype)

    def _wholes(
        self, inputs: Iterable[tuple[TileGrid, npt.NDArray[Any]]], dtype: npt.DTypeLike
    ) -> Iterator[npt.NDArray[Any]]:
        # What is complete when all its tiles are: a section, or a block.
        box, whole = Box.of_shape((0, 0, 0)), np.empty(0)
        # Without end from one to the next, so that a device is not idle in between.
        for found, part in ahead(self._parts(inputs, dtype), self._transfers.depth):
            if found != box:
                if box.size:
                    yield whole
                box, whole = found, np.empty((*self.header.leading_shape, *found.shape), dtype)
            _cut(whole, part.box.relative_to(box.start).slices)[...] = self._arrived(part)
        yield whole

    def _parts(
        self, inputs: Iterable[tuple[TileGrid, npt.NDArray[Any]]], dtype: npt.DTypeLike
    ) -> Iterator[tuple[Box, _Part]]:
        # Parts of the tiles of one input after the other, each with what it is a part of.
        for tiles, padded in inputs:
            for tile in tiles:
                if tiles.orientations == (IDENTITY,):
                    cut = _cut(padded, tile.input.relative_to(tiles.input_box.start).slices)
                    load = functools.partial(_planes_of, cut, self.execution.axis)
                    for part in self._stream(load, tiles.input_shape, tile.kept, dtype):
                        yield tiles.block, part
                else:
                    yield tiles.block, self._averaged(padded, tiles, tile, dtype)

    def _averaged(
        self, padded: npt.NDArray[Any], tiles: TileGrid, tile: Tile, dtype: npt.DTypeLike
    ) -> _Part:
        mean = torch.from_numpy(self._mean(padded, tiles, tile))
        return _Part(tile.kept, Pending((stored(mean, dtype), broken(mean, dtype))))

    def _mean(
        self, padded: npt.NDArray[Any], tiles: TileGrid, tile: Tile
    ) -> npt.NDArray[np.floating[Any]]:
        # What the activation gives is summed in the order of the orientations, then divided once.
        total: npt.NDArray[Any] | None = None
        for orientation in tiles.orientations:
            seen = tiles.seen(tile, orientation)
            cut = padded[(..., *seen.input.relative_to(tiles.input_box.start).slices)]
            values = self._evaluate(turn(cut, orientation), tiles.output_shape, tile.kept)
            values = turn_back(values, orientation)[(..., *seen.crop)]
            with np.errstate(over="ignore", invalid="ignore"):  # found below
                total = values if total is None else np.add(total, values, out=total)
        assert total is not None, "there is one orientation at least"
        count = total.size - int(np.isfinite(total).sum())
        if count:
            self._refuse(count, tile.kept)
        return total / len(tiles.orientations)

    def _evaluate(
        self, cut: npt.NDArray[Any], shape: ZYX, kept: Box
    ) -> npt.NDArray[np.floating[Any]]:
        # All that the network returns for one input; turned by quarters a tile is square.
        axis = self.execution.axis
        values = np.empty((*self.header.leading_shape, *shape), self._wide)
        load = functools.partial(_planes_of, cut, axis)
        stream = self._stream(load, zyx(cut.shape[-3:]), Box.of_shape(shape), self._wide)
        for part in ahead(stream, self._transfers.depth):
            _cut(values, part.box.slices)[...] = self._arrived(part, kept)
        return values

    @torch.inference_mode()
    def _stream(
        self,
        load: Callable[[slice], npt.NDArray[Any]],
        input_shape: ZYX,
        kept: Box,
        dtype: npt.DTypeLike,
    ) -> Iterator[_Part]:
        # The planes of a tile, cropped to what is kept of it: on a GPU on their way to the host.
        axis, start, stop = self.execution.axis, kept.start[self.execution.axis], kept.stop
        evaluation = self._network.evaluate(
            lambda piece: self._grey(load(piece)), input_shape[axis], self.execution.slab
        )
        for scores in evaluation:
            count = min(scores.shape[axis - 3], stop[axis] - start)
            box = kept.with_range(axis, start, start + count)
            values = self._values(scores)[(..., *Box.of_shape(box.shape).slices)]
            pending = self._transfers.download(stored(values, dtype), broken(values, dtype))
            del scores, values  # not to be held while another task computes
            yield _Part(box, pending)
            start += count
            if start == stop[axis]:  # the rest overhangs the volume
                return

    def _arrived(self, part: _Part, kept: Box | None = None) -> npt.NDArray[Any]:
        values, count = part.pending.numpy()
        if count:  # as uint8 a NaN would be stored as 0 and look like a result
            self._refuse(int(count), kept or part.box)
        return values

    def _refuse(self, count: int, box: Box) -> None:
        raise NonFiniteOutput(str(box), count, self.execution.precision)

    def _grey(self, values: npt.NDArray[Any]) -> Tensor:
        grey = self._intensity.apply(self._transfers.upload(values))
        grey = grey if grey.ndim == 4 else grey[None]
        return grey.to(PRECISIONS[self.execution.precision])

    def _values(self, scores: Tensor) -> Tensor:
        wide = torch.float64 if self.execution.precision == "float64" else torch.float32
        values = self._activate(scores.to(wide))
        values = values[-len(self.header.stored_outputs) :]
        return values if self.header.leading_shape else values[0]

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


def check_device(name: str) -> torch.device:
    """Find a device, and refuse one that is not there.

    Parameters
    ----------
    name : "cpu", "cuda" or "cuda:N"

    Returns
    -------
    torch.device
        It computes.
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


def numeric_facts(device: str, precision: str = "float32", threads: int = 1) -> dict[str, Any]:
    """Tell what else decides the last bits of a result, and what explains it."""
    found = check_device(device)
    # Not the version itself: whoever unpickles that loads PyTorch.
    facts: dict[str, Any] = {"torch": str(torch.__version__), "arithmetic": ARITHMETIC}
    if found.type == "cuda":
        facts["device"] = torch.cuda.get_device_name(found)
        facts["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    else:
        facts["device"] = f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        facts["processor"] = cpu_name()
    facts["digest"] = digest(device, PRECISIONS[precision], threads)
    set_here = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    return {**facts, **set_here, "tilenet": __version__}
