"""Who takes part, in the order of the table."""

from __future__ import annotations

from benchmarks.peers import (
    chunkflow_patches,
    cluster,
    loops,
    monai_windows,
    overlap,
    single_pixels,
    torch_em_blocks,
)

CONTESTANTS = (
    *cluster.CONTESTANTS,
    *loops.CONTESTANTS,
    *overlap.CONTESTANTS,
    *monai_windows.CONTESTANTS,
    *torch_em_blocks.CONTESTANTS,
    *chunkflow_patches.CONTESTANTS,
    *single_pixels.CONTESTANTS,
)
