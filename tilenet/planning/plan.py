"""What a prediction will cost, before anything runs. Pure: standard library only.

A plan says what it costs beside one infinite tile that computes nothing twice. How one is chosen
stands in :mod:`tilenet.planning.choose`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from tilenet.errors import NotEnoughMemory
from tilenet.geometry import ZYX, BlockGrid, zyx
from tilenet.networks import STREAMS, VALUE_BYTES, TileGrid, kept_values, live_values
from tilenet.planning.reading_order import QUEUED_ROWS, ReadingOrder, planes_held, writers
from tilenet.planning.request import Request

#: Memory of a worker process with PyTorch, Zarr and Dask loaded and nothing computed. Measured.
PROCESS_BYTES = 440 * 2**20

#: Live values to peak memory of an evaluation: what oneDNN reorders, and freed memory that
#: the allocator keeps for the next slab. Measured on 2-D and 3-D networks, also with another
#: evaluation that waits.
EVALUATION_FACTOR = 2.0

#: Bytes per voxel of a shard while it is masked: the mask on its way to the volume's size.
MASK_BYTES = 3

#: Copies of a shard while it is encoded.
ENCODING_COPIES = 2

#: Copies of a chunk of the input while it is decoded. Measured: one of 128 MiB takes 256 MiB,
#: however little of it is read.
CHUNK_COPIES = 2


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a prediction will run, and what it costs.

    Parameters
    ----------
    request : Request
    block, shard, chunk, tile : tuple of int
        Voxels that a task writes, that an object holds, that are decoded as one, and that an
        evaluation keeps, (z, y, x).
    axis, slab : int
        Axis that an evaluation is fed along (0, 1 or 2 for z, y or x), and planes at once.
    """

    request: Request
    block: ZYX
    shard: ZYX
    chunk: ZYX
    tile: ZYX
    axis: int
    slab: int

    @property
    def grid(self) -> BlockGrid:
        return BlockGrid(self.request.volume_shape, self.block, self.request.region)

    @property
    def tiles_of_largest_block(self) -> TileGrid:
        """The tiles of a block that the volume does not crop."""
        request, first = self.request, self.grid.block_at((0, 0, 0))
        shape, orientations = request.volume_shape, request.orientations
        return TileGrid(first, self.tile, request.architecture, shape, orientations)

    @property
    def tile_output(self) -> ZYX:
        """Shape that one evaluation returns, (z, y, x)."""
        return self.request.architecture.output_for(self.tile)

    @property
    def tile_input(self) -> ZYX:
        """Shape that one evaluation is given, (z, y, x)."""
        return self.request.architecture.input_for(self.tile_output)

    @property
    def reach(self) -> ZYX:
        """How far beyond its faces a block reads, (z, y, x), in any orientation."""
        halo, output = self.request.architecture.halo, self.tile_output
        return zyx(h + o - kept for h, o, kept in zip(halo, output, self.tile, strict=True))

    @property
    def tiles(self) -> int:
        """Tiles in all; each is evaluated once in every orientation."""
        covered, block = self.grid.covered, self.block
        total = 1
        for a, b, block_size, tile in zip(
            covered.start, covered.stop, block, self.tile, strict=True
        ):
            whole, rest = divmod(b - a, block_size)
            total *= whole * -(-block_size // tile) + -(-rest // tile)
        return total

    @property
    def operations(self) -> int:
        """Floating-point operations in all."""
        evaluations = self.tiles * len(self.request.orientations)
        return evaluations * self.request.architecture.evaluation(self.tile_input).operations

    @property
    def operation_efficiency(self) -> float:
        """Operations of one pass per orientation over the padded region / operations executed."""
        architecture = self.request.architecture
        whole = architecture.input_for(architecture.output_for(self.grid.covered.shape))
        passes = len(self.request.orientations) * architecture.evaluation(whole).operations
        return passes / self.operations

    @property
    def overhead(self) -> float:
        """Operations per output voxel relative to one infinite tile in one orientation."""
        ideal = self.request.architecture.operations_per_voxel * self.grid.covered.size
        return self.operations / ideal

    @property
    def streams(self) -> int:
        """Evaluations of a worker that may have begun at once: those that its memory is enough for.

        More than one lets a task compute while another one waits for what it reads or writes. That
        is rare, and not worth the operations of smaller tiles: 7 % more with 3-D networks.
        """
        return self._overlap[0]

    @property
    def queued_rows(self) -> int:
        """Rows of shards that a task may have handed on to be written.

        With one it writes shard by shard, as version 0.1.0 did: what was planned then goes on.
        """
        return self._overlap[1]

    @functools.cached_property
    def _overlap(self) -> tuple[int, int]:
        # As much at once as memory is enough for; none of it changes a bit.
        for streams in (min(self.request.slots, STREAMS), 1):
            if self.fits(streams, QUEUED_ROWS):
                return streams, QUEUED_ROWS
        return 1, 1

    def fits(self, streams: int, queued: int) -> bool:
        """Tell whether memory is enough for so many evaluations begun and rows queued."""
        request, on_cpu = self.request, self.request.device == "cpu"
        fits = on_cpu or self.evaluations_bytes(streams) <= request.device_memory
        return fits and self.host_bytes(streams, queued) <= request.memory

    @property
    def evaluation_bytes(self) -> int:
        """Memory of evaluations on the device, weights included: one computes, another may wait."""
        return self.evaluations_bytes(self.streams)

    def evaluations_bytes(self, streams: int) -> int:
        """Memory of evaluations on the device, weights included: of all that began one computes."""
        request = self.request
        unfolded = request.precision == "float64" and request.device == "cpu"
        values = live_values(
            request.architecture, self.tile_input, axis=self.axis, slab=self.slab, unfolded=unfolded
        )
        if self.order.way != "whole" and streams > 1:  # else nothing is kept while a task waits
            values += (streams - 1) * kept_values(
                request.architecture, self.tile_input, axis=self.axis, slab=self.slab
            )
        # The stream's copy, and the one that oneDNN reorders of a layer.
        weights = 2 * request.architecture.parameter_count
        return int((EVALUATION_FACTOR * values + weights) * VALUE_BYTES[request.precision])

    @property
    def averaging_bytes(self) -> int:
        """Host memory to average orientations: a turned tile's input, one result and the sum."""
        if len(self.request.orientations) == 1:
            return 0
        turned = math.prod(self.tile_input) * self.request.input_bytes
        width = 8 if self.request.precision == "float64" else 4
        channels = self.request.architecture.out_channels
        return turned + 2 * math.prod(self.tile_output) * channels * width

    @functools.cached_property
    def order(self) -> ReadingOrder:
        """In which order a block that the volume does not crop is read and written."""
        return ReadingOrder.of(self.tiles_of_largest_block, self.axis, self.slab)

    @property
    def shards_written(self) -> int:
        """Shards that a task writes at once."""
        return self._shards_written(self.queued_rows)

    def _shards_written(self, queued: int) -> int:
        if queued == 1:
            return 1
        sizes = zip(self.tiles_of_largest_block.block.shape, self.shard, strict=True)
        counts = [-(-n // s) for n, s in sizes]
        counts[self.order.axis] = min(counts[self.order.axis], queued)
        most = writers(math.prod(self.shard) * self.request.output_bytes)
        return min(most, math.prod(counts))

    @property
    def buffer_bytes(self) -> int:
        """Host memory of one task: chunks, stored voxels, mirrored ones, rows, their encoding."""
        return self._buffer_bytes(self.queued_rows)

    def _buffer_bytes(self, queued: int) -> int:
        request, tiles, order = self.request, self.tiles_of_largest_block, self.order
        inside, block, rows = tiles.input_box, tiles.block, order.axis
        # A mirrored corner is a copy of a copy.
        held = mirrored = inside.shape[rows]
        copied = block.shape[rows]  # as a whole
        if order.way != "whole":
            mirrored = min(held, order.planes)
            law, at_once = request.architecture.laws[rows], order.granule(request.chunk_shape)
            most = planes_held(law, fed=mirrored, at_once=at_once)
            held = min(held, most)
            # The row that is collected, and those that are written or wait for it: each may be a
            # part of a slab's result, which lives as long; and the result that is taken apart.
            if queued > 1:
                row = max(self.shard[rows], mirrored)
                copied = min(copied, (1 + queued) * row) + mirrored
            else:
                copied = min(copied, 2 * self.shard[rows])
        reading = (held + 2 * mirrored) * (inside.size // inside.shape[rows])
        shard = math.prod(min(n, s) for n, s in zip(block.shape, self.shard, strict=True))
        encoded = self._shards_written(queued) * shard
        writing = copied * (block.size // block.shape[rows]) + ENCODING_COPIES * encoded
        masking = MASK_BYTES * encoded if request.masked else 0
        chunks = CHUNK_COPIES * request.chunk_bytes
        return chunks + masking + reading * request.input_bytes + writing * request.output_bytes

    @property
    def worker_bytes(self) -> int:
        return self.host_bytes(self.streams, self.queued_rows)

    @property
    def scarce_bytes(self) -> int:
        """Memory that decides what fits: of a worker process, or of its GPU."""
        return self.worker_bytes if self.request.device == "cpu" else self.evaluation_bytes

    def host_bytes(self, streams: int, queued: int) -> int:
        """Host memory of one worker process with so many evaluations begun and rows queued."""
        on_host = self.evaluations_bytes(streams) if self.request.device == "cpu" else 0
        buffers = self.request.slots * self._buffer_bytes(queued)
        return PROCESS_BYTES + on_host + self.averaging_bytes + buffers

    @property
    def objects(self) -> int:
        """Objects that the output will have in the store."""
        sizes = zip(self.request.volume_shape, self.shard, strict=True)
        return self.request.output_channels * math.prod(-(-n // s) for n, s in sizes)

    def to_dict(self) -> dict[str, Any]:
        names = (
            "block shard chunk tile tile_output tile_input axis slab tiles operations "
            "operation_efficiency overhead evaluation_bytes buffer_bytes worker_bytes objects"
        )
        return {
            "volume_shape": list(self.request.volume_shape),
            "region": str(self.grid.covered),
            "blocks": len(self.grid),
            "orientations": [orientation.name for orientation in self.request.orientations],
            **{name: getattr(self, name) for name in names.split()},
            "workers": self.request.workers,
            "slots": self.request.slots,
            "threads": self.request.threads,
            "memory_per_worker": self.request.memory,
        }


def check_plan_memory(plan: Plan, what: str) -> None:
    """Refuse a plan whose workers or devices would need more memory than they have.

    Parameters
    ----------
    plan : Plan
    what : str
        What needs it, for the message.
    """
    if plan.worker_bytes > plan.request.memory:
        raise NotEnoughMemory(plan.worker_bytes, plan.request.memory, what)
    if plan.request.device != "cpu" and plan.evaluation_bytes > plan.request.device_memory:
        what = f"{what}, on the device,"
        raise NotEnoughMemory(plan.evaluation_bytes, plan.request.device_memory, what)
