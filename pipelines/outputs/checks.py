"""What has to be true of any input or output of ours; nothing is written here."""

from __future__ import annotations

import math

from tilenet.errors import (
    InvalidData,
    OutputInsideInput,
)
from tilenet.geometry import BlockGrid, Box
from tilenet.volumes import (
    WHOLE_KINDS,
    Volume,
    count_stored,
    write_problem,
)
from tilenet.volumes.stores import is_remote, local_path

#: Missing objects that are counted only.
MANY = 10**7


#: Voxel sizes that differ by less than this share are the same.
VOXEL_SIZE_TOLERANCE = 0.02


def same_size(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Tell whether two voxel sizes are the same, within the tolerance.

    Parameters
    ----------
    first, second : tuple of float
        Nanometres, along the same axes.

    Returns
    -------
    bool
        Whether no axis differs by more.
    """
    return all(
        math.isclose(a, b, rel_tol=VOXEL_SIZE_TOLERANCE) for a, b in zip(first, second, strict=True)
    )


def check_whole(
    volume: Volume, region: Box, cure: str = "Run the command that makes it to its end."
) -> None:
    """Refuse what a command of ours has not made to its end: what is missing reads as zeros.

    Parameters
    ----------
    volume : Volume
        An input.
    region : Box
        The part that is needed.
    cure : str
    """
    if volume.attributes.get("kind") not in WHOLE_KINDS:
        return
    blocks = BlockGrid(volume.shape, volume.write_shape, region)
    what = f"objects that hold {region}"
    if len(blocks) > MANY and (lacking := len(blocks) - count_stored(volume.array)) > MANY:
        # A damaged shape, perhaps; to ask for one after the other would take for ever.
        problem = f"at least {lacking} of the {len(blocks)} {what} are not stored yet"
        raise InvalidData(volume.location, problem, cure)
    missing = volume.missing(blocks)
    if missing:
        problem = (
            f"{len(missing)} of the {len(blocks)} {what} are not stored yet, "
            f"the first {blocks[missing[0]]}"
        )
        raise InvalidData(volume.location, problem, cure)


def check_folder(option: str, folder: str) -> None:
    """Refuse what cannot become a folder, or lie in one, that is written to.

    Parameters
    ----------
    option : str
        That names it, for the message.
    folder : str
        Path or URL; a URL is not looked at.
    """
    if is_remote(folder):
        return
    if problem := write_problem(local_path(folder)):
        cure = "Give another folder, or change its permissions."
        raise InvalidData(f"{option} {folder}", problem, cure)


def check_apart(output: str, source: str, image: str | None = None) -> None:
    """Refuse an output inside the input, and the other way round.

    Parameters
    ----------
    output, source : str
        Paths or URLs.
    image : str, optional
        The OME-Zarr image whose label image the output is: it may be the input.
    """
    if is_remote(output) or is_remote(source):
        inside = f"{output.rstrip('/')}/".startswith(f"{source.rstrip('/')}/")
        around = f"{source.rstrip('/')}/".startswith(f"{output.rstrip('/')}/")
    else:
        a, b = local_path(output), local_path(source)
        inside, around = a.is_relative_to(b), b.is_relative_to(a)
    may_be = image is not None and _same_place(source, image)
    if (inside and not may_be) or around:
        raise OutputInsideInput(output, source)


def _same_place(first: str, second: str) -> bool:
    if is_remote(first) or is_remote(second):
        return first.rstrip("/") == second.rstrip("/")
    return local_path(first) == local_path(second)
