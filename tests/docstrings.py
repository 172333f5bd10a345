"""Check the docstrings of everything public against numpydoc: ``python -m tests.docstrings``.

numpydoc's own command reads the source and takes a dataclass for a class without parameters; this
imports the modules, so that it sees the real signatures.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
from numpydoc.validate import validate

import pipelines
import tilenet
from tilenet import errors


def public_names() -> Iterator[str]:
    """Yield the dotted names of public modules, classes, functions and methods."""
    for package in (tilenet, pipelines):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if any(part.startswith("_") for part in info.name.split(".")):
                continue
            module = importlib.import_module(info.name)
            if any(_members(module)):  # numpydoc looks for a definition
                yield info.name
            yield from _members(module)


def _members(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if name.startswith("_") or not own or isinstance(value, click.Command):
            continue  # a command's docstring is its --help
        if inspect.isclass(value):
            yield f"{module.__name__}.{name}"
            yield from (f"{module.__name__}.{name}.{method}" for method in _methods(value))
        elif inspect.isfunction(value):
            yield f"{module.__name__}.{name}"


def _methods(cls: type) -> Iterator[str]:
    if issubclass(cls, errors.TilenetError):
        return  # a message is described by its class
    for name, value in vars(cls).items():
        if not name.startswith("_") and inspect.isfunction(inspect.unwrap(value, stop=callable)):
            yield name


def problems() -> Iterator[str]:
    """Yield one line per violation of the checks that pyproject.toml lists."""
    settings = tomllib.loads(Path("pyproject.toml").read_text())
    checks = set(settings["tool"]["numpydoc_validation"]["checks"])
    for name in public_names():
        skipped = {"PR01"} if _has_foreign_signature(name) else set()
        for code, text in _errors(name):
            if code in checks - skipped:
                yield f"{name}: {code} {text}"


def _errors(name: str) -> list[tuple[str, str]]:
    try:
        errors: list[tuple[str, str]] = validate(name)["errors"]
    except StopIteration:  # numpydoc's own bug: a module that defines nothing, but re-exports
        return [] if sys.modules[name].__doc__ else [("GL08", "no docstring")]
    return errors


def _has_foreign_signature(name: str) -> bool:
    # A protocol, or a class whose __init__ is a library's; fields of errors need no words.
    module, _, attribute = name.rpartition(".")
    value = getattr(sys.modules.get(module), attribute, None)
    if not inspect.isclass(value):
        return False
    inherited = "__init__" not in vars(value) or getattr(value, "_is_protocol", False)
    return inherited or issubclass(value, errors.TilenetError)


def main() -> int:
    """Print every problem; 1 when there is any."""
    found = sorted(problems())
    print("\n".join(found) or "docstrings: no problems")  # noqa: T201
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
