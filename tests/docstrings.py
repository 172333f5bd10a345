"""Check docstrings against numpydoc: ``python -m tests.docstrings``.

Those of what the packages hand out: the names in each package's ``__init__.pyi`` and the public
names of the modules that stand alone; of the classes that ``import tilenet`` gives, the methods
too. Elsewhere a line, or none, is enough. numpydoc's own command reads the source and takes a
dataclass for a class without parameters; this imports the modules, so that it sees the real
signatures.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
from numpydoc.validate import validate

import tilenet
from tilenet import errors


def handed_out() -> Iterator[str]:
    """Yield the dotted names of the classes, functions and methods that are handed out."""
    for root in ("tilenet", "pipelines"):
        for stub in sorted(Path(root).rglob("__init__.pyi")):
            package = ".".join(stub.parent.parts)
            for node in ast.parse(stub.read_text()).body:
                if isinstance(node, ast.ImportFrom) and package != "tilenet":
                    module = f"{package}.{node.module}"
                    for alias in node.names:
                        yield from _members(module, alias.name)
        for file in sorted(Path(root).glob("[!_]*.py")):
            module = f"{root}.{file.stem}"
            for name in vars(importlib.import_module(module)):
                if not name.startswith("_"):
                    yield from _members(module, name)


def _members(module: str, name: str) -> Iterator[str]:
    value = getattr(importlib.import_module(module), name)
    if getattr(value, "__module__", None) != module or isinstance(value, click.Command):
        return  # a constant; what is imported; a command, whose docstring is its --help
    if inspect.isclass(value):
        yield f"{module}.{name}"
        if name in tilenet.__all__:
            yield from (f"{module}.{name}.{method}" for method in _methods(value))
    elif inspect.isfunction(value):
        yield f"{module}.{name}"


def _methods(cls: type) -> Iterator[str]:
    for name, value in vars(cls).items():
        if not name.startswith("_") and inspect.isfunction(inspect.unwrap(value, stop=callable)):
            yield name


def problems() -> Iterator[str]:
    """Yield one line per violation of the checks that pyproject.toml lists."""
    settings = tomllib.loads(Path("pyproject.toml").read_text())
    checks = set(settings["tool"]["numpydoc_validation"]["checks"])
    for name in handed_out():
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
