"""What determines an output's values, stored with it and compared before a resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tilenet.errors import ResumeRefused

#: Attribute that tells volumes apart that lay at one path in turn; it determines no value.
CREATION = "creation"


def refuse_if_different(path: str, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with an output that was begun under something else.

    Parameters
    ----------
    path : str
        The output.
    stored, now : mapping
        Provenance stored with the output, and of this run; JSON values, possibly nested.

    Raises
    ------
    ResumeRefused
        Naming every field that differs.
    """
    stored, now = ({k: v for k, v in side.items() if k != CREATION} for side in (stored, now))
    differences = dict(_differences(stored, now, ""))
    if differences:
        raise ResumeRefused(path, differences)


def _differences(
    stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in sorted(stored.keys() | now.keys()):
        before, after = _plain(stored.get(name)), _plain(now.get(name))
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield prefix + name, (_brief(before), _brief(after))


def _brief(value: Any) -> Any:
    # A whole record would fill the screen: there is one, or there is none.
    return "given" if isinstance(value, Mapping) else value


def _plain(value: Any) -> Any:
    # JSON knows lists only.
    return list(value) if isinstance(value, tuple) else value
