"""Sizes, durations and addresses as a user writes them."""

from __future__ import annotations

import re
from typing import Any

from dask.utils import parse_bytes

#: The last port that there is.
MOST_PORTS = 65535


def read_bytes(value: Any) -> int:
    """Read a number of bytes; ValueError when it is none, or not positive.

    Parameters
    ----------
    value : str or int
        For example "8GB" or "512MiB".

    Returns
    -------
    int
        Bytes.
    """
    try:
        count = int(parse_bytes(value))
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{value!r} is not a size such as 8GB or 512MiB") from error
    if count <= 0:
        raise ValueError(f"{value!r} is not positive")
    return count


def read_seconds(value: Any) -> int:
    """Read a duration; ValueError when it is none, not positive, or without a unit.

    Queueing systems disagree on what a bare number is.

    Parameters
    ----------
    value : str
        "12:00:00" (hours, minutes, seconds), "2-12:00:00" (with days), or with a unit (s, min, h,
        d): "90min".

    Returns
    -------
    int
        Seconds.
    """
    text = str(value).strip()
    if match := re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", text):
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    elif match := re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*(s|min|h|d)", text):
        seconds = int(float(match[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[match[2]])
    else:
        raise ValueError(f"{text!r} is not a duration such as 12:00:00, 2-00:00:00 or 90min")
    if seconds <= 0:
        raise ValueError(f"{text!r} is not positive")
    return seconds


def read_address(value: Any) -> str:
    """Read where to listen; ValueError when it is no address.

    Parameters
    ----------
    value : str
        "HOST:PORT"; port 0 is any that is free.

    Returns
    -------
    str
        The same.
    """
    match = re.fullmatch(r"[^\s:/\[\]]+:(\d{1,5})", str(value))
    if match is None or int(match[1]) > MOST_PORTS:
        raise ValueError(f"{value!r} is not an address such as 127.0.0.1:8787")
    return str(value)
