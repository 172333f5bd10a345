"""What an object store's errors mean: the value, the place and the cure, and no secret.

A client's own messages quote answers of the server, which hold access keys and signatures, and
URLs. Of all that only error codes, host names and regions are shown.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from tilenet.errors import StoreFailed
from tilenet.urls import redact

_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_BAD_KEYS = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "TokenRefreshRequired", "InvalidSecurity", "AuthenticationFailed", "InvalidAuthenticationInfo",
    "RequestTimeTooSkewed",
)  # fmt: skip
_OTHER_REGION = (
    "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
)  # fmt: skip

#: Addresses where a cloud's machines ask for the credentials of their role.
_ROLE = ("169.254.169.254", "metadata.google.internal", "/latest/api/token")

_SETTINGS = "Check the URL and the settings of the store"
_AGAIN = "then run the same command again"

#: Where the credentials of each kind of store come from.
_NONE = "the server's rules: tilenet sends it no credentials"
_SOURCES = {
    "http": _NONE,
    "https": _NONE,
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


@contextlib.contextmanager
def explained(location: str) -> Iterator[None]:
    """Turn what obstore raises into an error for people.

    Parameters
    ----------
    location : str
        URL of the volume.

    Yields
    ------
    None
        While the store is asked.

    Raises
    ------
    StoreFailed
        For all but a key that is not there.
    """
    try:
        yield
    except FileNotFoundError as error:
        if not any(code in str(error) for code in _NO_BUCKET):
            raise
        raise explain(location, str(error)) from None
    except Exception as error:
        if not type(error).__module__.startswith("obstore"):
            raise
        raise explain(location, str(error)) from None


def explain(location: str, text: str) -> StoreFailed:
    """Say what a message of obstore means.

    Parameters
    ----------
    location : str
        URL of the volume.
    text : str
        The message.

    Returns
    -------
    StoreFailed
        Nothing of the message but codes, host and region.
    """
    code = _first(r"<Code>(\w+)</Code>|\(code: (\w+)\)", text)
    status = _first(r"status code: (\d{3})", text)
    host = urlsplit(_first(r"performing [A-Z]+ (https?://[^\s]+)", text)).netloc.rpartition("@")[2]
    named = " ".join(part for part in (status, code) if part)
    problem, cure = (
        _wrong_place(location, text, host=host, code=code, named=named, status=status)
        or _wrong_person(location, text, host=host, code=code, named=named, status=status)
        or _no_answer(text, host=host, named=named, status=status)
        or (f"the store refuses it ({named})" if named else redact(_brief(text)), _SETTINGS)
    )
    return StoreFailed(redact(location), problem, cure)


def _wrong_place(
    location: str, text: str, *, host: str, code: str, named: str, status: str
) -> tuple[str, str] | None:
    if code in _NO_BUCKET:
        cure = "Check its name and the store's address (AWS_ENDPOINT_URL), or create it"
        return f"there is no bucket {urlsplit(location).netloc!r} at {host}", cure
    if code in _OTHER_REGION or "without LOCATION" in text or status == "301":
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        right = _first(r"expecting '([\w-]+)'|<Region>([\w-]+)</Region>", text)
        stated = f"not in {region}" if region else "not in us-east-1, and no region is set"
        return f"the bucket is {stated} ({named})", f"Set AWS_REGION={right or 'REGION'}"
    return None


def _wrong_person(
    location: str, text: str, *, host: str, code: str, named: str, status: str
) -> tuple[str, str] | None:
    scheme = location.partition("://")[0].lower()
    sources = _SOURCES.get(scheme.rstrip("a") if scheme == "s3a" else scheme, _SOURCES["az"])
    if any(address in text for address in _ROLE):
        cure = f"Set {sources}; for a public bucket AWS_SKIP_SIGNATURE=true"
        return "no credentials were found, and the machine has none of its own", cure
    if code in _BAD_KEYS or status == "401":
        return f"{host} does not accept the credentials ({named})", f"Check {sources}, {_AGAIN}"
    if status == "403" or code == "AccessDenied":
        cure = f"Check {sources}; reading needs the right to list too, writing also to delete"
        return f"access is denied ({named or code})", cure
    return None


def _no_answer(text: str, *, host: str, named: str, status: str) -> tuple[str, str] | None:
    if not ("HTTP error" in text or status.startswith("5") or status in ("408", "429")):
        return None
    waited = float(_first(r" in (\d[\d.]*)s\b", text) or 0)
    what = f"answers {named} still" if status else "does not answer"
    cure = f"Check the address, the network and the server, {_AGAIN}; TILENET_STORE_TIMEOUT"
    return f"{host} {what} after {waited:.0f} s", f"{cure} sets how long to try"


def _brief(text: str) -> str:
    line = " ".join(text.partition("Debug source")[0].partition("<")[0].split())
    return line if len(line) <= 200 else line[:197] + "..."


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return next((group for group in match.groups() if group), "") if match else ""
