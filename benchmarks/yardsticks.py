"""The yardsticks of what was measured: ratios of times of one repeat, medians over repeats."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import Any

from benchmarks import methods
from benchmarks.measure import Measured

#: Largest absolute difference from the one pass that tilenet promises in float32.
TOLERANCE = 1e-5

Yardsticks = dict[str, Any]


def yardsticks(measured: Measured) -> Yardsticks:
    """Derive the yardsticks of a case."""
    plan = measured.plan
    device = median(
        plan.tiles * one / plan.request.workers / wall
        for one, wall in zip(measured.bare_pass, measured.wall, strict=True)
    )
    voxels = math.prod(measured.inputs.case.shape)
    return {
        "operation_efficiency": plan.operation_efficiency,
        "device_efficiency": device,
        "efficiency": plan.operation_efficiency * device,
        "seconds": median(measured.wall),
        "cluster_start_seconds": measured.cluster_start,
        "first_run_seconds": measured.first_wall,
        "voxels_per_second": voxels / median(measured.wall),
        "operations_per_second": plan.operations / median(measured.wall),
        "peak_bytes": measured.peak,
        "planned_bytes": plan.worker_bytes,
        "peak_over_plan": measured.peak / plan.worker_bytes,
        "read_amplification": measured.voxels_read / voxels,
        "seconds_per_phase": _medians(measured.phases),
        "difference": measured.differences["tilenet"],
        "error": measured.error,
        "one_pass_error": measured.one_pass_error,
        "loop": _baseline(measured, "loop", measured.loop, methods.loop_operations),
        "map_overlap": _baseline(
            measured, "map_overlap", measured.overlap, methods.overlap_operations
        ),
    }


def _baseline(measured: Measured, name: str, seconds: list[float], count: Any) -> Yardsticks:
    operations = count(measured.inputs)
    whole = measured.plan.operation_efficiency * measured.plan.operations
    return {
        "seconds": median(seconds),
        "seconds_over_tilenet": median(
            s / wall for s, wall in zip(seconds, measured.wall, strict=True)
        ),
        "operation_efficiency": whole / operations,
        "operations_per_second": operations / median(seconds),
        "difference": measured.differences[name],
    }


def _medians(phases: list[dict[str, float]]) -> dict[str, float]:
    names = list(dict.fromkeys(name for phase in phases for name in phase))
    return {name: median(phase.get(name, 0.0) for phase in phases) for name in names}


def check(found: Yardsticks) -> None:
    """Complain unless every figure is there and tilenet is as exact as it promises."""
    exact = rounds_no_worse(found["error"], found["one_pass_error"])
    if found["difference"] > TOLERANCE and not exact:
        problem = f"differs from the one pass by {found['difference']:.2g}, not {TOLERANCE:g}"
        raise SystemExit(f"tilenet's result {problem}")
    for name, value in _leaves(found):
        if not (math.isfinite(value) and value >= 0):
            raise SystemExit(f"{name} was not measured: {value}")


def rounds_no_worse(error: float, error_of_one_pass: float) -> bool:
    """Tell whether what is left is rounding: no more than twice what the one pass itself has.

    Untrained networks of many channels differ in float32 by more than ``TOLERANCE`` from the same
    pass in float64, and so may two passes from one another.
    """
    return 0 < error <= 2 * error_of_one_pass


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", float(value)


def record(measured: Measured, found: Yardsticks) -> dict[str, Any]:
    """Put a case into JSON values: what it is, every repeat, and the yardsticks."""
    case = measured.inputs.case
    return {
        "case": case.name,
        "architecture": case.architecture.to_dict(),
        "shape": case.shape,
        "plan": measured.plan.to_dict(),
        "repeats": {
            "wall": measured.wall,
            "seconds_per_phase": measured.phases,
            "bare_pass": measured.bare_pass,
            "loop": measured.loop,
            "map_overlap": measured.overlap,
        },
        "yardsticks": found,
    }
