"""What a prediction will cost, before anything runs. Pure: standard library only.

The plan chooses the tile (what one evaluation keeps) by the fewest operations that fit the
memory, and the block (what one task writes) by what a shard should hold, what a task may last and
how many workers there are to feed. It says what it chose, and what that costs beside one infinite
tile that computes nothing twice.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tilenet.errors import NotEnoughMemory, UnalignedBlock
from tilenet.geometry import (
    ALIGNMENT_REASON,
    AXES,
    ZYX,
    Box,
    check_multiple,
    nearest_multiples,
    round_up,
    zyx,
)
from tilenet.orientation import check_quarter_turns
from tilenet.request import Request
from tilenet.settings import VALUE_BYTES
from tilenet.tiling import BlockGrid, TileGrid

#: Memory of a worker process with PyTorch, Zarr and Dask loaded and nothing computed. Measured.
PROCESS_BYTES = 440 * 2**20

#: Largest live tensors to peak memory of an evaluation: PyTorch's own work space, and freed memory
#: that the allocator keeps for the next one. Measured on 2-D and 3-D networks: 1.1 to 2.2.
EVALUATION_FACTOR = 2.4

#: Copies of a block's output while it is encoded into shards.
OUTPUT_COPIES = 3

#: Blocks per worker to aim at: enough that the last ones do not leave workers idle for long.
BLOCKS_PER_WORKER = 4

#: A block's voxels at most; its buffers and its shards stay of a manageable size.
BLOCK_VOXELS = 2**27

#: A block is to last about this long: what a preemption loses.
BLOCK_SECONDS = 600

#: Operations per second that are assumed where nothing was measured, per thread and per GPU.
ASSUMED_RATE = {"cpu": 4e10, "cuda": 2e13}

#: Largest evaluation planned on a CPU: beyond, little overlap is left to save, and an evaluation
#: would last minutes, which a request to stop waits for.
CPU_EVALUATION_BYTES = 3 * 2**30

#: Sizes tried for a tile, in units of the smallest step.
_MULTIPLES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a prediction will run, and what it costs.

    Parameters
    ----------
    request : Request
        What it is the plan of.
    block, shard, chunk, tile : tuple of int
        Voxels that a task writes, that an object holds, that are decoded as one, and that an
        evaluation keeps, (z, y, x).
    """

    request: Request
    block: ZYX
    shard: ZYX
    chunk: ZYX
    tile: ZYX

    @property
    def grid(self) -> BlockGrid:
        """The blocks to compute."""
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
    def read_amplification(self) -> float:
        """Voxels read per voxel written, for a block in the middle of the volume."""
        inner = self.tiles_of_largest_block.input_box.shape
        inside = zyx(min(n, v) for n, v in zip(inner, self.request.volume_shape, strict=True))
        return math.prod(inside) / self.tiles_of_largest_block.block.size

    @property
    def evaluation_bytes(self) -> int:
        """Memory of one evaluation on the device, weights included."""
        architecture = self.request.architecture
        values = architecture.evaluation(self.tile_input).peak_elements * EVALUATION_FACTOR
        weights = 2 * architecture.parameter_count  # PyTorch keeps a reordered copy
        return int((values + weights) * VALUE_BYTES[self.request.precision])

    @property
    def averaging_bytes(self) -> int:
        """Host memory to average orientations: a turned copy of a tile's input, and the sum."""
        if len(self.request.orientations) == 1:
            return 0
        turned = math.prod(self.tile_input) * self.request.input_bytes
        width = 8 if self.request.precision == "float64" else 4
        channels = self.request.architecture.out_channels
        return turned + math.prod(self.tile_output) * channels * width

    @property
    def buffer_bytes(self) -> int:
        """Host memory of one task: stored voxels, mirrored copy, output and its encoding."""
        inside = 2 * self.tiles_of_largest_block.input_box.size * self.request.input_bytes
        block = self.tiles_of_largest_block.block.size
        return inside + OUTPUT_COPIES * block * self.request.output_bytes

    @property
    def worker_bytes(self) -> int:
        """Host memory of one worker process."""
        on_host = self.evaluation_bytes if self.request.device == "cpu" else 0
        buffers = self.request.slots * self.buffer_bytes
        return PROCESS_BYTES + on_host + self.averaging_bytes + buffers

    @property
    def objects(self) -> int:
        """Objects that the output will have in the store."""
        sizes = zip(self.request.volume_shape, self.shard, strict=True)
        return math.prod(-(-n // s) for n, s in sizes)

    def to_dict(self) -> dict[str, Any]:
        """Give the plan and its costs as JSON values.

        Returns
        -------
        dict
            Sizes in voxels and bytes.
        """
        names = (
            "block shard chunk tile tile_output tile_input tiles operations operation_efficiency "
            "overhead read_amplification evaluation_bytes buffer_bytes worker_bytes objects"
        )
        request = dataclasses.asdict(self.request)
        return {
            "volume_shape": list(request["volume_shape"]),
            "region": str(self.grid.covered),
            "blocks": len(self.grid),
            "orientations": [orientation.name for orientation in self.request.orientations],
            **{name: getattr(self, name) for name in names.split()},
            "workers": self.request.workers,
            "slots": self.request.slots,
            "threads": self.request.threads,
            "memory_per_worker": self.request.memory,
            "bytes_read": int(
                self.grid.covered.size * self.request.input_bytes * self.read_amplification
            ),
            "bytes_written": self.grid.covered.size * self.request.output_bytes,
        }


def make_plan(request: Request) -> Plan:
    """Choose tile, block, shard and chunk.

    Parameters
    ----------
    request : Request
        What is to be predicted.

    Returns
    -------
    Plan
        The plan with the fewest operations whose memory fits.

    Raises
    ------
    UnalignedBlock
        When the chosen block breaks the alignment or does not fill whole shards.
    NotEnoughMemory
        When even the smallest tile does not fit.
    InvalidData
        When the network cannot be turned by quarters, and should be.
    """
    check_quarter_turns(request.orientations, request.architecture)
    if request.block is not None:
        alignment = request.architecture.alignment
        check_multiple("A block", request.block, alignment, ALIGNMENT_REASON)
    # For the whole volume, whatever the region: a later run may extend the same output.
    whole = dataclasses.replace(request, region=Box.of_shape(request.volume_shape))
    plans = [_with_block(whole, tile) for tile in _tiles(whole)]
    return dataclasses.replace(min(_fitting(plans), key=_cost), request=request)


def _fitting(plans: Sequence[Plan]) -> Sequence[Plan]:
    request = plans[0].request
    fitting = [plan for plan in plans if plan.worker_bytes <= request.memory]
    if not fitting:
        check_memory(min(plans, key=lambda plan: plan.worker_bytes), "Even the smallest tile")
    smallest = min(fitting, key=lambda plan: plan.evaluation_bytes)
    limit = CPU_EVALUATION_BYTES if request.device == "cpu" else request.device_memory
    if smallest.evaluation_bytes > limit and request.device != "cpu":
        what = "Even the smallest tile, on the device,"
        raise NotEnoughMemory(smallest.evaluation_bytes, limit, what)
    return [plan for plan in fitting if plan.evaluation_bytes <= limit] or [smallest]


def check_memory(plan: Plan, what: str) -> None:
    """Refuse a plan whose workers would need more memory than they have.

    Parameters
    ----------
    plan : Plan
        The plan.
    what : str
        What needs it, for the message.

    Raises
    ------
    NotEnoughMemory
        Saying how much it needs.
    """
    if plan.worker_bytes > plan.request.memory:
        raise NotEnoughMemory(plan.worker_bytes, plan.request.memory, what)


def _cost(plan: Plan) -> tuple[float, int]:
    # The last round of blocks counts in full: idle workers are not free.
    blocks = len(plan.grid)
    rounds = -(-blocks // plan.request.workers) * plan.request.workers
    return plan.operations * rounds / blocks, plan.evaluation_bytes


def _tiles(request: Request) -> Iterator[ZYX]:
    limit = request.block or zyx(round_up(n, 16) for n in request.volume_shape)
    architecture = request.architecture
    if any(orientation.transposed for orientation in request.orientations):
        # Square, so that turned by a quarter an evaluation has the same shape. May overhang.
        limit = zyx((limit[0], max(limit[1:]), max(limit[1:])))
    # 16 voxels at least, so that chunks of a power of two divide the tile.
    step = zyx(
        math.lcm(a, 1 if architecture.is_planar and axis == 0 else 16)
        for axis, a in enumerate(architecture.alignment)
    )
    if request.block is not None:
        step = architecture.alignment
    depths = [1] if architecture.is_planar else _sizes(step[0], limit[0])
    sides = _sizes(math.lcm(step[1], step[2]), max(limit[1:]))
    for depth in depths:
        for side in sides:
            caps = (round_up(n, s) for n, s in zip(limit, step, strict=True))
            yield zyx(min(n, cap) for n, cap in zip((depth, side, side), caps, strict=True))


def _sizes(step: int, limit: int) -> list[int]:
    largest = round_up(limit, step)
    return sorted({min(m * step, largest) for m in _MULTIPLES})


def _with_block(request: Request, tile: ZYX) -> Plan:
    block = request.block or _grow(request, tile)
    shard = request.shard or block
    check_multiple("A block", block, shard, "whole shards, one writer for each")
    deepest = 16 if request.architecture.is_planar else 64
    chunk = zyx(_divisor(n, top) for n, top in zip(shard, (deepest, 256, 256), strict=True))
    for axis, size, top, part in zip(AXES, shard, (deepest, 256, 256), chunk, strict=True):
        if part < min(size, top // 8):
            reason = "chunks of a reasonable size must divide a shard"
            raise UnalignedBlock("A shard", axis, size, 16, reason, nearest_multiples(size, 16))
    return Plan(request=request, block=block, shard=shard, chunk=chunk, tile=tile)


def _divisor(size: int, most: int) -> int:
    return max(n for n in range(1, most + 1) if size % n == 0)


def _grow(request: Request, tile: ZYX) -> ZYX:
    # Whole shards of the user's and whole alignments, which doubling keeps.
    units = zip(tile, request.architecture.alignment, request.shard or (1, 1, 1), strict=True)
    block = zyx(round_up(size, math.lcm(step, shard)) for size, step, shard in units)
    # Sections first: they cost a planar network no further overlap and make whole shards.
    rate = ASSUMED_RATE["cpu" if request.device == "cpu" else "cuda"] * request.threads
    per_voxel = request.architecture.operations_per_voxel * 1.5 * len(request.orientations)
    voxels = min(BLOCK_VOXELS, BLOCK_SECONDS * rate / per_voxel)
    for axis, limit in ((0, 64), (1, 4096), (2, 4096)):
        while block[axis] * 2 <= max(limit, tile[axis]):
            larger = zyx(2 * n if i == axis else n for i, n in enumerate(block))
            enough = BLOCKS_PER_WORKER * request.workers
            few = len(BlockGrid(request.volume_shape, larger)) < enough
            if few or math.prod(larger) > voxels or block[axis] >= request.volume_shape[axis]:
                break
            candidate = Plan(request=request, block=larger, shard=larger, chunk=tile, tile=tile)
            if candidate.worker_bytes > request.memory:
                break
            block = larger
    return block
