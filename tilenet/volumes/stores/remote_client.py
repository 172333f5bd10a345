"""Clients of object stores and web servers: settings, credentials, time-outs and retries.

Credentials come from the environment, or a profile, of the process that makes a client.
"""

from __future__ import annotations

import functools
import math
import os
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from tilenet.errors import InvalidData, UnreadableVolume
from tilenet.volumes.stores.aws_profile import FileKeys, profile_settings
from tilenet.volumes.stores.remote_errors import explained
from tilenet.volumes.stores.urls import refuse_control_characters, refuse_secrets

#: What obstore speaks; everything else is fsspec's.
S3 = ("s3", "s3a")
WEB = ("http", "https")
SCHEMES = (*S3, *WEB, "gs", "az", "azure", "adl", "abfs", "abfss")

#: Beginnings of the environment variables that obstore reads.
ENVIRONMENT = ("AWS_", "AZURE_", "GOOGLE_")

#: Those of them that hold a text of several lines.
INLINE = ("GOOGLE_SERVICE_ACCOUNT_KEY",)

#: What a client asks for anew now and then, where it stands in files.
SECRETS = ("access_key_id", "secret_access_key", "session_token")

#: Environment variable: seconds that a request may go without an answer, and that requests which
#: fail for no fault of theirs are repeated. The default outlasts a restart of a server.
TIMEOUT, TIMEOUT_SECONDS = "TILENET_STORE_TIMEOUT", 60.0

#: Seconds between two attempts at most; obstore's 15 would leave a server unused that is back.
LONGEST_PAUSE = 5.0


def scheme_of(location: str) -> str:
    """Give the scheme of a URL.

    Parameters
    ----------
    location : str

    Returns
    -------
    str
        In lower case, such as "s3".
    """
    return location.partition("://")[0].lower()


def store_seconds() -> float:
    """Read how long a store may fail or stay silent."""
    text = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(text) if text else TIMEOUT_SECONDS
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        problem = f"is {text!r}, which is no number of seconds"
        raise InvalidData(TIMEOUT, problem, f"Give a positive one, such as {TIMEOUT_SECONDS:g}.")
    return seconds


def make_client(location: str) -> Any:
    """Make the client of an object store or of a folder of a web server; nothing is asked yet."""
    given = [item for item in os.environ.items() if item[0].startswith(ENVIRONMENT)]
    for name, value in given:
        if name not in INLINE:
            refuse_control_characters(value, name)
    config = _s3_settings() if scheme_of(location) in S3 else {}
    in_files = "access_key_id" in config
    config = {name: value for name, value in config.items() if name not in SECRETS}
    with explained(location):
        return _client(
            location, store_seconds(), frozenset(config.items()), frozenset(given), in_files
        )


# A client keeps its connections, and a volume is opened anew for every block that is stored. The
# environment is part of what it was made of.
@functools.lru_cache(maxsize=16)
def _client(
    location: str,
    seconds: float,
    config: frozenset[tuple[str, str]],
    _: frozenset[tuple[str, str]],
    keys_in_files: bool,
) -> Any:
    try:
        import obstore.store
    except ImportError as error:
        cure = "Install the client library: pip install 'tilenet[remote]'"
        raise UnreadableVolume(location, f"needs a client library ({error})", cure) from None
    web, wait = scheme_of(location) in WEB, timedelta(seconds=seconds)
    # obstore wants a word before it sends anything unencrypted. The user gave it: the URL.
    address = location if web else dict(config).get("endpoint", "")
    options = {
        "allow_http": address.lower().startswith("http://"),
        "connect_timeout": min(timedelta(seconds=10), wait),
        "read_timeout": wait,
        "timeout": 60 * wait,  # of a whole transfer: what stands still ends much sooner
    }
    pause = {"max_backoff": min(timedelta(seconds=LONGEST_PAUSE), wait)}
    retry = {"max_retries": 10**6, "retry_timeout": wait, "backoff": pause}
    make: Any = obstore.store.HTTPStore if web else obstore.store
    more: dict[str, Any] = {"config": dict(config)} if config else {}
    if keys_in_files:
        more["credential_provider"] = FileKeys()
    try:
        return make.from_url(location, client_options=options, retry_config=retry, **more)
    except ValueError as error:
        cure = "Give a URL such as s3://bucket/em.zarr"
        raise UnreadableVolume(location, f"is no such URL: {error}", cure) from None


def _s3_settings() -> dict[str, str]:
    found = profile_settings(os.environ)
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        if "endpoint" not in found and os.environ.get(variable):
            found["endpoint"] = os.environ[variable]
    if "endpoint" in found:
        _check_endpoint(found["endpoint"])
    return found


def _check_endpoint(endpoint: str) -> None:
    # obstore panics at an address without a scheme.
    refuse_secrets(endpoint, "AWS_ENDPOINT_URL")
    parts = urlsplit(endpoint)
    if parts.scheme not in WEB or not parts.hostname:
        problem = "is no address of a store"
        cure = "Give it with its scheme, such as https://s3.example.org or http://127.0.0.1:9000."
        raise InvalidData(f"AWS_ENDPOINT_URL {endpoint}", problem, cure)
