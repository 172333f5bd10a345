"""Recipes from strict TOML: what is unknown or impossible is named, with what may be meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilenet.errors import InvalidRecipe
from tilenet.strict_toml import load, validate
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
    return validate(Recipe, values, where, InvalidRecipe)


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
    return load(path, InvalidRecipe)
