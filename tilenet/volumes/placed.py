"""A volume where it lies in the voxel grid of another: labels that are a crop of their raw volume.

Many tools write a position of 0 for any volume, so 0 alone does not tell where a crop lies: volumes
of different shapes need a position that is not 0, or the user's word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, Box, zyx
from tilenet.volumes.volume import Volume

#: Part of a voxel by which positions may differ from whole voxels: what rounding leaves.
POSITION_TOLERANCE = 0.01

#: The position of a volume that states none, where one is needed.
ORIGIN = (0.0, 0.0, 0.0)

#: What to do where volumes do not fit together.
PLACE_CURE = (
    "Give labels of the same place, or say where their first voxel lies: --label-offset Z,Y,X."
)


@dataclass(frozen=True)
class Placed:
    """A volume that is read in voxels of another.

    Parameters
    ----------
    volume : Volume
    offset : tuple of int
        Its first voxel, in voxels of the other, (z, y, x).
    notes : tuple of str
        What was assumed in placing it, a sentence each, for people.
    """

    volume: Volume
    offset: ZYX = (0, 0, 0)
    notes: tuple[str, ...] = ()

    @property
    def location(self) -> str:
        """Path or URL."""
        return self.volume.location

    @property
    def box(self) -> Box:
        """Where it lies, in voxels of the other."""
        return Box.of_shape(self.volume.shape).relative_to(zyx(-n for n in self.offset))

    def inside(self, box: Box) -> Box:
        """Give a box of the other in voxels of its own."""
        return box.relative_to(self.offset)

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Read the voxels of a box.

        Parameters
        ----------
        box : Box
            In voxels of the other, within :attr:`box`.

        Returns
        -------
        ndarray, shape (z, y, x) or (c, z, y, x), the stored dtype
            A fresh array.
        """
        return self.volume.read(self.inside(box))


def place(
    volume: Volume,
    other: Volume,
    offset: ZYX | None = None,
    *,
    by_position: bool = True,
    what: str = "Labels",
    cure: str = PLACE_CURE,
) -> Placed:
    """Find where labels or weights lie in the voxels of another volume of the same voxel size.

    Parameters
    ----------
    volume, other : Volume
    offset : tuple of int, optional
        Where its first voxel lies, by the user's word; it wins over the positions stated.
    by_position : bool
        Whether stated positions may be compared.
    what, cure : str
        What the volume is, and what to do where it does not fit.

    Returns
    -------
    Placed
        Some of it lies in the other.

    Raises
    ------
    InvalidData
        When the volumes do not overlap, their positions differ by parts of voxels, or their shapes
        differ and nothing says where it lies.
    """
    if offset is not None:
        placed: Placed | str = Placed(volume, offset, tuple(_overruled(volume, other, offset)))
    else:
        placed = _by_position(volume, other, by_position)
    if isinstance(placed, Placed) and not placed.box.intersect(Box.of_shape(other.shape)).size:
        placed = (
            f"do not overlap {other.location}: they lie at {placed.box} in voxels of that, which "
            f"has {Box.of_shape(other.shape)}{_positions(volume, other)}"
        )
    if isinstance(placed, str):
        raise InvalidData(f"{what} {volume.location}", placed, cure)
    return placed


def _by_position(volume: Volume, other: Volume, by_position: bool) -> Placed | str:
    # Where they do not fit together, the problem.
    alike, mine, others = volume.shape == other.shape, volume.translation, other.translation
    sized = by_position and None not in (volume.voxel_size, other.voxel_size)
    told = sized and mine is not None and any((*mine, *(others or ())))
    if alike and (others is None or not told):
        moved = (mine or ORIGIN) != (others or ORIGIN)
        taken = f"They are taken to lie where {other.location} does{_positions(volume, other)}."
        return Placed(volume, notes=(taken,) if moved else ())
    if not told:
        return (
            f"have the shape {volume.shape}, but {other.location} has {other.shape} (z, y, x), and "
            "nothing says where in that they lie"
        )
    offset = _whole_steps(volume, other)
    if offset is None:
        return (
            f"do not lie on the voxels of {other.location}: the positions"
            f"{_positions(volume, other)} are not whole voxels of {other.voxel_size} nm apart"
        )
    begins = f"{other.location} states no position, so it is taken to begin at 0."
    return Placed(volume, offset, (begins,) if others is None else ())


def _overruled(volume: Volume, other: Volume, offset: ZYX) -> Iterator[str]:
    # What the positions say, where it is not what the user says.
    unknown = None in (volume.translation, other.translation, volume.voxel_size, other.voxel_size)
    if not unknown and _whole_steps(volume, other) != offset:
        given = ",".join(str(n) for n in offset)
        yield f"--label-offset {given} is taken, not the positions{_positions(volume, other)}."


def _whole_steps(volume: Volume, other: Volume) -> ZYX | None:
    # Voxels from the other's first voxel to that of the volume; None where they are not whole.
    # By the voxel size of either: far from the origin a small difference of the two is many voxels.
    distance = [a - b for a, b in zip(*_at(volume, other), strict=True)]
    found = [
        tuple(d / n for d, n in zip(distance, size, strict=True))
        for size in (other.voxel_size, volume.voxel_size)
        if size is not None
    ]
    whole = zyx(round(n) for n in found[0])
    near = (
        abs(n - w) <= POSITION_TOLERANCE
        for steps in found
        for n, w in zip(steps, whole, strict=True)
    )
    return whole if all(near) else None


def _at(*volumes: Volume) -> list[tuple[float, float, float]]:
    return [volume.translation or ORIGIN for volume in volumes]


def _positions(volume: Volume, other: Volume) -> str:
    if volume.translation is None and other.translation is None:
        return ""
    mine, others = (
        "none" if at is None else f"{', '.join(f'{n:g}' for n in at)} nm"
        for at in (volume.translation, other.translation)
    )
    return f" ({mine} and {others})"
