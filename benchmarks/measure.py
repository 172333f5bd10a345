"""One case, measured: tilenet and the baselines in turns, so that drift meets all of them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client

from benchmarks import methods, ours
from benchmarks.cases import Case, Inputs, prepare
from benchmarks.memory import peak_bytes
from benchmarks.methods import Floats
from benchmarks.processes import Pool
from pipelines.cluster import ClusterOptions, open_client
from tilenet.networks import TileGrid
from tilenet.planning import Plan
from tilenet.volumes import open_volume


@dataclass
class Measured:
    """Everything that was measured on one case; lists have a value per repeat."""

    inputs: Inputs
    plan: Plan  # how tilenet runs it
    # cluster_start, first_wall: seconds until the cluster was there, and of the first run over the
    # blocks, whose workers import, load the network and touch their memory for the first time.
    cluster_start: float = math.nan
    first_wall: float = math.nan
    peak: int = 0  # bytes of the largest worker over all runs
    wall: list[float] = field(default_factory=list)  # seconds of every further run over the blocks
    # Seconds per phase, summed over blocks.
    phases: list[dict[str, float]] = field(default_factory=list)
    bare_pass: list[float] = field(default_factory=list)  # seconds of one bare pass
    # loop, overlap: seconds of the baselines.
    loop: list[float] = field(default_factory=list)
    overlap: list[float] = field(default_factory=list)
    # Largest absolute difference from the one pass, by method.
    differences: dict[str, float] = field(default_factory=dict)
    # error, one_pass_error: those of tilenet and of the one pass itself from a pass in float64, in
    # a part; 0 where there is none.
    error: float = 0.0
    one_pass_error: float = 0.0

    @property
    def voxels_read(self) -> int:
        """Stored voxels that the blocks ask for, halos included."""
        plan, request = self.plan, self.plan.request
        grids = (
            TileGrid(box, plan.tile, request.architecture, request.volume_shape)
            for box in plan.grid
        )
        return sum(grid.read_box.size for grid in grids)

    def compare(self, method: str, values: Any, expected: Floats) -> None:
        """Note the largest difference of a method."""
        difference = float(np.abs(values - expected).max())
        self.differences[method] = max(difference, self.differences.get(method, 0.0))


@dataclass(frozen=True)
class Bench:
    """Where and with what everything runs."""

    folder: Path  # for volumes; local disk
    # tilenet's local cluster: as many workers of one thread as there are cores.
    cluster: ClusterOptions
    workers: Pool  # as many processes of one thread, for the bare passes
    solo: Pool  # one process that may use all cores, for the baselines
    note: Callable[[str], None]  # told what is being done

    def measure(self, case: Case, repeats: int) -> Measured:
        """Measure a case."""
        inputs = prepare(case, self.folder)
        result = Measured(inputs, ours.plan_case(inputs, self.cluster))
        self.note(f"{case.name}: one pass over the whole")
        expected = self.solo.alone(methods.whole_pass, inputs, self.workers.count)
        exact = self.solo.alone(methods.exact_part, inputs, self.workers.count)
        result.one_pass_error = 0.0 if exact is None else exact.error(expected)
        start = time.perf_counter()
        with open_client(self.cluster) as client:
            result.cluster_start = time.perf_counter() - start
            self._first(result, client)
            for repeat in range(repeats):
                self.note(f"{case.name}: {repeat + 1} of {repeats}")
                self._tilenet(result, client, expected, exact)
                self._bare(result)
                self._loop(result, expected)
                self._overlap(result, expected)
            result.peak = max(client.run(peak_bytes).values())
        return result

    def _first(self, result: Measured, client: Client) -> None:
        self.note(f"{result.inputs.case.name}: first runs")
        result.first_wall = self._predict(result.inputs, client, self._output("first"))["wall"]
        self._pass(result, 1)

    def _predict(self, inputs: Inputs, client: Client, output: str) -> dict[str, float]:
        cluster = dataclasses.replace(self.cluster, scheduler=client.scheduler.address)
        with contextlib.redirect_stderr(io.StringIO()):
            summary = ours.predict(inputs.source, output, model=inputs.model, cluster=cluster)
        assert not summary.outcome.failed, summary.outcome.failed
        return dict(summary.outcome.seconds)

    def _tilenet(
        self, result: Measured, client: Client, expected: Floats, exact: methods.Exact | None
    ) -> None:
        output = self._output("tilenet")
        seconds = self._predict(result.inputs, client, output)
        result.wall.append(seconds.pop("wall"))
        result.phases.append(seconds)
        stored = open_volume(output)
        assert stored.attributes["numeric_plan"]["tile"] == list(result.plan.tile)
        values = stored.read(methods.checked_box(result.inputs))
        result.compare("tilenet", values, expected)
        if exact is not None:
            result.error = max(result.error, exact.error(values))

    def _bare(self, result: Measured) -> None:
        seconds = self._pass(result, math.ceil(result.plan.tiles / self.workers.count))
        result.bare_pass.append(sum(seconds) / len(seconds))

    def _pass(self, result: Measured, wanted: int) -> list[float]:
        plan, model = result.plan, result.inputs.model
        return self.workers.everywhere(
            methods.bare_passes, model, plan.tile_input, plan.axis, plan.slab, wanted
        )

    def _loop(self, result: Measured, expected: Floats) -> None:
        timed = self.solo.alone(methods.tile_loop, result.inputs, self.workers.count)
        result.loop.append(timed.seconds)
        values = timed.values[methods.checked_box(result.inputs).slices]
        result.compare("loop", values, expected)

    def _overlap(self, result: Measured, expected: Floats) -> None:
        inputs, output = result.inputs, self._output("overlap")
        seconds = self.solo.alone(methods.map_overlap, inputs, output, self.workers.count)
        result.overlap.append(seconds)
        values = open_volume(output, axes="zyx").read(methods.checked_box(inputs))
        result.compare("map_overlap", values, expected)

    def _output(self, name: str) -> str:
        path = self.folder / f"{name}-output.zarr"
        shutil.rmtree(path, ignore_errors=True)
        return str(path)
