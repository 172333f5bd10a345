"""The table of ``bench_gpu``: a column per precision, a block of rows per case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Record = dict[str, Any]


def _number(field: str, pattern: str, scale: float = 1.0) -> Callable[[Record], str]:
    def read(record: Record) -> str:
        found: Any = record
        for name in field.split("."):
            found = found[name]
        return "-" if found is None else pattern.format(found * scale)

    return read


def _share(field: str) -> Callable[[Record], str]:
    return _number(field, "{:.2f}")


def _tile(record: Record) -> str:
    best = record["forward"]
    return f"{best['batch']} x {'x'.join(map(str, best['input']))}"


ROWS: list[tuple[str, Callable[[Record], str]]] = [
    ("bare forward, Mvoxel/s", _number("forward.voxels_per_second", "{:.2f}", 1e-6)),
    ("  TFLOP/s", _number("forward.operations_per_second", "{:.3g}", 1e-12)),
    ("  fastest input", _tile),
    ("streaming, Mvoxel/s", _number("streaming.voxels_per_second", "{:.2f}", 1e-6)),
    ("  TFLOP/s", _number("streaming.operations_per_second", "{:.3g}", 1e-12)),
    ("  planes per slab", _number("streaming.slab", "{:.0f}")),
    ("  host queueing / wall", _share("streaming.host_share")),
    ("Zarr to Zarr, Mvoxel/s", _number("end_to_end.voxels_per_second", "{:.2f}", 1e-6)),
    ("  / bare forward", _share("efficiency")),
    ("  operation efficiency", _share("operation_efficiency")),
    ("  device efficiency", _share("device_efficiency")),
    ("  wall, s", _number("end_to_end.seconds", "{:.2f}")),
    ("  device busy / wall", _share("end_to_end.busy_share")),
    ("  host queueing / wall", _share("end_to_end.queueing_share")),
    ("  host waits for the device / wall", _share("end_to_end.device_wait_share")),
    ("  host waits for reads / wall", _share("end_to_end.read_wait_share")),
    ("  host waits for writes / wall", _share("end_to_end.write_wait_share")),
    ("peak device memory, GB", _number("peak_bytes", "{:.2f}", 1e-9)),
    ("  / plan", _share("peak_over_plan")),
    ("overlapped = synchronous, bits", lambda record: _word(record["same_as_synchronous"])),
    ("two runs, bits", lambda record: _word(record["streaming"]["identical"])),
]


def _word(equal: bool) -> str:
    return "equal" if equal else "DIFFER"


def print_tables(result: Record) -> None:
    """Print everything that a person wants to see."""
    print(f"{result['machine']['device']}, PyTorch {result['machine']['torch']}")
    print(f"bias and ReLU: {result['variant']}; reading with {result['reading']}\n")
    for case in result["cases"]:
        columns = case["precisions"]
        rows = [[name, *(read(column) for column in columns)] for name, read in ROWS]
        _print([[case["case"], *(column["precision"] for column in columns)], *rows])
        slabs = ((s["slab"], s["operations_per_second"]) for s in case["slabs"])
        rates = ", ".join(f"{n}: {'-' if r is None else f'{r / 1e12:.3g}'}" for n, r in slabs)
        print(f"streaming in {case['slab_precision']}, TFLOP/s by planes per slab: {rates}\n")
    _print([["exactness, against one pass in float64 on the CPU", ""], *_exactness(result)])


def _exactness(result: Record) -> list[list[str]]:
    rows = [
        [f"whole-number network, {record['dtype']}", _difference(record["difference"])]
        for record in result["whole_numbers"]
    ]
    return rows + [
        [
            f"probabilities, {record['precision']} (tolerance {record['tolerance']:g})",
            f"{record['difference']:.1e}",
        ]
        for record in result["rounding"]
    ]


def _difference(value: float) -> str:
    return "every bit equal" if value == 0 else f"DIFFERS by {value:g}"


def _print(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        first, *others = (
            text.ljust(width) if n == 0 else text.rjust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())
    print()
