"""URLs carry no credentials: those that do are refused, and never shown whole.

Settings that cannot be sent are refused here too.
"""

from __future__ import annotations

import re

from tilenet.errors import InvalidData

#: Their "user" is a container: abfs://container@account.dfs.core.windows.net/em.zarr.
_CONTAINER_FIRST = ("abfs", "abfss")

#: A password may hold slashes; what looks like one after a port does not count.
_USER = r"[^\s/?#@'\"]*|[^\s/?#@:'\"]*:(?!\d+/)[^\s@'\"]*"
_URL = re.compile(rf"\b([a-z][a-z0-9+.-]*)://(?:({_USER})@)?([^\s?'\"]*)(\?[^\s'\"]*)?", re.I)

_LEADING_USER = re.compile(r"[^/?#@:]*(?::(?!\d+/)[^@]*)?@")


def redact(text: str) -> str:
    """Take user names, passwords and query strings out of the URLs in a text.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
        With URLs that may be shown.
    """
    return _URL.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    scheme, user, rest, _ = match.groups()
    kept = f"{user}@" if user is not None and _is_container(scheme, user) else ""
    return f"{scheme}://{kept}{rest}"


def _is_container(scheme: str, user: str) -> bool:
    return scheme.lower() in _CONTAINER_FIRST and ":" not in user


def refuse_secrets(url: str, what: str = "URL") -> None:
    """Refuse a URL that carries what must be in the environment, without showing it."""
    scheme, _, rest = url.partition("://")
    match = _LEADING_USER.match(rest)
    shown = f"{scheme}://{rest.rpartition('@')[2] if match else rest}".partition("?")[0]
    if match is not None and not _is_container(scheme, match[0]):
        problem = "holds a user name or a password, which would be seen by others"
    elif "?" in rest:
        problem = "holds a query string, which would be seen by others and cannot hold for all keys"
    else:
        return
    cure = "Leave it out: credentials come from the environment or a profile (see the README)"
    raise InvalidData(f"{what} {shown}", problem, f"{cure}.")


def refuse_control_characters(value: str, what: str) -> None:
    """Refuse, unshown, a setting that cannot be sent to a store: a key with the line's end."""
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        problem = "holds a line break or another control character"
        raise InvalidData(what, problem, "Set it without, as by $(cat FILE) in a shell.")
