"""Recipes from strict TOML: what is unknown or impossible is named, with what may be meant."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tilenet.errors import InvalidRecipe
from tilenet.training.recipe import Recipe


def make_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Check the values of a recipe.

    Parameters
    ----------
    values : mapping
        Tables by name, as TOML has them.
    where : str
        Where they come from, for the message.

    Returns
    -------
    Recipe
        The recipe; what is left out has its default.

    Raises
    ------
    InvalidRecipe
        Naming every key that is unknown (and the nearest known one) or has an impossible value.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = tuple(_problem(e["loc"], e["msg"], e["input"]) for e in error.errors())
        raise InvalidRecipe(where, problems) from error


def _problem(place: Sequence[int | str], message: str, value: Any) -> str:
    name = ".".join(map(str, place)) or "recipe"
    message = message.removeprefix("Value error, ")
    if "Extra inputs" not in message:
        return f"{name} = {value!r}: {message[:1].lower()}{message[1:]}"
    part = Recipe if len(place) == 1 else Recipe.model_fields[str(place[0])].annotation
    known = list(part.model_fields) if part is not None else []
    near = difflib.get_close_matches(str(place[-1]), known, n=1)
    hint = f"did you mean {near[0]}" if near else f"known are {', '.join(known)}"
    return f"{name}: unknown key; {hint}"


def load_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe's values from TOML.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    dict
        Tables by name, for :func:`make_recipe`.

    Raises
    ------
    InvalidRecipe
        When the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRecipe(str(path), (error.strerror or str(error),)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRecipe(str(path), (f"is not TOML: {error}",)) from error
