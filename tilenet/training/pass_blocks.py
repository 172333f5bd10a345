"""The blocks of a pass over a part of a volume, before training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.volumes import Volume

#: Voxels of a block of the pass over the volumes, at most: some 500 MB while it is counted.
PASS_VOXELS = 2**24


def pass_blocks(
    volume: Volume, box: Box, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Box]:
    """Give the blocks of a box; ``stopped`` is asked before each, and true is InterruptedError."""
    size = _pass_block(volume.chunk_shape)
    for whole in BlockGrid(volume.shape, size, box):
        if stopped():
            raise InterruptedError
        yield whole.intersect(box)


def _pass_block(chunk: ZYX) -> ZYX:
    # Whole chunks, so that none is decoded twice, as long as they are of a reasonable size.
    size = list(chunk)
    for axis in (2, 1, 0):
        while size[axis] < 64 and math.prod(size) * 2 <= PASS_VOXELS:
            size[axis] *= 2
    while math.prod(size) > PASS_VOXELS:
        axis = size.index(max(size))
        size[axis] = -(-size[axis] // 2)
    return zyx(size)
