"""What a plan costs: seconds, bytes, objects, hours and money. Pure: standard library only.

Three terms: the operations, which :class:`tilenet.planning.Plan` counts; the bytes that are decoded
and written, counted here with all that blocks read twice; and the bytes held, which decide what
fits. A block takes the seconds of its operations and of its bytes at the rates of one worker; the
blocks are handed out to the workers in order, each to the first that is free.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tilenet.geometry import mirror_source, round_up
from tilenet.planning.plan import Plan
from tilenet.planning.request import Rates
from tilenet.planning.speeds import rates_of

#: Blocks up to which they are handed out one by one; more fill their rounds evenly enough.
SCHEDULED_BLOCKS = 4096


@dataclass(frozen=True)
class Costs:
    """What a plan costs.

    Parameters
    ----------
    plan : Plan
    price : float or None
        Of an hour of a GPU; on CPUs, of a core. In any currency.
    """

    plan: Plan
    price: float | None = None

    @functools.cached_property
    def rates(self) -> Rates:
        return rates_of(self.plan.request)

    # -- bytes ------------------------------------------------------------------------------------

    @property
    def bytes_read(self) -> int:
        """Bytes of voxels that are decoded: what the blocks ask for, in whole chunks."""
        voxels = math.prod(sum(cuts.read) for cuts in self._cuts)
        return voxels * self.plan.request.input_bytes

    @property
    def bytes_written(self) -> int:
        return self.plan.grid.covered.size * self.plan.request.output_bytes

    @property
    def read_amplification(self) -> float:
        """Bytes that are decoded / bytes of the region."""
        return self.bytes_read / (self.plan.grid.covered.size * self.plan.request.input_bytes)

    @property
    def inodes(self) -> int:
        """Files and folders of the whole output in a file system."""
        request = self.plan.request
        counts = [
            -(-n // shard) for n, shard in zip(request.volume_shape, self.plan.shard, strict=True)
        ]
        channels = [request.output_channels] if request.output_channels > 1 else []
        # A folder for every index but the last: c/0/1/2.
        inner = sum(itertools.accumulate([*channels, *counts[:-1]], lambda a, b: a * b))
        return self.plan.objects + inner + _METADATA

    # -- seconds ----------------------------------------------------------------------------------

    @property
    def compute_seconds(self) -> float:
        """Of the evaluations of a whole block."""
        return self._compute(*(max(cuts.tiles) for cuts in self._cuts))

    @property
    def read_seconds(self) -> float:
        """To decode what a whole block reads."""
        return self._read(*(max(cuts.read) for cuts in self._cuts))

    @property
    def write_seconds(self) -> float:
        """To encode and store a whole block."""
        return self._write(*(max(cuts.kept) for cuts in self._cuts))

    @property
    def block_seconds(self) -> float:
        """Of a whole block while others keep the worker busy: what a preemption loses at most."""
        return self._together(self.compute_seconds, self.read_seconds + self.write_seconds)

    @property
    def edge_seconds(self) -> float:
        """Of the first read and the last write of a worker: nothing is computed meanwhile."""
        if self._shares_cores:
            return 0.0  # counted with the blocks
        plan, order = self.plan, self.plan.order
        if order.way == "whole":
            return self.read_seconds + self.write_seconds
        ahead, rows = order.granule(plan.request.chunk_shape), order.axis
        first = min(1.0, ahead / max(self._cuts[rows].read))
        return first * self.read_seconds + plan.shard[rows] / plan.block[rows] * self.write_seconds

    @functools.cached_property
    def wall_seconds(self) -> float:
        """From the start of the workers to the last write."""
        blocks, workers = len(self.plan.grid), self.plan.request.workers
        if blocks <= SCHEDULED_BLOCKS:
            computing = _last(self._block_by_block(), workers)
        else:
            computing = -(-blocks // workers) * self._mean_seconds
        edges = 1 if self.plan.request.slots > 1 else -(-blocks // workers)
        return self.rates.start + edges * self.edge_seconds + computing

    @property
    def rewarm_seconds(self) -> float:
        """Until a worker that replaces a preempted one computes."""
        return self.rates.start

    @property
    def _shares_cores(self) -> bool:
        # On CPUs decoding and encoding take the cores that compute.
        return self.plan.request.device == "cpu"

    def _together(self, compute: float, transfer: float) -> float:
        return compute + transfer if self._shares_cores else max(compute, transfer)

    @property
    def _mean_seconds(self) -> float:
        compute = self._compute(*(sum(cuts.tiles) for cuts in self._cuts))
        read = self._read(*(sum(cuts.read) for cuts in self._cuts))
        write = self._write(*(sum(cuts.kept) for cuts in self._cuts))
        return self._together(compute, read + write) / len(self.plan.grid)

    def _block_by_block(self) -> Iterator[float]:
        axes = [zip(cuts.tiles, cuts.read, cuts.kept, strict=True) for cuts in self._cuts]
        for block in itertools.product(*axes):
            tiles, read, kept = zip(*block, strict=True)
            yield self._together(self._compute(*tiles), self._read(*read) + self._write(*kept))

    def _compute(self, *tiles: int) -> float:
        return math.prod(tiles) * self._tile_operations / self.rates.compute

    def _read(self, *voxels: int) -> float:
        return math.prod(voxels) * self.plan.request.input_bytes / self.rates.read

    def _write(self, *voxels: int) -> float:
        return math.prod(voxels) * self.plan.request.output_bytes / self.rates.write

    @functools.cached_property
    def _tile_operations(self) -> int:
        request = self.plan.request
        evaluation = request.architecture.evaluation(self.plan.tile_input)
        return evaluation.operations * len(request.orientations)

    @functools.cached_property
    def _cuts(self) -> tuple[_Cuts, _Cuts, _Cuts]:
        z, y, x = (_cuts(self.plan, axis) for axis in range(3))
        return z, y, x

    # -- hours and money --------------------------------------------------------------------------

    @property
    def hours(self) -> float:
        """GPU-hours; on CPUs, core-hours."""
        request = self.plan.request
        cores = request.threads if request.device == "cpu" else 1
        return self.wall_seconds * request.workers * cores / 3600

    @property
    def cost(self) -> float | None:
        """What the hours cost; None where no price was given."""
        return None if self.price is None else self.price * self.hours

    def to_dict(self) -> dict[str, Any]:
        on_cpu = self.plan.request.device == "cpu"
        return {
            "bytes_read": self.bytes_read,
            "read_amplification": self.read_amplification,
            "bytes_written": self.bytes_written,
            "inodes": self.inodes,
            "seconds": {
                "wall": self.wall_seconds,
                "block": self.block_seconds,
                "compute_of_block": self.compute_seconds,
                "read_of_block": self.read_seconds,
                "write_of_block": self.write_seconds,
                "lost_per_preemption": self.block_seconds,
                "rewarm": self.rewarm_seconds,
            },
            "rates": {
                "operations_per_second": self.rates.compute,
                "read_bytes_per_second": self.rates.read,
                "write_bytes_per_second": self.rates.write,
                "source": f"measured on {self.rates.measured}"
                if self.rates.measured
                else "assumed",
            },
            "core_hours" if on_cpu else "gpu_hours": self.hours,
            "price_per_core_hour" if on_cpu else "price_per_gpu_hour": self.price,
            "cost": self.cost,
        }


#: Folders of the group, the array and its chunks, and two zarr.json.
_METADATA = 5


@dataclass(frozen=True, slots=True)
class _Cuts:
    # The blocks along one axis: the tiles of each, and the voxels that it decodes and keeps.
    tiles: tuple[int, ...]
    read: tuple[int, ...]
    kept: tuple[int, ...]


def _cuts(plan: Plan, axis: int) -> _Cuts:
    request, lattice = plan.request, plan.grid.lattice
    # What the network returns beyond a tile is context too; on the low side where it flips.
    excess = plan.tile_output[axis] - plan.tile[axis]
    flipped = any(orientation.flips[axis] for orientation in request.orientations)
    halo = request.architecture.halo[axis]
    return _cut(
        range(lattice.start[axis], lattice.stop[axis]),
        (request.volume_shape[axis], plan.block[axis], plan.tile[axis], request.chunk_shape[axis]),
        halo + (excess if flipped else 0),
        halo + excess,
    )


@functools.lru_cache(maxsize=64)  # alternatives differ along one axis mostly
def _cut(blocks: range, sizes: tuple[int, int, int, int], below: int, above: int) -> _Cuts:
    size, block, tile, chunk = sizes
    found = []
    for n in blocks:
        start, stop = n * block, min((n + 1) * block, size)
        tiles = -(-(stop - start) // tile)
        first, last = mirror_source(start - below, start + tiles * tile + above, size)
        decoded = min(round_up(last, chunk), size) - first // chunk * chunk
        found.append((tiles, decoded, stop - start))
    tiles_of, read, kept = zip(*found, strict=True)
    return _Cuts(tiles_of, read, kept)


def _last(seconds: Iterator[float], workers: int) -> float:
    # When the last of these tasks ends, each given to the first worker that is free.
    free = [0.0] * workers
    for duration in seconds:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)
