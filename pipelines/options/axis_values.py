"""Options of three values, one per axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from tilenet.geometry import AXES


class AxisValues(click.ParamType[tuple[Any, ...]]):
    """Three values along z, y and x: ``50,4,4`` or ``z=50,y=4,x=4``, in any order when named.

    ``unnamed`` is read for an axis that is not named while others are; without it all are needed.
    """

    def __init__(
        self, convert_one: Callable[[str], Any], name: str, unnamed: str | None = None
    ) -> None:
        self.convert_one = convert_one
        self.name = name
        self.unnamed = unnamed

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        parts = self._by_axis([part.strip() for part in str(value).split(",")])
        if parts is None:
            named = "z=..,y=..,x=.." if self.unnamed is None else "some of z=..,y=..,x=.."
            self.fail(f"{value!r} is not three values in z,y,x order or {named}", param, ctx)
        try:
            return tuple(self.convert_one(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r} holds something that is not a {self.name}", param, ctx)

    def _by_axis(self, parts: Sequence[str]) -> Sequence[str] | None:
        if not any("=" in part for part in parts):
            return parts if len(parts) == len(AXES) else None
        named = dict(part.split("=", 1) for part in parts if "=" in part)
        if len(named) < len(parts) or not named.keys() <= set(AXES):
            return None
        found = [named.get(axis, self.unnamed) for axis in AXES]
        return None if None in found else [part for part in found if part is not None]
