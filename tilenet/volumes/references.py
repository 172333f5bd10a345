"""Volumes as tasks name them: a place and how to open it, opened once per process.

Tasks are small and picklable: they hold references and settings, and are called with a box.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from tilenet.errors import InvalidData, UnreadableVolume
from tilenet.geometry import Box
from tilenet.volumes.create import stored_creation
from tilenet.volumes.grey_values import check_finite
from tilenet.volumes.stores import seen_from_anywhere
from tilenet.volumes.volume import Volume, open_volume, reopen_for_writing
from tilenet.worker import once


@dataclass(frozen=True, slots=True)
class VolumeReference:
    """How to open a volume.

    Parameters
    ----------
    location : str, path or URL
    level : str or None, path or index of a pyramid level
    channel : int or None
    axes : str or None, of the stored array
    """

    location: str
    level: str | None = None
    channel: int | None = None
    axes: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Whoever unpickles it may be in another folder.
        place = seen_from_anywhere(self.location)
        return VolumeReference, (place, self.level, self.channel, self.axes)

    def open(self) -> Volume:
        return open_volume(self.location, level=self.level, channel=self.channel, axes=self.axes)


@dataclass(frozen=True, slots=True)
class OutputReference:
    """Which volume a task writes to: its place, and which of those that lay there in turn.

    Parameters
    ----------
    location : str, path or URL
    creation : str or None
        Id that :func:`tilenet.volumes.create_volume` gave it; volumes of old have none.
    """

    location: str
    creation: str | None

    def __reduce__(self) -> tuple[Any, ...]:
        return OutputReference, (seen_from_anywhere(self.location), self.creation)

    def write(self, box: Box, values: npt.NDArray[Any], run: str) -> None:
        """Write a block, unless another volume lies there by now."""
        volume = writer(self, run)
        # A task goes on after its client died, and by then another command may have replaced the
        # output. What remains is a replacement between this look and the renaming of the shards:
        # the time that they take to be encoded and synced, not that of the block.
        self.check()
        volume.write(box, values)

    def check(self) -> None:
        """Refuse another volume than the one that the task is for."""
        if self.creation is None or (found := stored_creation(self.location)) == self.creation:
            return
        if found is None:
            problem = f"is not there for {socket.gethostname()}; the block was not stored"
            cure = "It was removed after this run began, or not every machine sees that folder."
            raise UnreadableVolume(f"Output {self.location}", problem, cure)
        problem = "was replaced after this run began; the block was not stored"
        cure = "Let one command at a time write there, and run it again."
        raise InvalidData(f"Output {self.location}", problem, cure)


#: Opened volumes that a process remembers: of several runs at once, as workers that others started
#: may have, each with its input and its mask. They hold metadata, no voxels.
VOLUMES = 16


@once(VOLUMES)
def reader(reference: VolumeReference, run: str) -> Volume:
    """Open a volume for reading, once per process and run.

    Parameters
    ----------
    reference : VolumeReference
    run : str
        What lies at a path may be replaced between two runs.

    Returns
    -------
    Volume
        Shared by the tasks of a process.
    """
    del run
    return reference.open()


@once(VOLUMES)
def writer(output: OutputReference, run: str) -> Volume:
    """Open an output for writing, once per process and run; one gone or replaced is refused.

    Parameters
    ----------
    output : OutputReference
    run : str

    Returns
    -------
    Volume
        Shared by the tasks of a process.
    """
    del run
    output.check()
    return reopen_for_writing(output.location)


def read_finite(volume: Volume, box: Box) -> npt.NDArray[Any]:
    """Read a box, and refuse NaN, infinity and what is gone.

    Parameters
    ----------
    volume : Volume
    box : Box, inside the volume

    Returns
    -------
    ndarray, shape (z, y, x) or (c, z, y, x), the stored dtype
        Finite.
    """
    values = volume.read_whole(box)
    check_finite(values, volume.location, box)
    return values
