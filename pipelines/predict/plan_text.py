"""Plans and facts as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from pipelines.predict.planning import PlannedJob
from pipelines.tables import lines, table
from tilenet.geometry import AXES
from tilenet.planning import Alternative, Costs, Plan


def plan_text(job: PlannedJob, costs: Costs, notes: Mapping[str, str] | None = None) -> str:
    planned = costs.plan
    request = planned.request
    rows = {
        "volume": f"{_shape(request.volume_shape)} {job.volume.dtype}, "
        f"{_bytes(planned.grid.covered.size * request.input_bytes)}",
        "region": str(planned.grid.covered),
        **(notes or {}),
        "blocks": f"{len(planned.grid):,} of {_shape(planned.block)}, one task each",
        "tiles": f"{planned.tiles:,}: {_shape(planned.tile_input)} in, "
        f"{_shape(planned.tile_output)} out, {_shape(planned.tile)} kept",
        "slabs": f"{planned.slab} planes along {AXES[planned.axis]} at once; nothing is computed "
        "twice within a tile",
        "operations": _operations(planned),
        "reading": f"{_bytes(costs.bytes_read)}, {costs.read_amplification:.2f} x the region's; "
        "whole chunks are decoded",
        "writing": f"{_bytes(costs.bytes_written)} in {planned.objects:,} shards of "
        f"{_shape(planned.shard)}, chunks {_shape(planned.chunk)}; {costs.inodes:,} inodes",
        "workers": f"{request.workers} x {request.threads} threads on {job.choices.device}, "
        f"{request.slots} blocks at once each, {request.precision}",
        "memory": _memory(planned),
        "rates": _rates(costs),
        "time": _time(costs),
        "a block": f"{_duration(costs.block_seconds)}: what a preemption loses at most; the next "
        f"worker computes after {_duration(costs.rewarm_seconds)}",
    }
    return table("Plan", rows)


def _operations(planned: Plan) -> str:
    count = len(planned.request.orientations)
    averaged = "" if count == 1 else f" (x {count} orientations)"
    return (
        f"{planned.operations:.3g}, {planned.overhead:.2f} x one infinite tile{averaged}, "
        f"operation efficiency {planned.operation_efficiency:.2f}"
    )


def _memory(planned: Plan) -> str:
    request = planned.request
    text = f"{_bytes(planned.worker_bytes)} per worker of {_bytes(request.memory)} allowed"
    if request.device != "cpu":
        held, allowed = _bytes(planned.evaluation_bytes), _bytes(request.device_memory)
        text += f", {held} of the GPU's {allowed}"
    return text


def _rates(costs: Costs) -> str:
    rates = costs.rates
    source = f"measured on {rates.measured}" if rates.measured else "assumed"
    return (
        f"{_rate(rates.compute)}, {rates.read / 1e6:,.0f} MB/s read and "
        f"{rates.write / 1e6:,.0f} MB/s written per worker: {source}"
    )


def _rate(operations: float) -> str:
    unit, factor = ("TFLOP/s", 1e12) if operations >= 1e12 else ("GFLOP/s", 1e9)
    return f"{operations / factor:.3g} {unit}"


def _time(costs: Costs) -> str:
    computing = costs.compute_seconds >= costs.read_seconds + costs.write_seconds
    most = "operations" if computing else "reading and writing"
    unit = "core" if costs.plan.request.device == "cpu" else "GPU"
    text = (
        f"about {_duration(costs.wall_seconds)}, mostly for {most}: {_number(costs.hours)} "
        f"{unit}-hours"
    )
    if costs.cost is None:
        return text
    return f"{text}; costs {costs.cost:,.2f} at {costs.price:,.2f} for a {unit}-hour"


def alternatives_text(chosen: Costs, found: Sequence[Alternative]) -> str:
    """Put what a plan was chosen over into words."""
    rows = [
        _figures("this plan", chosen, ""),
        *(_figures(a.what, a.costs, a.reason) for a in found),
    ]
    grid = Table(
        title="Alternatives", title_justify="left", box=None, caption_justify="left",
        caption="Ratios of times leave out the start of the workers.",
    )  # fmt: skip
    for name in ("", "operations", "memory", "time", "why not"):
        right = name in ("operations", "memory", "time")
        grid.add_column(name, justify="right" if right else "left", no_wrap=name != "why not")
    for row in rows:
        grid.add_row(*row)
    return lines(grid)


def _figures(what: str, costs: Costs | None, reason: str) -> tuple[str, ...]:
    if costs is None:
        return what, "-", "-", "-", reason
    plan = costs.plan
    operations, wall = f"{plan.operations:.3g}", _duration(costs.wall_seconds)
    return what, operations, _bytes(plan.scarce_bytes), wall, reason


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.3g} {unit}"
    return f"{seconds:.3g} s"


def _bytes(count: float) -> str:
    for unit, factor in (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 2**10:.3g} KiB"
