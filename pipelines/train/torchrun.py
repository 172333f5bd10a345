"""Several processes that train together, started by ``torchrun``."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from tilenet.errors import InvalidData

if TYPE_CHECKING:
    from tilenet.training import Ranks

#: How long a process waits for the others.
PATIENCE = timedelta(hours=6)


@contextlib.contextmanager
def first_speaks() -> Iterator[None]:
    """Let the first process alone print notes and warnings: the others find the same."""
    silent = os.environ.get("RANK", "0") != "0"
    with contextlib.redirect_stderr(io.StringIO()) if silent else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def join_ranks(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the other processes, if ``torchrun`` started any; with "cuda" each has a GPU."""
    from tilenet.training import ALONE, Ranks

    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE, device
        return
    import torch
    import torch.distributed as dist

    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device not in ("cpu", "cuda"):
        cure = "Give --device cuda: every process takes a GPU of its own."
        raise InvalidData(f"Device {device}", f"is one, but {count} processes train together", cure)
    if device == "cuda":
        torch.cuda.set_device(local)
    # Flags and losses travel by gloo; the others wait while the first process validates.
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), count), f"cuda:{local}" if device == "cuda" else device
    finally:
        dist.destroy_process_group()
