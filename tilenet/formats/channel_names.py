"""Names of channels: those that a file states, and those of channels without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tifffile


def channel_names(count: int | None, stated: Sequence[str]) -> tuple[str, ...] | None:
    """Name the channels that are read; None where the volume is seen as (z, y, x)."""
    if count is None:
        return None
    # Names that do not fit are of something else, or incomplete.
    fitting = all(stated) and len(stated) == len(set(stated)) == count
    return tuple(stated) if fitting else tuple(f"channel {i}" for i in range(count))


def tiff_channel_names(file: tifffile.TiffFile) -> tuple[str, ...]:
    """Read what OME metadata call the channels of the one image of a file."""
    try:
        pixels = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]["Pixels"]
        channels = pixels["Channel"]
        listed = [channels] if isinstance(channels, Mapping) else list(channels)
        return tuple(str(channel.get("Name", "")) for channel in listed)
    except Exception:  # damaged metadata, of which the names are the least
        return ()
