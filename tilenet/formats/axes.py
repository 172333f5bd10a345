"""Arrays in files, and which of their axes are z, y, x and channel, whatever file holds them.

What the file says counts, unless the caller says otherwise; axes of length 1 mean nothing and are
dropped; where several readings are left, the caller has to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.volumes import AxisMap

#: Name of an axis of length 1 that is dropped.
DROPPED = "-"

#: Of one section, more channels than that may be sections: tifffile calls these channels.
_CHANNELS = 4

_EXAMPLES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in an open file, with its own axes."""

    sizes: tuple[int, ...]  # its shape
    dtype: np.dtype[Any]  # its stored data type
    # Shape of what is decoded as one piece; 1 along an axis where any range costs the same.
    pieces: tuple[int, ...]
    # Takes one slice per axis, with start and stop, and gives a fresh array with as many
    # axes; safe to call from several threads. It raises anything when stored bytes are
    # damaged.
    read: Callable[[Sequence[slice]], npt.NDArray[Any]]
    names: str | None = None  # what the file says of its axes, one letter each
    voxel_size: tuple[float, float, float] | None = None  # nanometres, (z, y, x)
    # Position of the first voxel's centre, nanometres, (z, y, x).
    translation: tuple[float, float, float] | None = None
    # What was assumed where the file is not as it should be, a sentence each, for people.
    notes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()  # names of the channels, where the file states them
    # All that the file says of its axes, where it says different things.
    contradiction: tuple[str, ...] = ()
    files: tuple[str, ...] = ()  # all that it is read from, where that is not the file alone
    # Nanometres, (y, x), where the file states no size along z.
    pixel_size: tuple[float, float] | None = None


def agree(axes: AxisMap, named: str | None) -> bool:
    """Tell whether z, y and x are where the file says that they are."""
    return named is None or all(
        letter not in "zyx" or letter == name
        for letter, name in zip(named.lower(), axes.axes, strict=True)
    )


def overridden(sizes: Sequence[int], named: str | None, given: str | None) -> str | None:
    """Say that the caller's word counts for the axes, where the file says something else."""
    if named is None or given is None or len(named) != len(given):
        return None
    said = named.lower() if "c" in named.lower() else named.lower().replace("s", "c")
    other = any(
        size > 1 and a != b and a in "tczyx"
        for a, b, size in zip(said, given.lower(), sizes, strict=True)
    )
    return f"--axes {given} is used; the file states {named.lower()}." if other else None


def readable_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Give the type that stored values are read as: of native byte order, uint8 for bool."""
    return np.dtype(np.uint8) if stored.kind == "b" else stored.newbyteorder("=")


def check_values(location: str, sizes: Sequence[int], stored: np.dtype[Any] | None) -> None:
    """Refuse an array that holds no voxels, or none that are real numbers."""
    if 0 in sizes:
        cure = "Give a volume that has voxels"
        raise UnreadableVolume(location, f"is empty: shape {tuple(sizes)}", cure)
    # Longer floats differ between machines, and Zarr cannot store them.
    if stored is None or stored.kind not in "uifb" or stored.itemsize > 8:
        cure = "Store whole numbers or floating-point numbers of at most 64 bits"
        raise UnreadableVolume(location, f"holds values of type {stored}", cure)


def choose_axes(
    location: str,
    sizes: Sequence[int],
    *,
    named: str | None,
    given: str | None,
    channel: int | None,
) -> AxisMap:
    """Decide what the axes of a stored array are, and whether all channels are read or one.

    Both what the file says and what the user gives has a letter per axis. Of the file's, others
    than t, c, s, z, y and x stand for an axis whose meaning it does not know. Channels (c) are all
    read where none is chosen; of the samples of a colour image (s) one has to be: most images of
    EM that are stored in colour are grey.
    """
    if len(sizes) < 2:
        cure = "Give a volume with the axes z, y, x, or a section with y, x"
        raise UnreadableVolume(location, f"has {len(sizes)} axes of sizes {tuple(sizes)}", cure)
    if given is not None:
        names = _given(location, sizes, given)
    elif named is not None:
        names = obeyed(sizes, named)
    else:
        names = _by_sizes(sizes)
    stated = names
    names = tuple(
        DROPPED if size == 1 and name not in "czyx" else name
        for name, size in zip(names, sizes, strict=True)
    )
    _check_known(location, sizes, names)
    if given is None and named is not None and channel is None:
        _check_channels(location, sizes, stated)
    counts = [size for name, size in zip(names, sizes, strict=True) if name == "c"]
    colours = given is None and named is not None and "c" not in named.lower()
    keep = f", or keep them all with --axes {''.join(names)}" if colours else None
    return AxisMap(names, _channel(location, counts[0] if counts else 1, channel, keep))


def _given(location: str, sizes: Sequence[int], given: str) -> tuple[str, ...]:
    names = tuple(given.lower())
    if (
        not set(names) <= set("tczyx")
        or len(set(names)) < len(names)
        or not {"y", "x"} <= set(names)
    ):
        problem = f"cannot have axes {given!r}, which must be among t, c, z, y, x, each once"
        cure = "Say which is which, for example --axes zyx"
        raise UnreadableVolume(location, problem, cure)
    if len(names) != len(sizes):
        problem = f"has {len(sizes)} axes, but --axes names {len(names)}: {given!r}"
        cure = f"Name every axis once, for example --axes {_example(sizes)}"
        raise AmbiguousVolume(location, problem, tuple(map(str, sizes)), cure)
    return names


def obeyed(sizes: Sequence[int], named: str) -> tuple[str, ...]:
    """Give the letters that a file states, with the one that it does not know taken for z."""
    letters = named.lower()
    if "c" not in letters:
        letters = letters.replace("s", "c")  # TIFF tells samples of a pixel from channels
    unknown = {i for i, size in enumerate(sizes) if letters[i] not in "tcszyx" and size > 1}
    # A plain stack of pages says nothing of its one further axis: it is a stack of sections.
    if len(unknown) == 1 and "z" not in letters:
        return tuple("z" if i in unknown else letter for i, letter in enumerate(letters))
    return tuple(letters)


def _by_sizes(sizes: Sequence[int]) -> tuple[str, ...]:
    if len(sizes) <= 3:
        return tuple("zyx"[-len(sizes) :])
    if sum(size > 1 for size in sizes) != 3:
        return ("?",) * len(sizes)
    left = iter("zyx")
    return tuple(next(left) if size > 1 else DROPPED for size in sizes)


def _check_known(location: str, sizes: Sequence[int], names: Sequence[str]) -> None:
    seen = tuple(f"{name}={size}" for name, size in zip(names, sizes, strict=True))
    kept = [name for name in names if name != DROPPED]
    if "t" in kept:
        raise AmbiguousVolume(location, "has several time points", seen, _time_cure(names))
    if not set(kept) <= set("czyx") or len(set(kept)) < len(kept) or not {"y", "x"} <= set(kept):
        cure = f"Say which axis is which, for example --axes {_example(sizes)}"
        raise AmbiguousVolume(location, "has axes of unknown meaning", seen, cure)


def _check_channels(location: str, sizes: Sequence[int], names: Sequence[str]) -> None:
    """Refuse many channels of one section where nobody chose them: they may be sections."""
    size_of = dict(zip(names, sizes, strict=True))
    if size_of.get("c", 1) <= _CHANNELS or size_of.get("z", 1) > 1:
        return
    kept = "".join(name if name in "tczyx" else "t" for name in names)
    sections = kept.translate(str.maketrans("cz", "zc"))
    seen = tuple(f"{name}={size}" for name, size in size_of.items())
    cure = f"If these are sections: --axes {sections}, or to keep them: --axes {kept}"
    raise AmbiguousVolume(location, f"has {size_of['c']} channels and one section", seen, cure)


def _time_cure(names: Sequence[str]) -> str:
    cure = "Store one time point per file"
    if DROPPED in names:
        return cure
    if "z" not in names:  # Fiji often calls the sections of a stack time points
        return f"{cure}, or, if these are sections: --axes {''.join(names).replace('t', 'z')}"
    if "c" not in names:
        return f"{cure}, or take one: --axes {''.join(names).replace('t', 'c')} --channel 0"
    return cure


def _channel(location: str, count: int, channel: int | None, keep: str | None) -> int | None:
    # ``keep`` says how all are read of what is not read whole unless the caller says so.
    if channel is None and (count == 1 or keep is None):
        return 0 if count == 1 else None
    if channel is not None and 0 <= channel < count:
        return channel
    problem = f"has {count} channels" if channel is None else f"has no channel {channel}"
    choices = tuple(str(i) for i in range(count))
    cure = f"Choose one of them with --channel{keep or ''}"
    raise AmbiguousVolume(location, problem, choices, cure)


def _example(sizes: Sequence[int]) -> str:
    return _EXAMPLES.get(len(sizes), "tczyx")
