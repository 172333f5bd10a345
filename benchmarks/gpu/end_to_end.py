"""From Zarr to Zarr: reading, copying, computing and writing overlap."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.cases import Case, Precision
from benchmarks.gpu.clocks import Busy, Stopwatch
from benchmarks.gpu.volumes import Grey, Reader, Writer, create
from tilenet.geometry import Box
from tilenet.inference import (
    DeviceIntensity,
    Pending,
    Stream,
    StreamedNetwork,
    Transfers,
    ahead,
    broken,
    stored,
)
from tilenet.networks import slabs
from tilenet.planning import Plan
from tilenet.volumes import Intensity

#: Grey values to what the network is given.
RULE = Intensity(117.3, 41.7)


@dataclass
class Run:
    """One prediction of a volume."""

    case: Case
    plan: Plan
    precision: Precision
    streamed: StreamedNetwork
    transfers: Transfers

    def __post_init__(self) -> None:
        device = self.transfers.device
        self.threads = max(2, (os.cpu_count() or 2) // 2)
        self.rule = DeviceIntensity(RULE, device, torch.float32)
        self.busy, self.waited = Busy(device), Stopwatch()

    def __call__(self, source: Any, path: Path) -> dict[str, Any]:
        """Predict a volume, and say where the time went."""
        case, layers = self.case, self.plan.request.volume_shape[0] // self.case.layer[0]
        self.reader = Reader(source, self.plan, case, self.threads)
        start = time.perf_counter()
        writer = Writer(create(path, case, layers), case, self.threads)
        with torch.inference_mode():
            for box, pending in ahead(self._results(), self.transfers.depth):
                with self.waited.running():
                    values, count = pending.numpy()
                if count:
                    raise SystemExit(f"{int(count)} values of {box} are not finite")
                writer.put(box, values)
        writer.close()
        seconds = time.perf_counter() - start
        self.reader.close()
        voxels = Box.of_shape(self.plan.request.volume_shape).size
        return {
            "layers": layers,
            "voxels": voxels,
            "seconds": seconds,
            "voxels_per_second": voxels / seconds,
            "busy_share": self.busy.seconds() / seconds,
            "queueing_share": self.busy.host.seconds / seconds,
            "read_wait_share": self.reader.waited.seconds / seconds,
            "write_wait_share": writer.waited.seconds / seconds,
            "device_wait_share": self.waited.seconds / seconds,
        }

    def _results(self) -> Iterator[tuple[Box, Pending]]:
        if not self.streamed.by_section:
            yield from self._stream(0, self._planes)
            return
        for z in range(self.plan.request.volume_shape[0]):
            yield from self._stream(z, functools.partial(self._lines, z))

    def _planes(self, piece: slice) -> Grey:
        halo = self.plan.request.architecture.halo[0]
        return self.reader.planes(piece.start - halo, piece.stop - halo)

    def _lines(self, z: int, piece: slice) -> Grey:
        return self.reader.planes(z, z + 1)[((slice(None),) * self.plan.axis + (piece,))]

    def _stream(self, z: int, load: Callable[[slice], Grey]) -> Iterator[tuple[Box, Pending]]:
        plan, axis, done = self.plan, self.plan.axis, 0
        law, size = plan.request.architecture.laws[axis], plan.tile_input[axis]
        stream = Stream(self.streamed)
        for piece in slabs(law, size, plan.slab):
            grey = self.transfers.upload(load(piece))
            with self.busy.computing():
                x = self.rule.apply(grey).to(self.precision.dtype)
                scores = stream.feed(x[None])
                count = 0 if scores is None else min(scores.shape[1 + axis], plan.tile[axis] - done)
                if scores is None or count <= 0:
                    continue
                kept = [slice(n) for n in plan.tile]
                kept[axis] = slice(count)
                values = probabilities(scores)[tuple(kept)]
                pending = self.transfers.download(stored(values, "uint8"), broken(values, "uint8"))
            start = [z, 0, 0]
            start[axis] += done
            done += count
            yield _box(start, values.shape), pending


def _box(start: list[int], shape: tuple[int, ...]) -> Box:
    a, b, c = start
    return Box((a, b, c), (a + shape[0], b + shape[1], c + shape[2]))


def probabilities(scores: Tensor) -> Tensor:
    """Foreground probabilities, in float32."""
    return torch.softmax(scores.float(), dim=0)[1]


def as_synchronous(run: Run, source: Any, result: Any) -> bool:
    """Compute parts again, nothing overlapping and NumPy converting, and compare every bit.

    They are the first and the last section. Of a volume that is one stream only its beginning can
    be had without all the rest: the first row of shards.
    """
    (depth, height, width), plan = run.case.layer, run.plan
    if run.streamed.by_section:
        lines = plan.tile[plan.axis]
        return all(
            np.array_equal(
                _evaluated(run, source[z : z + 1], lines)[:, :height, :width], result[z : z + 1]
            )
            for z in (0, plan.request.volume_shape[0] - 1)
        )
    enough = depth + plan.request.architecture.halo[0] + 2 * plan.slab
    enough = min(enough, plan.request.volume_shape[0])  # more may be stored than was predicted
    found = _evaluated(run, source[:enough], depth)
    return np.array_equal(found[:depth, :height, :width], result[:depth])


def _evaluated(run: Run, raw: Any, wanted: int) -> Grey:
    # The first planes along the stream axis, as many as are wanted or a few more.
    axis, given = run.plan.axis, run.plan.tile_input
    pads = _pads(run, raw.shape)
    grey = RULE.apply(np.pad(np.asarray(raw), pads, mode="reflect"))
    x = torch.from_numpy(grey)[None].to(run.transfers.device, run.precision.dtype)
    before = (slice(None),) * (1 + axis)
    found: list[Grey] = []
    with torch.inference_mode():
        for scores in run.streamed.evaluate(
            lambda piece: x[(*before, piece)], given[axis], run.plan.slab
        ):
            values = probabilities(scores).cpu().numpy()
            found.append(np.rint(values * 255).astype(np.uint8))
            if sum(part.shape[axis] for part in found) >= wanted:
                break
    return np.concatenate(found, axis=axis)


def _pads(run: Run, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    halo, volume = run.plan.request.architecture.halo, run.plan.request.volume_shape
    pads = [(h, n - h - m) for h, n, m in zip(halo, run.plan.tile_input, shape, strict=True)]
    if not run.streamed.by_section and shape[0] < volume[0]:
        pads[0] = (halo[0], 0)  # the rest of the volume is not needed, so neither is its margin
    return pads
