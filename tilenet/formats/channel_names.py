"""Names of channels: those that a file states, and those of channels without one."""

from __future__ import annotations

from collections.abc import Sequence


def channel_names(count: int | None, stated: Sequence[str]) -> tuple[str, ...] | None:
    """Name the channels that are read; None where the volume is seen as (z, y, x)."""
    if count is None:
        return None
    # Names that do not fit are of something else, or incomplete.
    fitting = all(stated) and len(stated) == len(set(stated)) == count
    return tuple(stated) if fitting else tuple(f"channel {i}" for i in range(count))
