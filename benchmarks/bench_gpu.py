"""One GPU: bare passes, streams, and prediction from Zarr to Zarr, in every precision.

``python -m benchmarks.bench_gpu [--device cuda] [--quick] [--json FILE]``. It needs PyTorch, NumPy,
Zarr and numcodecs, and this repository as the working directory; what the figures mean stands in
``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from benchmarks.gpu import exactness, passes, variants
from benchmarks.gpu.cases import FULL, PRECISIONS, QUICK, Case, Precision
from benchmarks.gpu.end_to_end import Run, as_synchronous
from benchmarks.gpu.table import print_tables
from benchmarks.gpu.volumes import Writer, create, synthetic
from tilenet.geometry import Box
from tilenet.inference import StreamedNetwork, Transfers, UNet, set_arithmetic

Record = dict[str, Any]

#: Slabs that are tried, relative to the planner's.
SLABS = (0.25, 0.5, 1, 2, 4)


def main() -> None:
    """Measure, print a table, and write all figures as JSON."""
    options = _options()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA device here: use --device cpu --quick to try the script")
    variants.use(options.variant)
    if options.read == "zarrs":
        import zarrs  # noqa: F401
    names = options.precisions or [n for n in PRECISIONS if device.type == "cuda" or n != "tf32"]
    bench = Bench(device, [PRECISIONS[n] for n in names], options)
    cases: Sequence[Case] = QUICK if options.quick else FULL
    result = {
        "machine": machine(device),
        "variant": options.variant,
        "reading": options.read,
        "whole_numbers": [
            exactness.whole_numbers(device, dtype) for dtype in (torch.float64, torch.float32)
        ],
        "rounding": [exactness.rounding(device, precision) for precision in bench.precisions],
        "cases": [bench.case(case) for case in cases if case.name in (options.cases or case.name)],
    }
    result["seconds"] = time.perf_counter() - bench.begun
    print_tables(result)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    check(result)


class Bench:
    """One run of the script."""

    def __init__(
        self, device: torch.device, precisions: list[Precision], options: argparse.Namespace
    ) -> None:
        self.transfers = Transfers(device)
        self.device = self.transfers.device
        self.precisions, self.options = precisions, options
        self.begun = time.perf_counter()

    def case(self, case: Case) -> Record:
        """Measure a network in every precision."""
        torch.manual_seed(0)
        network = UNet(case.architecture).eval()
        middle = next((p for p in self.precisions if p.name == "bfloat16"), self.precisions[-1])
        with tempfile.TemporaryDirectory(prefix="tilenet-gpu-", dir=self.options.folder) as folder:
            self._store(case, Path(folder) / "source")
            found = [self._precision(case, network, p, Path(folder)) for p in self.precisions]
        return {
            "case": case.name,
            "architecture": case.architecture.to_dict(),
            "layer": case.layer,
            "shard": case.shard,
            "chunk": case.chunk,
            "operations_per_voxel": case.architecture.operations_per_voxel,
            "precisions": found,
            "slab_precision": middle.name,
            "slabs": [self._slab(case, network, middle, larger) for larger in SLABS],
        }

    def _store(self, case: Case, path: Path) -> None:
        self._note(f"{case.name}: writing {case.layers} rows of shards")
        writer = Writer(create(path, case, case.layers), case, os.cpu_count() or 2)
        values, (depth, height, width) = synthetic(case.layer), case.layer
        for n in range(case.layers):
            start, stop = n * depth, (n + 1) * depth
            writer.put(Box((start, 0, 0), (stop, height, width)), np.roll(values, 7 * n, axis=2))
        writer.close()

    def _precision(self, case: Case, network: UNet, precision: Precision, folder: Path) -> Record:
        self._note(f"{case.name}, {precision.name}")
        set_arithmetic(tf32=precision.tf32)
        torch.backends.cudnn.benchmark = self.options.cudnn_benchmark
        device, seconds = self.device, self.options.seconds
        forward = passes.forward(case, network, precision, device, seconds / 2)
        streamed = self._streamed(case, network, precision)
        few = case.plan(min(4, case.layers), precision, device.type)
        streaming = passes.streaming(streamed, few, precision, device, seconds / 4)
        if self.options.profile:
            print(f"{case.name}, {precision.name}")
            print(passes.profile(streamed, few, precision, device))
        voxels = Box.of_shape(case.layer).size
        rate = streaming["operations_per_second"] / case.architecture.operations_per_voxel
        layers = max(2, min(case.layers, round(rate * seconds / voxels)))
        run = Run(
            case, case.plan(layers, precision, device.type), precision, streamed, self.transfers
        )
        return {
            "precision": precision.name,
            "forward": forward,
            "streaming": streaming,
            **self._run(run, forward, folder),
        }

    def _run(self, run: Run, forward: Record, folder: Path) -> Record:
        source, path, plan = self._open(folder / "source"), folder / "result", run.plan
        shutil.rmtree(path, ignore_errors=True)
        peak = self._peak_begins()
        end_to_end = run(source, path)
        peak_bytes = peak()
        executed = plan.operations / forward["operations_per_second"]
        return {
            "plan": plan.to_dict(),
            "end_to_end": end_to_end,
            "efficiency": end_to_end["voxels_per_second"] / forward["voxels_per_second"],
            "operation_efficiency": plan.operation_efficiency,
            "device_efficiency": executed / end_to_end["seconds"],
            "peak_bytes": peak_bytes,
            "planned_bytes": plan.evaluation_bytes,
            "peak_over_plan": None if peak_bytes is None else peak_bytes / plan.evaluation_bytes,
            "same_as_synchronous": as_synchronous(run, source, zarr.open_array(path, mode="r")),
        }

    def _slab(self, case: Case, network: UNet, precision: Precision, larger: float) -> Record:
        set_arithmetic(tf32=precision.tf32)
        plan = case.plan(min(4, case.layers), precision, self.device.type, larger=larger)
        try:
            return passes.streaming(
                self._streamed(case, network, precision),
                plan,
                precision,
                self.device,
                self.options.seconds / 8,
            )
        except torch.OutOfMemoryError:
            return {"slab": plan.slab, "operations_per_second": None}

    def _streamed(self, case: Case, network: UNet, precision: Precision) -> StreamedNetwork:
        axis = case.plan(1, precision, self.device.type).axis
        return StreamedNetwork(passes.placed(network, precision, self.device), axis)

    def _open(self, path: Path) -> Any:
        python, rust = "zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline"
        pipeline = rust if self.options.read == "zarrs" else python
        with zarr.config.set({"codec_pipeline.path": pipeline}):
            return zarr.open_array(path, mode="r")

    def _peak_begins(self) -> Any:
        if self.device.type != "cuda":
            return lambda: None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        return functools.partial(torch.cuda.max_memory_allocated, self.device)

    def _note(self, text: str) -> None:
        print(f"{time.perf_counter() - self.begun:6.1f} s  {text}", file=sys.stderr, flush=True)


def machine(device: torch.device) -> Record:
    """Say what it was measured on."""
    facts: Record = {
        "device": f"CPU, {torch.get_num_threads()} threads",
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "zarr": zarr.__version__,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "device": properties.name,
            "device_memory": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return facts


def check(result: Record) -> None:
    """End with a message if anything that has to be equal differs, or a kernel is broken."""
    wrong = [
        f"{case['case']}, {column['precision']}: {what}"
        for case in result["cases"]
        for column in case["precisions"]
        for what, equal in (
            ("the overlapped result is not the synchronous one", column["same_as_synchronous"]),
            ("two runs differ", column["streaming"]["identical"]),
        )
        if not equal
    ]
    wrong += [
        f"{record['precision']}: probabilities differ by {record['difference']:.2g}"
        for record in result["rounding"]
        if not record["difference"] <= record["tolerance"]
    ]
    wrong += [
        f"whole-number network in {record['dtype']}: differs by {record['difference']:g}"
        for record in result["whole_numbers"]
        if record["dtype"] == "float64" and record["difference"] != 0
    ]
    if wrong:
        sys.exit("\n".join(wrong))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--quick", action="store_true", help="tiny networks: checks, no figures")
    parser.add_argument("--cases", nargs="+", help="only these: " + ", ".join(c.name for c in FULL))
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), help="only these")
    parser.add_argument("--seconds", type=float, default=8, help="of a prediction, about")
    parser.add_argument("--variant", choices=variants.VARIANTS, default="plain", help="to try")
    parser.add_argument("--read", choices=("zarr-python", "zarrs"), default="zarr-python")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN time algorithms")
    parser.add_argument("--profile", action="store_true", help="print what a stream runs longest")
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    if options.quick:
        options.seconds = 0.2
        torch.set_num_threads(1)  # tiny tensors gain nothing from more
    return options


if __name__ == "__main__":
    main()
