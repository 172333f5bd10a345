"""What a worker runs for one block: read, compute, write whole shards.

Tasks are small and picklable: they hold paths and settings, and are called with the block's box.
A worker process opens volumes once, whatever the number of its blocks. The prediction task, which
also loads a network, is in :mod:`tilenet.predict_task`.
"""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy.typing as npt

from tilenet import storage
from tilenet.errors import InvalidData, UnreadableVolume
from tilenet.geometry import Box
from tilenet.intensity import Moments, check_finite
from tilenet.new_volume import stored_creation
from tilenet.sources import Source
from tilenet.volume import Volume, open_volume, reopen_for_writing

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What a task says of a block that it finished.

    Parameters
    ----------
    box : Box
        The block.
    seconds : dict
        Seconds per phase: "read", "compute", "write"; waiting for the device counts as "wait".
    value : object
        What the task computed, if that is not stored.
    skipped : bool
        Whether it lies outside of the mask as a whole: a constant was stored, nothing computed.
    """

    box: Box
    seconds: dict[str, float]
    value: Any = None
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class VolumeReference:
    """How to open a volume.

    Parameters
    ----------
    location : str
        Path or URL.
    level : str or None
        Path or index of a pyramid level.
    channel : int or None
        Channel to read.
    axes : str or None
        Meaning of the stored axes.
    """

    location: str
    level: str | None = None
    channel: int | None = None
    axes: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Whoever unpickles it may be in another folder.
        place = storage.seen_from_anywhere(self.location)
        return VolumeReference, (place, self.level, self.channel, self.axes)

    def open(self) -> Volume:
        """Open the volume.

        Returns
        -------
        Volume
            For reading.
        """
        return open_volume(self.location, level=self.level, channel=self.channel, axes=self.axes)


@dataclass(frozen=True, slots=True)
class OutputReference:
    """Which volume a task writes to: its place, and which of those that lay there in turn.

    Parameters
    ----------
    location : str
        Path or URL.
    creation : str or None
        Id that :func:`tilenet.new_volume.create_volume` gave it; volumes of old have none.
    """

    location: str
    creation: str | None

    def __reduce__(self) -> tuple[Any, ...]:
        return OutputReference, (storage.seen_from_anywhere(self.location), self.creation)

    def write(self, box: Box, values: npt.NDArray[Any], run: str) -> None:
        """Write a block, unless another volume lies there by now.

        Parameters
        ----------
        box : Box
            The block.
        values : ndarray, shape (z, y, x) or (c, z, y, x), the stored dtype
            The voxels.
        run : str
            Name of the run.

        Raises
        ------
        UnreadableVolume
            When the output is gone, or out of reach.
        InvalidData
            When it was replaced.
        """
        volume = writer(self, run)
        # A task goes on after its client died, and by then another command may have replaced the
        # output. What remains is a replacement between this look and the renaming of the shards:
        # the time that they take to be encoded and synced, not that of the block.
        self.check()
        volume.write(box, values)

    def check(self) -> None:
        """Refuse another volume than the one that the task is for.

        Raises
        ------
        UnreadableVolume
            When the output is gone, or out of reach.
        InvalidData
            When it was replaced.
        """
        if self.creation is None or (found := stored_creation(self.location)) == self.creation:
            return
        if found is None:
            problem = f"is not there for {socket.gethostname()}; the block was not stored"
            cure = "It was removed after this run began, or not every machine sees that folder."
            raise UnreadableVolume(f"Output {self.location}", problem, cure)
        problem = "was replaced after this run began; the block was not stored"
        cure = "Let one command at a time write there, and run it again."
        raise InvalidData(f"Output {self.location}", problem, cure)


_loading = threading.Lock()


#: Opened volumes that a process remembers: of several runs at once, as workers that others started
#: may have, each with its input and its mask. They hold metadata, no voxels.
VOLUMES = 16


def once(keep: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function that loads something do so once per process for the same arguments.

    Parameters
    ----------
    keep : int
        How many of its last results it remembers.

    Returns
    -------
    callable
        A decorator of functions that take hashable arguments and call no other function made by
        ``once``.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        # functools.lru_cache alone would let two threads load the same network side by side.
        cached = functools.lru_cache(maxsize=keep)(function)

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> T:
            with _loading:
                return cached(*args, **kwargs)  # type: ignore[arg-type]

        return locked

    return decorate


@once(VOLUMES)
def reader(reference: VolumeReference, run: str) -> Volume:
    """Open a volume for reading, once per process and run.

    Parameters
    ----------
    reference : VolumeReference
        Which volume.
    run : str
        Name of the run: what lies at a path may be replaced between two runs.

    Returns
    -------
    Volume
        The volume.
    """
    del run
    return reference.open()


@once(VOLUMES)
def writer(output: OutputReference, run: str) -> Volume:
    """Open an output for writing, once per process and run.

    Parameters
    ----------
    output : OutputReference
        Which volume.
    run : str
        Name of the run.

    Returns
    -------
    Volume
        The volume.

    Raises
    ------
    UnreadableVolume
        When the output is gone, or out of reach.
    InvalidData
        When it was replaced.
    """
    del run
    output.check()
    return reopen_for_writing(output.location)


class Clock:
    """Adds up seconds per phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def phase(self, name: str) -> None:
        """Count the time since the last call.

        Parameters
        ----------
        name : str
            The phase that it was spent in.
        """
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def read_finite(volume: Volume, box: Box) -> npt.NDArray[Any]:
    """Read a box, and refuse NaN, infinity and what is gone.

    Parameters
    ----------
    volume : Volume
        The input.
    box : Box
        Inside the volume.

    Returns
    -------
    ndarray, shape (z, y, x) or (c, z, y, x), the stored dtype
        The voxels.

    Raises
    ------
    NonFiniteValues
        Naming the box and how many there are.
    """
    values = volume.read_whole(box)
    check_finite(values, volume.location, box)
    return values


@dataclass(frozen=True, kw_only=True)
class IngestTask:
    """Copy one block of a source into a volume.

    Parameters
    ----------
    source : Source
        What is read.
    output : OutputReference
        The output, created already.
    run : str
        Name of the run.
    """

    source: Source
    output: OutputReference
    run: str

    def __call__(self, box: Box) -> BlockReport:
        """Copy a block.

        Parameters
        ----------
        box : Box
            The block, inside the volume.

        Returns
        -------
        BlockReport
            Seconds per phase.
        """
        clock = Clock()
        values = self.source.read(box)
        clock.phase("read")
        self.output.write(box, values, self.run)
        clock.phase("write")
        return BlockReport(box, clock.seconds)


@dataclass(frozen=True, kw_only=True)
class MomentsTask:
    """Sum grey values and their squares over one block.

    Parameters
    ----------
    source : VolumeReference
        The input.
    run : str
        Name of the run.
    void : float or None
        Grey value that marks voxels outside the specimen.
    """

    source: VolumeReference
    run: str
    void: float | None = None

    def __call__(self, box: Box) -> BlockReport:
        """Sum over a block.

        Parameters
        ----------
        box : Box
            The block, inside the volume.

        Returns
        -------
        BlockReport
            Its value is a :class:`tilenet.intensity.Moments`.
        """
        clock = Clock()
        moments = Moments.of(read_finite(reader(self.source, self.run), box), self.void)
        clock.phase("read")
        return BlockReport(box, clock.seconds, moments)
