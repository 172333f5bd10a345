"""What it means when a codec, a store or the library of a file format raises something."""

from __future__ import annotations

import re

from tilenet.errors import StoreFailed, one_line

#: Errors that say nothing of the bytes: zarrs' of the system, and a machine without another thread.
OF_SYSTEM = re.compile(r"os error \d+|can't start new thread")


def is_of_system(error: BaseException | None) -> bool:
    """Tell whether an error of reading says nothing of the bytes that are stored.

    Parameters
    ----------
    error : BaseException or None

    Returns
    -------
    bool
        True when the system or an object store refused, or had no room.
    """
    if isinstance(error, StoreFailed) or getattr(error, "errno", None) is not None:
        return True
    return OF_SYSTEM.search(str(error)) is not None


def why_unreadable(error: BaseException) -> str:
    """Say in one line what a codec, a store or the library of a file format raised.

    Parameters
    ----------
    error : BaseException

    Returns
    -------
    str
        At most 200 characters, without a full stop.
    """
    text = one_line(error, None).rstrip(".") or type(error).__name__
    if isinstance(error, MemoryError):  # a damaged length, more often than a small machine
        text = f"more memory is asked for than there is ({text})"
    return one_line(text)
