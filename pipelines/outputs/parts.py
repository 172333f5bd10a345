"""Shares of a run, for array jobs without a scheduler: ``--part 17/100``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from tilenet.errors import InvalidData, OutputExists
from tilenet.geometry import Box
from tilenet.volumes.stores import is_remote

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

#: Variables in which queueing systems number the jobs of an array: the number, and, where there are
#: such, the first and the last number and the step between two.
ARRAYS = (
    tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP")),
    ("SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"),
    ("LSB_JOBINDEX", None, "LSB_JOBINDEX_END", "LSB_JOBINDEX_STEP"),
    ("PBS_ARRAY_INDEX", None, None, None),
    ("PBS_ARRAYID", None, None, None),
)


@dataclass(frozen=True)
class Part:
    """One of several calls that share a run.

    Parameters
    ----------
    number, count : int
        Which, from 1, and how many there are.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def share_of(boxes: Sequence[Box], part: Part | None) -> Sequence[Box]:
    """Give a call's blocks: all, or every so manieth.

    Neighbours cost alike, and what an earlier run did is shared out too.
    """
    if part is None:
        return boxes
    return [boxes[i] for i in range(part.number - 1, len(boxes), part.count)]


def check_part(
    part: Part | None, output: str, *, begun: bool, first_pass: bool, overwrite: bool
) -> None:
    """Refuse a part that would replace what others have stored, or begin what is part 1's to begin.

    ``begun``: the output is there, and blocks may be stored; ``first_pass``: a pass over the whole
    volume comes before.
    """
    if part is None:
        return
    if overwrite:
        cure = "Remove the output first, or leave out --overwrite."
        raise InvalidData(f"--part {part}", "would replace what other parts have stored", cure)
    if begun or part.number == 1 or not (first_pass or is_remote(output)):
        return
    why = "a first pass is over the whole volume" if first_pass else "it cannot appear at once"
    problem = f"{output} is not begun, and {why}, so that is for part 1 alone"
    cure = f"Run part 1/{part.count} first, and the others when it stores blocks."
    raise InvalidData(f"--part {part}", problem, cure)


def with_others(run: Callable[[], T], part: Part | None) -> T:
    """Run something that creates an output which other parts may create at the same time.

    Parameters
    ----------
    run : callable
        Creates the output, or goes on with one that was begun.
    part : Part or None

    Returns
    -------
    object
        What ``run`` returns.
    """
    try:
        return run()
    except OutputExists:
        if part is None:
            raise
    # Another part was sooner: go on with what it has created, under its plan.
    return run()


def read_part(text: str, variables: Mapping[str, str]) -> Part:
    """Read which part is meant: "17/100", "auto" (the place in an array job) or "auto/100"."""
    match = re.fullmatch(r"(\d+|auto)/(\d+)", text)
    if match is None and text != "auto":
        raise ValueError(f"{text!r} is not a part such as 17/100, auto or auto/100")
    if match is None:
        part = _of_array(variables)
    elif match[1] == "auto":
        part = Part(int(_array(variables)[0]), int(match[2]))
    else:
        part = Part(int(match[1]), int(match[2]))
    if not 1 <= part.number <= part.count:
        raise ValueError(f"{text!r} is part {part}: parts are numbered from 1 to their count")
    return part


def _array(variables: Mapping[str, str]) -> tuple[str, str | None, str | None, str | None]:
    for names in ARRAYS:
        number = variables.get(names[0], "")
        if number.isdigit() and (number != "0" or names[0] != "LSB_JOBINDEX"):
            first, last, step = (variables.get(name) if name else None for name in names[1:])
            return number, first, last, step
    raise ValueError("'auto' is for jobs of an array, and nothing here says that this is one")


def _of_array(variables: Mapping[str, str]) -> Part:
    number, first, last, step = _array(variables)
    if last is None:
        raise ValueError("'auto' needs the number of parts here: auto/100")
    begin, stride = int(first or 1), int(step or 1)
    place, rest = divmod(int(number) - begin, stride)
    count = (int(last) - begin) // stride + 1
    given = int(variables.get("SLURM_ARRAY_TASK_COUNT", count))
    if rest or count != given:
        raise ValueError("'auto' needs the number of parts where an array has gaps: auto/100")
    return Part(place + 1, count)


def _read(ctx: click.Context, param: click.Parameter, value: str | None) -> Part | None:
    try:
        return None if value is None else read_part(value, os.environ)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def part_option(function: F) -> F:
    """Add the option ``--part``.

    Parameters
    ----------
    function : callable
        A command that takes ``part``.

    Returns
    -------
    callable
        The command.
    """
    return click.option(
        "--part", callback=_read,
        help="Compute this share of the blocks only: 17/100, or auto in an array job. A call "
        "without it checks all, and finishes.",
    )(function)  # fmt: skip
