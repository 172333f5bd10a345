"""What a worker runs to predict one block."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import math
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from tilenet.errors import ModelMismatch
from tilenet.geometry import ZYX, Box, zyx
from tilenet.inference.block_reader import Feed
from tilenet.inference.block_writer import Rows
from tilenet.inference.device_lock import DeviceLock
from tilenet.inference.mask import enlarge, mask_box, place_mask
from tilenet.inference.model_file import load_model, model_sha256
from tilenet.inference.worker_facts import Facts, check_facts
from tilenet.networks import (
    IDENTITY,
    Execution,
    Orientation,
    TileGrid,
    UNetArchitecture,
    fed_planes,
)
from tilenet.planning import ReadingOrder, writers
from tilenet.volumes import (
    Intensity,
    OutputReference,
    Volume,
    VolumeReference,
    read_finite,
    reader,
    writer,
)
from tilenet.worker import BlockReport, Clock, once

if TYPE_CHECKING:
    from tilenet.inference.predictor import Predictor

T = TypeVar("T")

#: Networks that a process remembers, one per run at once: those of earlier runs must not pile up on
#: a device.
NETWORKS = 2


@once(NETWORKS)
def _predictor(
    path: str, sha256: str, execution: Execution, intensity: Intensity, facts: Facts
) -> Predictor:
    from tilenet.inference.predictor import Predictor

    check_facts(facts, execution)
    if model_sha256(path) != sha256:
        problem = "was changed after the run began"
        raise ModelMismatch(path, problem, "Start the command again.")
    return Predictor(load_model(path), execution, intensity)


@dataclass(frozen=True, kw_only=True)
class PredictTask:
    """Predict one block and store it.

    Parameters
    ----------
    source : VolumeReference
    output : OutputReference
    model, model_sha256 : str
        The model file, and the content that it must have.
    execution : Execution
    intensity : Intensity
    architecture : UNetArchitecture
    tile : tuple of int, voxels that an evaluation keeps, (z, y, x)
    run : str
    orientations : tuple of Orientation
    mask : VolumeReference or None
        Where to predict; elsewhere 0 is stored.
    facts : tuple of (str, object)
        What :func:`tilenet.inference.worker_facts.numeric_facts` gave where the run began; a worker
        of another kind is refused.
    """

    source: VolumeReference
    output: OutputReference
    model: str
    model_sha256: str
    execution: Execution
    intensity: Intensity
    architecture: UNetArchitecture
    tile: ZYX
    run: str
    orientations: tuple[Orientation, ...] = (IDENTITY,)
    mask: VolumeReference | None = None
    facts: Facts = ()

    def __call__(self, box: Box) -> BlockReport:
        clock, output = Clock(), writer(self.output, self.run)
        self.stream(box, output, self._write, clock)
        # Whatever is computed is counted as such, so no second look at the mask is needed.
        return BlockReport(box, clock.seconds, skipped="compute" not in clock.seconds)

    def stream(
        self, box: Box, like: Volume, take: Callable[[Box, npt.NDArray[Any]], None], clock: Clock
    ) -> None:
        """Compute a block, and hand on shard by shard what is to be stored.

        ``take`` is called in several threads at once, in any order; ``like`` says the shards and
        the data type.
        """
        predictor, tiles, shape = self._load(), self._tiles(box), like.write_shape

        shard_bytes = math.prod(shape) * (like.channels or 1) * like.dtype.itemsize

        def cut(shard: Box, values: npt.NDArray[Any]) -> None:
            take(shard, self._masked(shard, values))

        rows = Rows(
            cut,
            box,
            axis=predictor.order(tiles).axis,
            shard=shape,
            threads=writers(shard_bytes) if self.execution.queued_rows > 1 else 1,
            queued=self.execution.queued_rows,
            wait=functools.partial(_wait, predictor.turn, clock, "write"),
        )
        # The planes are closed first: what is left to be written needs no device.
        with rows, contextlib.closing(self._planes(predictor, tiles, like.dtype, clock)) as planes:
            for values in planes:
                rows.add(values)
                clock.phase("write")
        clock.phase("write")

    def compute(self, box: Box, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Compute a block without storing it."""
        predictor, tiles = self._load(), self._tiles(box)
        axis = predictor.order(tiles).axis
        found = list(self._planes(predictor, tiles, np.dtype(dtype), Clock()))
        values = found[0] if len(found) == 1 else np.concatenate(found, axis=axis - 3)
        return self._masked(box, values)

    def _load(self) -> Predictor:
        return _predictor(self.model, self.model_sha256, self.execution, self.intensity, self.facts)

    def _tiles(self, box: Box) -> TileGrid:
        shape = reader(self.source, self.run).shape
        return TileGrid(box, self.tile, self.architecture, shape, self.orientations)

    def _planes(
        self, predictor: Predictor, tiles: TileGrid, dtype: np.dtype[Any], clock: Clock
    ) -> Generator[npt.NDArray[Any], None, None]:
        # The planes of a block in order along the row axis, not masked yet.
        order = predictor.order(tiles)
        if not self._has_inside(tiles.block):
            for plane in tiles.block.cut(order.axis, 1):
                yield np.zeros((*predictor.header.leading_shape, *plane.shape), dtype)
            return
        wait = functools.partial(_wait, predictor.turn, clock, "read")
        with feed_of(reader(self.source, self.run), tiles, order, wait) as feed:

            def load(piece: slice) -> npt.NDArray[Any]:
                clock.phase("compute")
                planes = feed.planes(piece)
                clock.phase("read")
                return planes

            # Held between planes too, so that one block is done before the next one is begun; but
            # not while a plane is waited for, or a row of them is to be written: see _wait.
            with predictor.turn:
                clock.phase("wait")
                for values in predictor.planes(load, tiles, dtype):
                    clock.phase("compute")
                    yield values

    def _write(self, shard: Box, values: npt.NDArray[Any]) -> None:
        self.output.write(shard, values, self.run)

    def _masked(self, box: Box, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        inside = self._inside(box)
        return values if inside is None else np.multiply(values, inside, out=values)

    def _has_inside(self, box: Box) -> bool:
        # A mask as fine as the volume is as large as a block, so section by section.
        if self.mask is None:
            return True
        insides = (self._inside(section) for section in box.cut(0, 1))
        return any(inside is not None and inside.any() for inside in insides)

    def _inside(self, box: Box) -> npt.NDArray[np.bool_] | None:
        if self.mask is None:
            return None
        mask, volume = reader(self.mask, self.run), reader(self.source, self.run)
        grid = place_mask(volume, mask)
        box = box.relative_to(grid.offset)
        return enlarge(mask.read_whole(mask_box(box, grid.factor)), box, grid.factor)


def _wait(turn: DeviceLock, clock: Clock, phase: str, future: Future[T]) -> T:
    # Without the device: another task of this worker may compute meanwhile.
    if not future.done():
        with turn.away():
            concurrent.futures.wait([future])
            clock.phase(phase)
        clock.phase("wait")
    return future.result()


def feed_of(
    volume: Volume,
    tiles: TileGrid,
    order: ReadingOrder,
    wait: Callable[[Future[npt.NDArray[Any]]], npt.NDArray[Any]] = Future.result,
) -> Feed:
    """Begin to read a block's input."""
    box, axis = tiles.input_box, order.axis
    if order.way == "sections":
        box = box.with_range(0, tiles.block.start[0], tiles.block.stop[0])
    elif order.way == "stream":
        law, start = tiles.architecture.laws[axis], box.start[axis]
        count = fed_planes(law, box.shape[axis], order.planes, tiles.block.shape[axis])
        box = box.with_range(axis, start, start + count)
    return Feed(
        functools.partial(read_finite, volume),
        box,
        volume.shape,
        axis=axis,
        granule=order.granule(volume.chunk_shape),
        wait=wait,
    )


def compute_block(task: PredictTask, dtype: str, block_info: Mapping[Any, Any]) -> npt.NDArray[Any]:
    """Compute one chunk of a lazy Dask array.

    Parameters
    ----------
    task : PredictTask
        Its ``output`` is not used.
    dtype : str
    block_info : mapping
        Given by ``dask.array.map_blocks``.

    Returns
    -------
    ndarray, shape (z, y, x) or (channels, z, y, x), ``dtype``
        The chunk.
    """
    ranges = block_info[None]["array-location"][-3:]
    return task.compute(Box(zyx(a for a, _ in ranges), zyx(b for _, b in ranges)), dtype)
