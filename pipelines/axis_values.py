"""Options of three values, one per axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from tilenet.geometry import AXES


class AxisValues(click.ParamType[tuple[Any, ...]]):
    """Three values along z, y and x: ``50,4,4`` or ``z=50,y=4,x=4``, in any order when named.

    Parameters
    ----------
    convert_one : callable
        Reads one value.
    name : str
        What a value is, for messages.
    """

    def __init__(self, convert_one: Callable[[str], Any], name: str) -> None:
        self.convert_one = convert_one
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Read the three values.

        Parameters
        ----------
        value : str or tuple
            What the user wrote, or a value read already.
        param, ctx : object
            Passed on to Click's error.

        Returns
        -------
        tuple
            Three values, (z, y, x).
        """
        if isinstance(value, tuple):
            return value
        parts = _by_axis([part.strip() for part in str(value).split(",")])
        if parts is None:
            self.fail(f"{value!r} is not three values in z,y,x order or z=..,y=..,x=..", param, ctx)
        try:
            return tuple(self.convert_one(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r} holds something that is not a {self.name}", param, ctx)


def _by_axis(parts: Sequence[str]) -> Sequence[str] | None:
    if len(parts) != 3:
        return None
    if not any("=" in part for part in parts):
        return parts
    named = dict(part.split("=", 1) for part in parts if "=" in part)
    return [named[axis] for axis in AXES] if set(named) == set(AXES) else None
