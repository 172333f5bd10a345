"""Strict TOML: what is unknown or impossible is named, with what may be meant."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tilenet.errors import TilenetError

M = TypeVar("M", bound=BaseModel)

#: Makes the error out of where the values come from and what is wrong with them.
Refusal = Callable[[str, Sequence[str]], TilenetError]


def validate(model: type[M], values: Mapping[str, Any], where: str, refusal: Refusal) -> M:
    """Check values against what is known, naming every unknown key (and the nearest) or bad value.

    Parameters
    ----------
    model : type
        Its fields are the known keys; its documentation says what they mean.
    values : mapping
        Keys, and tables of keys, as TOML has them.
    where : str
        Where they come from, for the message.
    refusal : callable

    Returns
    -------
    BaseModel
        What is left out has its default.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = (_problem(model, e["loc"], e["msg"], e["input"]) for e in error.errors())
        raise refusal(where, tuple(problems)) from error


def brief(text: str) -> str:
    """Shorten what would fill the screen, in the middle.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
        At most 300 characters.
    """
    return text if len(text) <= 300 else f"{text[:150]} ... {text[-145:]}"


def _problem(model: type[BaseModel], place: Sequence[int | str], message: str, value: Any) -> str:
    name = brief(".".join(map(str, place)))
    message = message.removeprefix("Value error, ")
    if not name:  # said of several keys at once
        return message
    if "Extra inputs" not in message:
        return f"{name} = {brief(repr(value))}: {message[:1].lower()}{message[1:]}"
    part: Any = model if len(place) == 1 else model.model_fields[str(place[0])].annotation
    known = list(part.model_fields)
    near = difflib.get_close_matches(str(place[-1]), known, n=1)
    hint = f"did you mean {near[0]}" if near else f"known are {', '.join(known)}"
    return f"{name}: unknown key; {hint}"


def load(path: str | Path, refusal: Refusal) -> dict[str, Any]:
    """Read a file of TOML.

    Parameters
    ----------
    path : str or pathlib.Path
    refusal : callable

    Returns
    -------
    dict
        Values, and tables, by name.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise refusal(str(path), (error.strerror or str(error),)) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # numbers of thousands of digits, tables in tables
        raise refusal(str(path), (brief(f"is not TOML: {error}"),)) from error
