"""Orientations of a section whose predictions are averaged. Pure: standard library only.

Ronneberger et al. (2015) averaged the predictions of "7 rotated versions of the input data"; which
seven is not said, and that code is not in their release. Only quarter turns and flips map voxels
onto voxels, so only they keep the result exact. There are eight of them, the symmetries of a
square, and :data:`ORIENTATIONS` has them in a fixed order; seven are all but the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX
from tilenet.networks.unet_architecture import UNetArchitecture


@dataclass(frozen=True, slots=True)
class Orientation:
    """A way to see sections: rows or columns reversed, then rows and columns exchanged.

    Parameters
    ----------
    name : str
        For the provenance. Turns are counter-clockwise, with y pointing down.
    flip_y, flip_x, transposed : bool
        Exchanging y and x makes a quarter turn, or a reflection about a diagonal.
    """

    name: str
    flip_y: bool = False
    flip_x: bool = False
    transposed: bool = False

    @property
    def flips(self) -> tuple[bool, bool, bool]:
        """Whether each axis is reversed, (z, y, x)."""
        return False, self.flip_y, self.flip_x


#: Sections as they are.
IDENTITY = Orientation("identity")

#: The symmetries of a square: the four turns, then the mirror image and its three turns.
ORIENTATIONS = (
    IDENTITY,
    Orientation("turn 90", flip_x=True, transposed=True),
    Orientation("turn 180", flip_y=True, flip_x=True),
    Orientation("turn 270", flip_y=True, transposed=True),
    Orientation("flip x", flip_x=True),
    Orientation("transpose", transposed=True),
    Orientation("flip y", flip_y=True),
    Orientation("transpose and turn 180", flip_y=True, flip_x=True, transposed=True),
)

#: Those that exchange no axes, as the authors' released prediction averaged them.
FLIPS = tuple(orientation for orientation in ORIENTATIONS if not orientation.transposed)

#: How many orientations ``--rotations`` can ask for.
ROTATIONS = (1, 7, 8)


def averaged(rotations: int, flips: bool) -> tuple[Orientation, ...]:
    """Give the orientations whose predictions are averaged.

    Parameters
    ----------
    rotations : int
        One of :data:`ROTATIONS`.
    flips : bool
        Average the four that exchange no axes; not with rotations.

    Returns
    -------
    tuple of Orientation
        In the order of summation.
    """
    if rotations not in ROTATIONS:
        cure = "Only quarter turns and flips keep the result exact: choose 1, 7 or 8, or flips."
        raise InvalidData("Rotations", f"{rotations} is no number of them that is offered", cure)
    if flips and rotations > 1:
        problem = f"asked for together with {rotations} rotations, which hold the flips"
        raise InvalidData("Flips", problem, "Choose --flips or --rotations.")
    return FLIPS if flips else ORIENTATIONS[:rotations]


def check_quarter_turns(
    orientations: Iterable[Orientation], architecture: UNetArchitecture, tile: ZYX | None = None
) -> None:
    """Complain about a network or a tile that cannot be turned by quarters, where that is asked.

    Parameters
    ----------
    orientations : iterable of Orientation
    architecture : UNetArchitecture
    tile : tuple of int, optional
        Voxels that an evaluation keeps, (z, y, x).
    """
    if not any(orientation.transposed for orientation in orientations):
        return
    cure = "Average flips only (--flips): they exchange no axes."
    for name, triples in (("kernels", architecture.kernels), ("poolings", architecture.pools)):
        y, x = [triple[1] for triple in triples], [triple[2] for triple in triples]
        if y != x:
            problem = f"the network's {name} are {y} along y and {x} along x, level by level"
            raise InvalidData("Quarter turns exchange y and x", problem, cure)
    if tile is not None and tile[1] != tile[2]:
        problem = f"a tile of {tile[1]} along y and {tile[2]} along x would have two shapes"
        raise InvalidData("Quarter turns exchange y and x", problem, "Make it square.")


def orientations_to_text(orientations: tuple[Orientation, ...]) -> str:
    """Put what is averaged into words.

    Parameters
    ----------
    orientations : tuple of Orientation

    Returns
    -------
    str
        "none", or the names.
    """
    if orientations == (IDENTITY,):
        return "none"
    return ", ".join(orientation.name for orientation in orientations)


def orientations_to_json(
    orientations: tuple[Orientation, ...], what: str, precision: str
) -> str | dict[str, Any]:
    """State what is averaged and how, for the provenance of an output.

    Parameters
    ----------
    orientations : tuple of Orientation
    what : str
        What is averaged, for people.
    precision : str

    Returns
    -------
    str or dict
        "none", or JSON values that :func:`parse_orientations` reads.
    """
    if orientations == (IDENTITY,):
        return "none"
    width = "float64" if precision == "float64" else "float32"
    return {
        "orientations": [orientation.name for orientation in orientations],
        "average": f"{what}, summed in this order in {width}, divided by {len(orientations)}",
    }


def parse_orientations(statement: Any) -> tuple[Orientation, ...]:
    """Read the orientations of a begun output; unknown ones are refused.

    Parameters
    ----------
    statement : object
        What its provenance says.

    Returns
    -------
    tuple of Orientation
        In the order of summation.
    """
    if statement == "none":
        return (IDENTITY,)
    names = statement.get("orientations") if isinstance(statement, Mapping) else None
    known = {orientation.name: orientation for orientation in ORIENTATIONS}
    told = isinstance(names, list) and [isinstance(n, str) and n in known for n in names]
    if not told or not all(told):
        problem = f"{statement!r} is not known to this version"
        cure = "Go on with the version that began the output, or start anew with --overwrite."
        raise InvalidData("Test-time augmentation of the begun output", problem, cure)
    return tuple(known[name] for name in names or ())
