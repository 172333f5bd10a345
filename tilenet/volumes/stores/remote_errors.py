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

from tilenet.errors import StoreFailed, one_line
from tilenet.volumes.stores.urls import redact

NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_BAD_KEYS = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "TokenRefreshRequired", "InvalidSecurity", "AuthenticationFailed", "InvalidAuthenticationInfo",
    "RequestTimeTooSkewed",
)  # fmt: skip
_OTHER_REGION = (
    "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
)  # fmt: skip

#: Seconds of the units in which the client says how long it tried.
_UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}

_AZURE_ENDPOINTS = ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")

#: Addresses where a cloud's machines ask for the credentials of their role.
_ROLE = ("169.254.169.254", "metadata.google.internal", "/latest/api/token")

#: What a panic of Rust code becomes, called at once and awaited; the first is no Exception.
_PANICS = ("PanicException", "RustPanic")

_SETTINGS = "Check the URL and the settings of the store"
_AGAIN = "then run the same command again"

#: Where the credentials of each kind of store come from.
_NONE = "the server's rules: tilenet sends it no credentials"
_AWS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_SOURCES = {
    "http": _NONE,
    "https": _NONE,
    "s3": _AWS,
    "s3a": _AWS,
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


@contextlib.contextmanager
def explained(location: str) -> Iterator[None]:
    """Turn what obstore raises, but for a key that is not there, into an error for people."""
    try:
        yield
    except FileNotFoundError as error:
        if not any(code in str(error) for code in NO_BUCKET):
            raise
        raise explain(location, str(error)) from None
    except BaseException as error:
        if type(error).__name__ in _PANICS:
            problem = "the client library failed without a reason that may be shown"
            raise StoreFailed(redact(location), problem, _SETTINGS) from None
        if not type(error).__module__.startswith("obstore"):
            raise
        raise explain(location, str(error)) from None


def explain(location: str, text: str) -> StoreFailed:
    """Say what a message of obstore means."""
    answer = _Answer(location, text)
    found = _wrong_place(answer) or _wrong_person(answer) or _no_answer(answer)
    if found is None:
        said = one_line(text.partition("Debug source")[0].partition("<")[0])
        named = answer.named
        found = f"the store refuses it ({named})" if named else redact(said), _SETTINGS
    return StoreFailed(redact(location), *found)


class _Answer:
    # What may be shown of a message.

    def __init__(self, location: str, text: str) -> None:
        self.text = text
        self.scheme, _, rest = location.partition("://")
        self.bucket = rest.partition("/")[0]
        self.code = _first(r"<Code>(\w+)</Code>|\(code: (\w+)\)", text)
        self.status = _first(r"status code: (\d{3})", text)
        self.named = " ".join(part for part in (self.status, self.code) if part)
        address = urlsplit(_first(r"performing [A-Z]+ (https?://[^\s]+)", text))
        self.host = address.netloc.rpartition("@")[2] or _azure_place() or "the store"
        self.seconds = _seconds(text)


def _azure_place() -> str:
    # Azure's URLs hold signatures, so the client shows none.
    endpoint = next(filter(None, map(os.environ.get, _AZURE_ENDPOINTS)), "")
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    host = urlsplit(endpoint).netloc.rpartition("@")[2]
    return host or (f"account {account}" if account else "")


def _seconds(text: str) -> float:
    match = re.search(r" in (\d[\d.]*)(s|ms|µs|ns)\b", text)
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


def _wrong_place(answer: _Answer) -> tuple[str, str] | None:
    if answer.code in NO_BUCKET:
        cure = "Check its name and the store's address (AWS_ENDPOINT_URL), or create it"
        return f"there is no bucket {answer.bucket!r} at {answer.host}", cure
    moved = answer.status == "301" or "without LOCATION" in answer.text
    if answer.code in _OTHER_REGION or moved:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        right = _first(r"expecting '([\w-]+)'|<Region>([\w-]+)</Region>", answer.text)
        stated = f"not in {region}" if region else "not in us-east-1, and no region is set"
        return f"the bucket is {stated} ({answer.named})", f"Set AWS_REGION={right or 'REGION'}"
    return None


def _wrong_person(answer: _Answer) -> tuple[str, str] | None:
    sources = _SOURCES.get(answer.scheme.lower(), _SOURCES["az"])
    if any(address in answer.text for address in _ROLE):
        cure = f"Set {sources}; for a public bucket AWS_SKIP_SIGNATURE=true"
        return "no credentials were found, and the machine has none of its own", cure
    if answer.code in _BAD_KEYS or answer.status == "401":
        problem = f"{answer.host} does not accept the credentials ({answer.named})"
        return problem, f"Check {sources}, {_AGAIN}"
    if answer.status == "403" or answer.code == "AccessDenied":
        cure = f"Check {sources}; reading needs the right to list too, writing also to delete"
        return f"access is denied ({answer.named})", cure
    return None


def _no_answer(answer: _Answer) -> tuple[str, str] | None:
    late = answer.status.startswith("5") or answer.status in ("408", "429")
    if not (late or "HTTP error" in answer.text):
        return None
    what = f"answers {answer.named} still" if answer.status else "does not answer"
    waited = f"{answer.seconds:.0f}" if answer.seconds >= 1 else f"{answer.seconds:.1f}"
    cure = f"Check the address, the network and the server, {_AGAIN}; TILENET_STORE_TIMEOUT"
    return f"{answer.host} {what} after {waited} s", f"{cure} sets how long to try"


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return next((group for group in match.groups() if group), "") if match else ""
