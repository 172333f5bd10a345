"""How a stored array of any axes is seen as (z, y, x) or (c, z, y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.geometry import ZYX, Box, zyx


@dataclass(frozen=True, slots=True)
class AxisMap:
    """Which stored axis is which.

    Parameters
    ----------
    axes : tuple of str
        One letter per stored axis. Axes that are not z, y, x or c have length 1, and are left out.
    channel : int or None
        The channel to read; None reads all of them.
    """

    axes: tuple[str, ...]
    channel: int | None = None

    def along_zyx(self, sizes: Sequence[int]) -> ZYX:
        """Give the sizes along z, y and x; 1 along an axis that is not stored."""
        by_axis = dict(zip(self.axes, sizes, strict=True))
        return zyx(by_axis.get(axis, 1) for axis in "zyx")

    def index(self, box: Box) -> tuple[slice, ...]:
        """Give the part of the stored array that holds a box."""
        # Slices only: zarrs 0.2.3 mixes up the axes where some indices are integers.
        ranges = dict(zip("zyx", box.slices, strict=True))
        channel = self.channel
        ranges["c"] = slice(None) if channel is None else slice(channel, channel + 1)
        return tuple(ranges.get(axis, slice(0, 1)) for axis in self.axes)

    def arrange(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring what was read with :meth:`index` into (z, y, x) or (c, z, y, x)."""
        wanted = "zyx" if self.channel is not None else "czyx"
        kept = [axis for axis in self.axes if axis in wanted]
        values = values[tuple(slice(None) if axis in wanted else 0 for axis in self.axes)]
        values = values.transpose([kept.index(axis) for axis in wanted if axis in kept])
        return values if "z" in kept else np.expand_dims(values, -3)
