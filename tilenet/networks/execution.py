"""How a network runs on a device. Pure: standard library only."""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes of a value inside the network, by precision.
VALUE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}

#: Evaluations of a worker that may have begun at once, at most. One at a time computes; while it
#: waits for what it reads or writes, another one does. A third would find the device busy.
STREAMS = 2


@dataclass(frozen=True, slots=True)
class Execution:
    """How a network runs on a device.

    Parameters
    ----------
    device : "cpu", "cuda" or "cuda:N"
    precision : str
        One of :data:`VALUE_BYTES`.
    threads : int
        CPU threads of one evaluation. Another number changes the order of sums.
    axis : int
        Axis that evaluations are fed along: 0, 1 or 2 for z, y or x.
    slab : int or None
        Planes that they are fed at once, a multiple of the alignment; None takes all at once.
    streams, queued_rows : int
        Evaluations that may have begun at once (one at a time computes), and rows of shards that a
        task may have handed on to be written; with one it writes shard by shard.
    """

    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    axis: int = 0
    slab: int | None = None
    streams: int = 1
    queued_rows: int = 2
