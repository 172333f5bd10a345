"""What a plan was chosen over, and why. Pure: standard library only.

Every alternative changes one thing of a plan: the stream axis, the tile (and with it the block),
the sections of a block, the slab, or how the cores are shared out to workers and threads. Its costs
are counted as the plan's are; what speaks against it is the first of: too little memory, more time,
and what the plan looks at beside time.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tilenet.errors import NotEnoughMemory
from tilenet.geometry import AXES, ZYX, round_up, zyx
from tilenet.networks import VALUE_BYTES, slab_for
from tilenet.planning.choose import BLOCKS_PER_WORKER, SLAB_BYTES, make_plan
from tilenet.planning.costs import Costs
from tilenet.planning.plan import Plan
from tilenet.planning.request import Rates, Request
from tilenet.planning.speeds import THREAD_EXPONENT

#: Threads of a worker that are tried where the user leaves it to the plan; and all cores.
THREADS = (1, 2, 4)

#: Another number of threads is taken only where it saves this share of the time: a rate that was
#: not measured for it decides.
SPLIT_GAIN = 0.1

#: Times that differ by less than this share are the same.
_SAME = 0.005


@dataclass(frozen=True, slots=True)
class Alternative:
    """Something that a plan was chosen over.

    Parameters
    ----------
    what : str
        What is different.
    costs : Costs or None, where nothing fits the memory
    reason : str
        What speaks against it.
    """

    what: str
    costs: Costs | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Give the alternative as JSON values; figures are null where nothing fits the memory."""
        figures: dict[str, Any] = dict.fromkeys(
            ("tile", "axis", "slab", "block", "workers", "threads", "operations", "bytes_read",
             "evaluation_bytes", "worker_bytes", "wall_seconds")
        )  # fmt: skip
        if self.costs is not None:
            plan, request = self.costs.plan, self.costs.plan.request
            figures |= {name: getattr(plan, name) for name in figures if hasattr(plan, name)}
            figures |= {"workers": request.workers, "threads": request.threads}
            figures |= {name: getattr(self.costs, name) for name in ("bytes_read", "wall_seconds")}
        return {"what": self.what, **figures, "reason": self.reason}


def alternatives(chosen: Costs, cores: int | None = None) -> list[Alternative]:
    """List what a plan was chosen over.

    Parameters
    ----------
    chosen : Costs
    cores : int, optional
        Cores that may be shared out to workers and threads in another way.

    Returns
    -------
    list of Alternative
        A handful.
    """
    plan, found = chosen.plan, []
    others: list[tuple[str, Plan | NotEnoughMemory]] = [
        *_axes(plan),
        *_tiles(plan),
        *_depths(plan),
        *_slabs(plan),
        *(
            (f"{r.workers} x {r.threads} threads", _planned(r))
            for r in splits(plan.request, cores or 0)
        ),
    ]
    for what, other in others:
        if isinstance(other, Plan):
            costs = Costs(other)
            found.append(Alternative(what, costs, _reason(chosen, costs)))
        else:
            found.append(
                Alternative(what, None, _memory(_host(plan.request), other.needed, other.available))
            )
    return found


def choose_plan(request: Request, cores: int | None = None) -> Plan:
    """Plan, and choose workers and threads where that is left to the plan.

    Parameters
    ----------
    request : Request
    cores : int, optional
        Cores that may be shared out to workers and threads; by default those of the request stay.

    Returns
    -------
    Plan
        That of one thread per worker, unless another one takes less time, or alone fits the memory.
    """
    tried = [_planned(wanted) for wanted in (request, *splits(request, cores or 0))]
    plans = [plan for plan in tried if isinstance(plan, Plan)]
    if not plans:
        # The fewest workers have the most memory each.
        raise next(error for error in reversed(tried) if isinstance(error, NotEnoughMemory))
    best = min(plans, key=lambda plan: Costs(plan).wall_seconds)
    limit = (1 - SPLIT_GAIN) * Costs(plans[0]).wall_seconds
    return best if Costs(best).wall_seconds < limit else plans[0]


def splits(request: Request, cores: int) -> Iterator[Request]:
    """Share cores, and the memory of all workers, out in other ways; rates follow from its own."""
    if request.device != "cpu":
        return
    for threads in sorted({*(n for n in THREADS if n < cores), cores}):
        if threads >= 1 and threads != request.threads:
            workers = cores // threads
            share = request.workers / workers
            yield dataclasses.replace(
                request,
                workers=workers,
                threads=threads,
                memory=int(request.memory * share),
                rates=request.rates and _scaled(request.rates, share, threads / request.threads),
            )


@functools.lru_cache(maxsize=16)  # the same ones are chosen from and told of
def _planned(request: Request) -> Plan | NotEnoughMemory:
    try:
        return make_plan(request)
    except NotEnoughMemory as error:
        return error


def _scaled(rates: Rates, share: float, threads: float) -> Rates:
    # For a worker with so many times the share of the machine, and so many times the threads.
    return dataclasses.replace(
        rates,
        compute=rates.compute * threads**THREAD_EXPONENT,
        read=rates.read * share,
        write=rates.write * share,
    )


# -- one thing changed ----------------------------------------------------------------------------


def _axes(plan: Plan) -> Iterator[tuple[str, Plan]]:
    planar = plan.request.architecture.is_planar
    for axis in range(1 if planar else 0, 3):
        if axis != plan.axis:
            other = dataclasses.replace(plan, axis=axis)
            yield f"streamed along {AXES[axis]}", _with_slab(other)


def _tiles(plan: Plan) -> Iterator[tuple[str, Plan]]:
    request = plan.request
    turned = any(orientation.transposed for orientation in request.orientations)
    groups: list[tuple[int, ...]] = [(1, 2)] if turned else [(1,), (2,)]
    for group in groups if request.architecture.is_planar else [(0,), *groups]:
        for factor in (0.5, 2.0):
            tile = _resized(plan, group, factor)
            beyond = any(plan.tile[n] >= request.volume_shape[n] for n in group)
            if tile == plan.tile or (factor > 1 and beyond):
                continue
            what = "tile " + " x ".join(str(n) for n in tile)
            if request.block is None:
                yield what, _with_slab(_with_tile(plan, tile))
            elif all(n <= most for n, most in zip(tile, request.block, strict=True)):
                yield what, _with_slab(dataclasses.replace(plan, tile=tile))


def _resized(plan: Plan, group: tuple[int, ...], factor: float) -> ZYX:
    steps = plan.request.architecture.alignment
    return zyx(
        round_up(math.ceil(size * factor), step) if n in group else size
        for n, (size, step) in enumerate(zip(plan.tile, steps, strict=True))
    )


def _with_tile(plan: Plan, tile: ZYX) -> Plan:
    # The block has as many tiles as before, and is as many shards where they still divide it.
    block, shard = [], []
    for size, old, new, stored in zip(plan.block, plan.tile, tile, plan.shard, strict=True):
        grown = size if new == old else -(-size // old) * new
        block.append(grown)
        shard.append(stored if grown % stored == 0 else grown)
    return dataclasses.replace(plan, tile=tile, block=zyx(block), shard=zyx(shard))


def _depths(plan: Plan) -> Iterator[tuple[str, Plan]]:
    # Sections of a planar network's block cost no operations, but chunks of several are decoded.
    request, (depth, *across) = plan.request, plan.block
    if not request.architecture.is_planar or request.block is not None:
        return
    for sections in (-(-depth // 2), 2 * depth):
        if sections != depth and min(sections, depth) < request.volume_shape[0]:
            stored = plan.shard[0] if sections % plan.shard[0] == 0 else sections
            shard = zyx((stored, *plan.shard[1:]))
            block = zyx((sections, *across))
            yield (
                f"blocks of {sections} sections",
                dataclasses.replace(plan, block=block, shard=shard),
            )


def _slabs(plan: Plan) -> Iterator[tuple[str, Plan]]:
    unit, size = plan.request.architecture.alignment[plan.axis], plan.tile_input[plan.axis]
    for slab in (round_up(plan.slab // 2, unit), 2 * plan.slab):
        if slab != plan.slab and min(slab, plan.slab) < size:
            yield f"slabs of {slab} planes", dataclasses.replace(plan, slab=slab)


def _with_slab(plan: Plan) -> Plan:
    # As the planner has it: the slab that is fastest, or the largest that fits.
    request, found = plan.request, plan
    values = SLAB_BYTES[request.device] // VALUE_BYTES[request.precision]
    while values:
        slab = slab_for(request.architecture, plan.tile_input, plan.axis, values)
        found = dataclasses.replace(plan, slab=slab)
        if _lacks(found) is None or slab == request.architecture.alignment[plan.axis]:
            return found
        values //= 2
    return found


# -- what speaks against it -----------------------------------------------------------------------


def _reason(chosen: Costs, other: Costs) -> str:
    time = _working(other) / _working(chosen)
    if time > 1 + _SAME:
        reason = f"{time:.2f} x the time: {_cause(chosen, other)}"
    elif time < 1 - _SAME:
        reason = f"{time:.2f} x the time, by this estimate{_way(chosen.plan, other.plan)}"
    else:
        reason = "no faster"
    return _lacks(other.plan) or _minded(chosen, other) or reason


def _lacks(plan: Plan) -> str | None:
    request = plan.request
    if request.device != "cpu" and plan.evaluation_bytes > request.device_memory:
        return _memory(" on the device", plan.evaluation_bytes, request.device_memory)
    if plan.worker_bytes > request.memory:
        return _memory(_host(request), plan.worker_bytes, request.memory)
    return None


def _memory(where: str, needed: int, allowed: int) -> str:
    return f"needs {_size(needed)}{where}, {_size(allowed)} are allowed"


def _host(request: Request) -> str:
    # Of a GPU's worker the table tells the device's memory.
    return "" if request.device == "cpu" else " of the host's memory"


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"


def _working(costs: Costs) -> float:
    return costs.wall_seconds - costs.rates.start


def _cause(chosen: Costs, other: Costs) -> str:
    operations = other.plan.operations / chosen.plan.operations
    if operations > 1 + _SAME:
        return f"{operations:.2f} x the operations"
    transfer = other.bytes_read / chosen.bytes_read
    if transfer > 1 + _SAME:
        return f"{transfer:.2f} x the bytes read"
    if other.plan.request.threads > chosen.plan.request.threads:
        return "threads share an evaluation less well than workers share blocks"
    return "its blocks leave workers idle at the end"


def _minded(chosen: Costs, other: Costs) -> str | None:
    # What the plan minds of what takes no more time.
    if _working(other) > (1 + _SAME) * _working(chosen):
        return None
    plan, request = other.plan, other.plan.request
    if other.block_seconds > max(request.block_seconds, chosen.block_seconds) * (1 + _SAME):
        return f"a preemption would lose {other.block_seconds / 60:.0f} min"
    blocks, enough = len(plan.grid), BLOCKS_PER_WORKER * request.workers
    if blocks < min(enough, len(chosen.plan.grid)):
        return f"{blocks} blocks are few for {request.workers} workers to share evenly"
    memory = plan.scarce_bytes / chosen.plan.scarce_bytes
    time = _working(other) / _working(chosen)
    gain, also = ("no faster", "and") if time >= 1 - _SAME else (f"{time:.2f} x the time", "but")
    if plan.slab > chosen.plan.slab:
        return f"{gain}: slabs beyond what is fast, and {memory:.2f} x the memory"
    if plan.slab < chosen.plan.slab:
        return f"{gain}, but every slab costs some time of its own"
    more = {
        "memory": memory,
        "bytes read": other.bytes_read / chosen.bytes_read,
        "objects": plan.objects / chosen.plan.objects,
    }
    found = [f"{ratio:.2f} x the {what}" for what, ratio in more.items() if ratio > 1 + _SAME]
    return f"{gain}, {also} {' and '.join(found)}" if found else None


def _way(chosen: Plan, other: Plan) -> str:
    # The options that lead to another plan, if there are any.
    if other.request.threads != chosen.request.threads:
        split = f"--workers {other.request.workers} --threads {other.request.threads}"
        return f": {split} lead there"
    if other.block != chosen.block:
        return f": --block {','.join(str(n) for n in other.block)} leads there"
    return ""
