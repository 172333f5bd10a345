"""Tables and values in words, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def table(title: str, rows: dict[str, str]) -> str:
    """Lay out names and values under a title.

    Parameters
    ----------
    title : str
    rows : dict
        Name to value.

    Returns
    -------
    str
        Lines without colour, so that they can be piped.
    """
    grid = Table(title=title, title_justify="left", show_header=False, box=None)
    for name, value in rows.items():
        grid.add_row(name, value)
    return lines(grid)


def lines(grid: Table) -> str:
    """Draw a table without colour, so that it can be piped.

    Parameters
    ----------
    grid : rich.table.Table

    Returns
    -------
    str
        Without a line's end at the end.
    """
    console = Console(width=110, color_system=None, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def words(value: Any) -> str:
    """Put a JSON value into words.

    Parameters
    ----------
    value : object
        Number, text, list, dict or None.

    Returns
    -------
    str
        For people: of a dict a line for each entry that says something, indented by depth.
    """
    if isinstance(value, dict):
        return "\n".join(_entries(value)) or "none"
    if value is None:
        return "not stated"
    if isinstance(value, list | tuple):
        nested = any(isinstance(v, list | tuple | dict) for v in value)
        return ("; " if nested else ", ").join(words(v).replace("\n", ", ") for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _entries(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield f"{name}:"
            yield from (f"  {line}" for line in _entries(value))
        elif value is not None:
            yield f"{name}: {words(value)}"
