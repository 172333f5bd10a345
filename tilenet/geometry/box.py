"""Boxes of voxels, in (z, y, x). Pure: standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tilenet.errors import UnalignedBlock

#: A triple of integers along (z, y, x).
ZYX = tuple[int, int, int]

#: The names of the three axes, in storage order.
AXES = ("z", "y", "x")

#: Why a tile has to start at a multiple of the alignment.
ALIGNMENT_REASON = "the network's alignment: its poolings would fall on other voxels"


def zyx(values: Iterable[int]) -> ZYX:
    """Make a triple of plain integers, and complain if there are not three.

    Parameters
    ----------
    values : iterable of int

    Returns
    -------
    tuple of int
        (z, y, x).
    """
    z, y, x = values
    return int(z), int(y), int(x)


def round_up(value: int, step: int) -> int:
    """Give the smallest multiple of ``step`` that is not below ``value``.

    Parameters
    ----------
    value, step : int
        ``step`` is at least 1.

    Returns
    -------
    int
        It may be ``value`` itself.
    """
    return -(-value // step) * step


def nearest_multiples(value: int, step: int) -> tuple[int, ...]:
    """Give the positive multiples of ``step`` right below and right above ``value``.

    Parameters
    ----------
    value, step : int
        ``step`` is at least 1.

    Returns
    -------
    tuple of int
        One or two, ascending.
    """
    below = value // step * step
    return tuple(sorted({m for m in (below, round_up(value, step)) if m > 0} or {step}))


def check_multiple(what: str, shape: ZYX, step: ZYX, reason: str) -> None:
    """Complain about the first axis along which a shape is not a multiple of a step.

    Parameters
    ----------
    what : str
        What the shape is of, to start the message with.
    shape, step : tuple of int, voxels, (z, y, x)
    reason : str
        Why it has to be a multiple.
    """
    for axis, size, unit in zip(AXES, shape, step, strict=True):
        if size % unit:
            raise UnalignedBlock(what, axis, size, unit, reason, nearest_multiples(size, unit))


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels: ``start`` is inside, ``stop`` is not.

    Parameters
    ----------
    start, stop : tuple of int
        Corners along (z, y, x), in voxels; ``start`` may be negative (mirrored context).
    """

    start: ZYX
    stop: ZYX

    @classmethod
    def of_shape(cls, shape: ZYX) -> Box:
        """Make the box of a whole volume.

        Parameters
        ----------
        shape : tuple of int, (z, y, x)

        Returns
        -------
        Box
            From the origin to ``shape``.
        """
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> ZYX:
        """Edge lengths, (z, y, x)."""
        return zyx(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels; 0 when empty."""
        return math.prod(max(0, n) for n in self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """One slice per axis, for indexing an array whose origin is the box's."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def grow(self, before: ZYX, after: ZYX) -> Box:
        """Move the faces outward.

        Parameters
        ----------
        before, after : tuple of int
            Voxels to add below ``start`` and above ``stop``, (z, y, x).

        Returns
        -------
        Box
            It may leave the volume.
        """
        return Box(
            zyx(a - n for a, n in zip(self.start, before, strict=True)),
            zyx(b + n for b, n in zip(self.stop, after, strict=True)),
        )

    def intersect(self, other: Box) -> Box:
        """Give the voxels that lie in both boxes.

        Parameters
        ----------
        other : Box

        Returns
        -------
        Box
            Its ``size`` is 0 when there are none.
        """
        start = zyx(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = zyx(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box(start, zyx(max(a, b) for a, b in zip(start, stop, strict=True)))

    def contains(self, other: Box) -> bool:
        """Tell whether no voxel of ``other`` lies outside this box.

        Parameters
        ----------
        other : Box

        Returns
        -------
        bool
            True also when ``other`` is empty but lies within the faces.
        """
        return all(a <= b for a, b in zip(self.start, other.start, strict=True)) and all(
            a >= b for a, b in zip(self.stop, other.stop, strict=True)
        )

    def relative_to(self, origin: ZYX) -> Box:
        """Count from another origin.

        Parameters
        ----------
        origin : tuple of int
            The voxel that becomes (0, 0, 0).

        Returns
        -------
        Box
            The same voxels, in coordinates of an array that starts at ``origin``.
        """
        minus = zyx(-n for n in origin)
        return Box(
            zyx(a + n for a, n in zip(self.start, minus, strict=True)),
            zyx(b + n for b, n in zip(self.stop, minus, strict=True)),
        )

    def with_range(self, axis: int, start: int, stop: int) -> Box:
        """Give the box with another range along one axis.

        Parameters
        ----------
        axis, start, stop : int
            0, 1 or 2 for z, y or x, and the half-open range along it.

        Returns
        -------
        Box
            The other ranges are those of this box.
        """
        starts, stops = [*self.start], [*self.stop]
        starts[axis], stops[axis] = start, stop
        return Box(zyx(starts), zyx(stops))

    def cut(self, axis: int, step: int) -> Iterator[Box]:
        """Cut the box at the multiples of a step along one axis.

        Parameters
        ----------
        axis, step : int
            0, 1 or 2 for z, y or x; multiples of ``step`` are counted from the volume's origin.

        Yields
        ------
        Box
            The parts, in order.
        """
        start, stop = self.start[axis], self.stop[axis]
        while start < stop:
            end = min(stop, (start // step + 1) * step)
            yield self.with_range(axis, start, end)
            start = end

    def snap_outward(self, step: ZYX) -> Box:
        """Move the faces outward to multiples of ``step``.

        Parameters
        ----------
        step : tuple of int, block or shard shape, (z, y, x)

        Returns
        -------
        Box
            The smallest box on the lattice that contains this one.
        """
        return Box(
            zyx(a // n * n for a, n in zip(self.start, step, strict=True)),
            zyx(round_up(b, n) for b, n in zip(self.stop, step, strict=True)),
        )

    def __str__(self) -> str:
        ranges = zip(AXES, self.start, self.stop, strict=True)
        return ",".join(f"{axis}={a}:{b}" for axis, a, b in ranges)
