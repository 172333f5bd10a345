"""How fast a worker computes, reads and writes: measured, or assumed. Pure.

What is assumed is on the careful side: a plan that rests on it promises too little rather than too
much. How a rate is measured stands in :mod:`tilenet.inference.speed_test`.
"""

from __future__ import annotations

import math

from tilenet.planning.request import Rates, Request

#: Operations per second that are assumed where nothing was measured, per core and per GPU, by
#: precision. CPU: a core with AVX2 in float32 (one with AVX-512 was measured at 72e9), twice that
#: in bfloat16 (150e9 to 200e9 with AVX-512 BF16; without such instructions it is slower than
#: float32), and what one measured in float64 and float16, which PyTorch's CPU kernels are slow in
#: (8e9 to 12e9, 1e9 to 7e9). GPU: half of what an H100 is to reach in bfloat16, and a data-centre
#: GPU's float32 without TF32; none of them was measured.
ASSUMED_RATES = {
    "cpu": {"float64": 8e9, "float32": 4e10, "bfloat16": 8e10, "float16": 2e9},
    "cuda": {"float64": 5e12, "float32": 2e13, "bfloat16": 7e13, "float16": 7e13},
}

#: Bytes per second of decoded voxels that a worker is assumed to read and to write durably, zstd.
#: Measured: 360e6 and 100e6 for two cores together, and a worker of a GPU has several cores.
ASSUMED_READ = {"cpu": 1.5e8, "cuda": 3e8}
ASSUMED_WRITE = {"cpu": 4e7, "cuda": 8e7}

#: Seconds that a worker is assumed to take until its first evaluation begins: its process, its
#: imports, its network.
ASSUMED_START = 10.0

#: Twice the threads give 2 to this power times the rate: two processes of one thread were 10 to
#: 14 % faster than one of two threads.
THREAD_EXPONENT = 0.82


def device_kind(device: str) -> str:
    """Give the kind of a device, as the tables of assumed rates have it.

    Parameters
    ----------
    device : "cpu", "cuda" or "cuda:N"

    Returns
    -------
    str
        "cpu" or "cuda".
    """
    return "cpu" if device == "cpu" else "cuda"


def assumed_rates(request: Request) -> Rates:
    """Give the rates that are assumed.

    Parameters
    ----------
    request : Request

    Returns
    -------
    Rates
        By kind of device, precision and threads.
    """
    threads = request.threads**THREAD_EXPONENT if request.device == "cpu" else 1.0
    return Rates(
        compute=ASSUMED_RATES[request.device][request.precision] * threads,
        read=ASSUMED_READ[request.device],
        write=ASSUMED_WRITE[request.device],
        start=ASSUMED_START,
    )


def rates_of(request: Request) -> Rates:
    """Give the rates to plan with: those that were measured, or else those that are assumed."""
    return request.rates or assumed_rates(request)


def planning_rate(request: Request) -> float:
    """Give the operations per second that shapes are chosen by.

    Parameters
    ----------
    request : Request

    Returns
    -------
    float
        Of a worker, rounded to a power of two: a measurement's noise must not change a plan.
    """
    return _rounded(rates_of(request).compute)


def operations_per_byte(request: Request) -> float:
    """Give how many operations a worker executes while it decodes a byte: a power of two, too."""
    rates = rates_of(request)
    return _rounded(rates.compute / rates.read)


def voxels_within(request: Request, seconds: float, operations: float) -> float:
    """Give how many voxels a worker handles in a time, by rates rounded to powers of two."""
    rates = rates_of(request)
    computing = operations / planning_rate(request)
    reading = request.input_bytes / _rounded(rates.read)
    writing = request.output_bytes / _rounded(rates.write)
    # On CPUs decoding and encoding take the cores that compute; beside a GPU they do not.
    if request.device == "cpu":
        return seconds / (computing + reading + writing)
    return seconds / max(computing, reading + writing)


def _rounded(rate: float) -> float:
    return float(2.0 ** round(math.log2(rate)))
