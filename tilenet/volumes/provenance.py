"""What determines an output's values, stored with it and compared before a resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tilenet.errors import ResumeRefused
from tilenet.networks import EXPLAINING, UNSTATED, explained

#: Attribute that tells volumes apart that lay at one path in turn; it determines no value.
CREATION = "creation"

#: Where the facts of a prediction are.
PLAN = "numeric_plan."


def refuse_if_different(path: str, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with an output that was begun under something else.

    Facts that an older version did not state are unknown, and differ from nothing; those that only
    explain others (:data:`tilenet.networks.EXPLAINING`) are not compared.

    Parameters
    ----------
    path : str, path or URL of the output
    stored, now : mapping
        Provenance stored with the output, and of this run; JSON values, possibly nested.

    Raises
    ------
    ResumeRefused
        Naming every field that differs.
    """
    stored, now = ({k: v for k, v in side.items() if k != CREATION} for side in (stored, now))
    left_out = {*EXPLAINING, *unstated(stored, now)}
    differences = {
        name: pair
        for name, pair in _differences(stored, now, "")
        if name.removeprefix(PLAN) not in left_out
    }
    if differences:
        other_bits = f"{PLAN}digest" in differences
        why = explained(_facts(now), _facts(stored)) if other_bits else []
        raise ResumeRefused(path, differences, why)


def unstated(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the facts that an output of an older version does not state.

    Parameters
    ----------
    stored, now : mapping
        As :func:`refuse_if_different` takes them.

    Returns
    -------
    list of str
        Some of :data:`tilenet.networks.UNSTATED`.
    """
    before, after = _facts(stored), _facts(now)
    return [name for name in UNSTATED if name in after and name not in before]


def _facts(stated: Mapping[str, Any]) -> Mapping[str, Any]:
    # A prediction states them with its numeric plan.
    plan = stated.get(PLAN.rstrip("."))
    return plan if isinstance(plan, Mapping) else stated


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
