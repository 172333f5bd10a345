"""Object stores and web servers, through obstore: retries, time-outs, and what went wrong.

An object appears whole or not at all: a PUT is atomic, and the parts of an upload in parts are no
object until it is completed. Credentials come from the environment, or a profile, of the process
that opens a store; a store that is sent to another process travels as its location.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from tilenet.aws_profile import profile_settings
from tilenet.errors import InvalidData, UnreadableVolume
from tilenet.store_errors import explained
from tilenet.urls import refuse_secrets

#: What obstore speaks; everything else is fsspec's.
S3 = ("s3", "s3a")
WEB = ("http", "https")
SCHEMES = (*S3, *WEB, "gs", "az", "azure", "adl", "abfs", "abfss")

#: Beginnings of the environment variables that obstore reads.
ENVIRONMENT = ("AWS_", "AZURE_", "GOOGLE_")

#: Environment variable: seconds that a request may go without an answer, and that requests which
#: fail for no fault of theirs are repeated. The default outlasts a restart of a server.
TIMEOUT, TIMEOUT_SECONDS = "TILENET_STORE_TIMEOUT", 60.0

#: Seconds between two attempts at most; obstore's 15 would leave a server unused that is back.
LONGEST_PAUSE = 5.0

#: Prefixes that are listed at the same time. A page holds 1000 keys, and pages of one prefix come
#: one after another: a million keys under one would be 1000 round trips.
PARALLEL = 32


def scheme_of(location: str) -> str:
    """Give the scheme of a URL.

    Parameters
    ----------
    location : str
        A URL.

    Returns
    -------
    str
        In lower case, such as "s3".
    """
    return location.partition("://")[0].lower()


def store_seconds() -> float:
    """Read how long a store may fail or stay silent.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    InvalidData
        When the environment variable is not a positive number.
    """
    text = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(text) if text else TIMEOUT_SECONDS
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        problem = f"is {text!r}, which is no number of seconds"
        raise InvalidData(TIMEOUT, problem, f"Give a positive one, such as {TIMEOUT_SECONDS:g}.")
    return seconds


def open_store(location: str, read_only: bool) -> RemoteStore:
    """Open an object store or a folder of a web server; nothing is asked of it yet.

    Parameters
    ----------
    location : str
        URL of one of :data:`SCHEMES`.
    read_only : bool
        Whether writing is refused.

    Returns
    -------
    RemoteStore
        Its keys are below the location.

    Raises
    ------
    UnreadableVolume
        When the client library is missing, or the URL or the settings make no sense to it.
    InvalidData
        When a setting cannot be what it should.
    """
    config = _s3_settings() if scheme_of(location) in S3 else {}
    given = [item for item in os.environ.items() if item[0].startswith(ENVIRONMENT)]
    settings = frozenset(config.items()), frozenset(given)
    with explained(location):
        client = _client(location, store_seconds(), *settings)
    return RemoteStore(client, location=location, read_only=read_only)


# A client keeps its connections, and a volume is opened anew for every block that is stored. The
# environment is part of what it was made of.
@functools.lru_cache(maxsize=16)
def _client(
    location: str, seconds: float, config: frozenset[tuple[str, str]], _: frozenset[tuple[str, str]]
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
    more = {"config": dict(config)} if config else {}
    try:
        return make.from_url(location, client_options=options, retry_config=retry, **more)
    except ValueError as error:
        cure = "Give a URL such as s3://bucket/em.zarr"
        raise UnreadableVolume(location, f"is no such URL: {error}", cure) from None


def _s3_settings() -> dict[str, str]:
    found = profile_settings(os.environ)
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        found.setdefault("endpoint", os.environ.get(variable, "")) or found.pop("endpoint")
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


class RemoteStore(ObjectStore[Any]):
    """An object store whose errors say what is wrong, and hold no secret.

    Parameters
    ----------
    store : obstore.store.ObjectStore
        The client.
    location : str
        URL that it was opened by.
    read_only : bool
        Whether writing is refused.
    """

    def __init__(self, store: Any, *, location: str, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self.location = location

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the client, which holds credentials: they would travel through a scheduler.
        return open_store, (self.location, self.read_only)

    def with_read_only(self, read_only: bool = False) -> RemoteStore:
        """Give the same store with another right to write.

        Parameters
        ----------
        read_only : bool
            Whether writing is refused.

        Returns
        -------
        RemoteStore
            The store.
        """
        return RemoteStore(self.store, location=self.location, read_only=read_only)

    @property
    def can_list(self) -> bool:
        """Whether the keys below a prefix can be asked for; web servers know no such question."""
        return scheme_of(self.location) not in WEB

    # -- what Zarr calls ------------------------------------------------------------------------

    async def get(  # noqa: D102  documented by Zarr, as are the next ones
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        with explained(self.location):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(  # noqa: D102
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        with explained(self.location):
            return await super().get_partial_values(prototype, key_ranges)

    async def exists(self, key: str) -> bool:  # noqa: D102
        with explained(self.location):
            return await super().exists(key)

    async def getsize(self, key: str) -> int:  # noqa: D102
        with explained(self.location):
            return await super().getsize(key)

    async def set(self, key: str, value: Buffer) -> None:  # noqa: D102
        with explained(self.location):
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:  # noqa: D102
        with explained(self.location):
            await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:  # noqa: D102
        with explained(self.location):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:  # noqa: D102
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        await self.remove(sorted(await self.keys(folder)))

    async def _list(self, prefix: str | None = None) -> AsyncGenerator[Any, None]:
        with explained(self.location):
            async for found in super()._list(prefix):
                yield found

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:  # noqa: D102
        with explained(self.location):
            async for found in super().list_dir(prefix):
                yield found

    # -- what Zarr has no call for ----------------------------------------------------------------

    async def keys(self, prefix: str) -> set[str]:
        """List all keys below a prefix, many folders at the same time.

        Parameters
        ----------
        prefix : str
            Ends in a slash, or is empty.

        Returns
        -------
        set of str
            Relative to the store.
        """
        import obstore

        found, folders = set[str](), [prefix]
        turn = asyncio.Semaphore(PARALLEL)

        async def look(folder: str) -> Any:
            async with turn:
                return await obstore.list_with_delimiter_async(self.store, folder)

        async def collect(folder: str) -> Sequence[Any]:
            async with turn:
                return await obstore.list(self.store, folder).collect_async()

        with explained(self.location):
            while folders and len(folders) < PARALLEL:
                answers = await asyncio.gather(*map(look, folders))
                found.update(entry["path"] for answer in answers for entry in answer["objects"])
                folders = [f"{path}/" for answer in answers for path in answer["common_prefixes"]]
            for below in await asyncio.gather(*map(collect, folders)):
                found.update(entry["path"] for entry in below)
        return found

    async def remove(self, keys: Sequence[str]) -> None:
        """Remove keys, many by one request.

        Parameters
        ----------
        keys : sequence of str
            Relative to the store.
        """
        import obstore

        self._check_writable()
        with explained(self.location):
            await obstore.delete_async(self.store, list(keys))

    async def create(self, key: str, value: bytes) -> bool:
        """Store a key unless it is there, so that of several writers one succeeds.

        Parameters
        ----------
        key : str
            Relative to the store.
        value : bytes
            Its content.

        Returns
        -------
        bool
            False when it is there.
        """
        import obstore

        self._check_writable()
        with explained(self.location):
            try:
                await obstore.put_async(self.store, key, value, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return False
            except (NotImplementedError, obstore.exceptions.NotSupportedError):
                await obstore.put_async(self.store, key, value)  # AWS_CONDITIONAL_PUT=disabled
        return True
