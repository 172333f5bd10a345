"""Rates of a network on a device that reads and writes nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.cases import Case, Precision
from benchmarks.gpu.clocks import measure, synchronize
from tilenet.inference import StreamedNetwork, UNet
from tilenet.planning import Plan

Record = dict[str, Any]


def placed(network: UNet, precision: Precision, device: torch.device) -> UNet:
    """Copy a network to a device, its features last in memory."""
    moved = copy.deepcopy(network).to(device, precision.dtype).eval()
    last = torch.channels_last if network.architecture.is_planar else torch.channels_last_3d
    return moved.to(memory_format=last)  # type: ignore[call-overload, no-any-return]


def forward(
    case: Case, network: UNet, precision: Precision, device: torch.device, seconds: float
) -> Record:
    """Measure bare forward passes on a tensor in memory: the fastest of several tiles."""
    tried = [
        _forward(network, batch, kept, precision, device, seconds / len(case.tiles))
        for batch, kept in case.tiles
    ]
    return max(tried, key=lambda record: record["operations_per_second"]) | {"tried": tried}


def _forward(
    network: UNet,
    batch: int,
    kept: tuple[int, int, int],
    precision: Precision,
    device: torch.device,
    seconds: float,
) -> Record:
    architecture = network.architecture
    given = architecture.input_for(architecture.output_for(kept))
    shape = given[1:] if architecture.is_planar else given
    last = torch.channels_last if architecture.is_planar else torch.channels_last_3d
    x = torch.randn((batch, 1, *shape), device=device).to(precision.dtype, memory_format=last)
    model = placed(network, precision, device)
    with torch.inference_mode():
        rate = measure(lambda: model(x), device, seconds)
    operations = batch * architecture.evaluation(given).operations
    return {
        "batch": batch,
        "input": given,
        "seconds": rate.seconds,
        "operations_per_second": operations / rate.seconds,
        # As if no tile computed a halo: what an infinite tile would reach at this rate.
        "voxels_per_second": operations / rate.seconds / architecture.operations_per_voxel,
    }


def streaming(
    streamed: StreamedNetwork,
    plan: Plan,
    precision: Precision,
    device: torch.device,
    seconds: float,
) -> Record:
    """Measure one stream fed from a tensor on the device, and compare two runs bit for bit."""
    run = _stream(streamed, plan, precision, device)
    with torch.inference_mode():
        rate = measure(lambda: _exhaust(run()), device, seconds)
        identical = all(torch.equal(a, b) for a, b in zip(list(run()), run(), strict=True))
    operations = plan.request.architecture.evaluation(plan.tile_input).operations
    return {
        **asdict(rate),
        "slab": plan.slab,
        "operations_per_second": operations / rate.seconds,
        "voxels_per_second": math.prod(plan.tile) / rate.seconds,
        "identical": identical,
    }


def profile(
    streamed: StreamedNetwork, plan: Plan, precision: Precision, device: torch.device
) -> str:
    """Give a table of what one stream spends its time in; it has run before."""
    run = _stream(streamed, plan, precision, device)
    with torch.inference_mode(), torch.profiler.profile() as profiler:
        _exhaust(run())
        synchronize(device)
    column = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"
    table: str = profiler.key_averages().table(sort_by=column, row_limit=20)
    return table


def _stream(
    streamed: StreamedNetwork, plan: Plan, precision: Precision, device: torch.device
) -> Callable[[], Iterator[Tensor]]:
    x = torch.randn((1, *plan.tile_input), device=device).to(precision.dtype)
    before, size = (slice(None),) * (1 + plan.axis), plan.tile_input[plan.axis]
    return lambda: streamed.evaluate(lambda piece: x[(*before, piece)], size, plan.slab)


def _exhaust(planes: Iterator[Tensor]) -> None:
    for _ in planes:
        pass
