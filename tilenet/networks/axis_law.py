"""The shape law of a U-Net along one axis. Pure: standard library only."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class AxisLaw:
    """What sizes a U-Net can take and give along one axis.

    With ``b`` voxels after the deepest level, the input has ``alignment * b + gain`` voxels and
    the output ``alignment * b - loss``.

    Parameters
    ----------
    shrinks, pools : tuple of int
        Voxels that the convolutions of each level lose on either path, from full resolution down,
        and the pooling factor from each level to the next.
    """

    shrinks: tuple[int, ...]
    pools: tuple[int, ...]

    @functools.cached_property
    def alignment(self) -> int:
        """Product of the pooling factors."""
        return math.prod(self.pools)

    @functools.cached_property
    def gain(self) -> int:
        """What the input has beyond ``alignment * b``: the contracting path, undone."""
        gain = self.shrinks[-1]
        for shrink, pool in zip(reversed(self.shrinks[:-1]), reversed(self.pools), strict=True):
            gain = gain * pool + shrink
        return gain

    @functools.cached_property
    def loss(self) -> int:
        """What the output lacks of ``alignment * b``: the expanding path."""
        loss = 0
        for shrink, pool in zip(reversed(self.shrinks[:-1]), reversed(self.pools), strict=True):
            loss = loss * pool + shrink
        return loss

    @functools.cached_property
    def halo(self) -> int:
        """Context voxels beyond each face of the output."""
        return (self.gain + self.loss) // 2

    @functools.cached_property
    def smallest_output(self) -> int:
        """Smallest legal output: every step of the expanding path leaves a voxel at least."""
        size = 1
        for shrink, pool in zip(self.shrinks[:-1], self.pools, strict=True):
            size = -(-(size + shrink) // pool)
        return self.alignment * size - self.loss

    def output_for(self, size: int) -> int:
        """Give the smallest legal output that is at least as large."""
        steps = max(0, -(-(size - self.smallest_output) // self.alignment))
        return self.smallest_output + steps * self.alignment

    def nearest_outputs(self, size: int) -> tuple[int, ...]:
        """Give the legal outputs right below and right above a size, or a legal size alone."""
        above = self.output_for(size)
        if above == size:
            return (size,)
        below = max(self.smallest_output, above - self.alignment)
        return tuple(sorted({below, above}))

    @property
    def receptive_field(self) -> int:
        """Largest extent of the input that one output voxel depends on, over all phases."""
        spans = (self._dependence(position) for position in range(self.alignment))
        return max(last - first + 1 for first, last in spans)

    def _dependence(self, position: int) -> tuple[int, int]:
        # First and last input index that one output index depends on, counted from the tile's
        # first. Down the expanding path by what each step reads, then up the contracting one.
        first = last = position
        skips: list[tuple[int, int]] = []
        for level, pool in enumerate(self.pools):
            last += self.shrinks[level]
            crop = self.crop(level)
            skips.append((first + crop, last + crop))
            first, last = first // pool, last // pool
        last += self.shrinks[-1]
        for level in reversed(range(len(self.pools))):
            first, last = first * self.pools[level], (last + 1) * self.pools[level] - 1
            first, last = min(first, skips[level][0]), max(last, skips[level][1])
            last += self.shrinks[level]
        return first, last

    def crop(self, level: int) -> int:
        """Give how much a level's skip exceeds the up-sampled features, per side, in its voxels."""
        excess = self.shrinks[-1]
        for inner in reversed(range(level + 1, len(self.pools))):
            excess = excess * self.pools[inner] + 2 * self.shrinks[inner]
        return excess * self.pools[level] // 2
