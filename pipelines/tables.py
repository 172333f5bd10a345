"""Plans and facts as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.prediction import Job
from tilenet.geometry import AXES
from tilenet.plan import ASSUMED_RATE, Plan


def plan_text(job: Job, planned: Plan) -> str:
    """Put a plan into words.

    Parameters
    ----------
    job : Job
        The prediction.
    planned : Plan
        Its plan.

    Returns
    -------
    str
        A table.
    """
    request = planned.request
    rate = ASSUMED_RATE["cpu" if request.device == "cpu" else "cuda"]
    count = len(request.orientations)
    averaged = "" if count == 1 else f" (x {count} orientations)"
    hours = planned.operations / (rate * request.workers * request.threads) / 3600
    rows = {
        "volume": f"{_shape(request.volume_shape)} {job.volume.dtype}, "
        f"{_bytes(planned.grid.covered.size * request.input_bytes)}",
        "region": str(planned.grid.covered),
        "blocks": f"{len(planned.grid):,} of {_shape(planned.block)}, one task each",
        "tiles": f"{planned.tiles:,}: {_shape(planned.tile_input)} in, "
        f"{_shape(planned.tile_output)} out, {_shape(planned.tile)} kept",
        "slabs": f"{planned.slab} planes along {AXES[planned.axis]} at once; nothing is computed "
        "twice within a tile",
        "shards": f"{planned.objects:,} of {_shape(planned.shard)}, chunks {_shape(planned.chunk)}",
        "operations": f"{planned.operations:.3g}, {planned.overhead:.2f} x one infinite tile"
        f"{averaged}, "
        f"operation efficiency {planned.operation_efficiency:.2f}",
        "reading": f"{planned.read_amplification:.2f} x the block's voxels",
        "workers": f"{request.workers} x {request.threads} threads on {job.choices.device}, "
        f"{request.slots} blocks at once each, {request.precision}",
        "memory": f"{_bytes(planned.worker_bytes)} per worker of {_bytes(request.memory)} allowed",
        "time": f"about {hours:.2g} h at an assumed {rate / 1e9:g} GFLOP/s per thread or device",
    }
    return table("Plan", rows)


def table(title: str, rows: dict[str, str]) -> str:
    """Lay out names and values.

    Parameters
    ----------
    title : str
        Printed above.
    rows : dict
        Name to value.

    Returns
    -------
    str
        Lines without colour, so that they can be piped.
    """
    grid = Table(title=title, title_justify="left", show_header=False, box=None)
    for name, value in rows.items():
        grid.add_row(name, value)
    console = Console(width=110, color_system=None, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def words(value: Any) -> str:
    """Put a JSON value into words.

    Parameters
    ----------
    value : object
        Number, text, list, dict or None.

    Returns
    -------
    str
        For people.
    """
    if value is None:
        return "not stated"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {words(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(words(v) for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _bytes(count: float) -> str:
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 2**10:.3g} KiB"
