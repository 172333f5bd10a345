"""Object stores and web servers as stores of Zarr.

An object appears whole or not at all: a PUT is atomic, and the parts of an upload in parts are no
object until it is completed. A store that is sent to another process travels as its location.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Container, Iterable, Iterator, Sequence
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.storage import ObjectStore

from tilenet.errors import StoreFailed
from tilenet.volumes.stores.remote_client import WEB, make_client, scheme_of
from tilenet.volumes.stores.remote_errors import NO_BUCKET, explained
from tilenet.volumes.stores.zarr_names import (
    Buffer,
    BufferPrototype,
    check_writable,
    default_buffer_prototype,
    sync,
)

#: Prefixes that are listed at the same time. A page holds 1000 keys, and pages of one prefix come
#: one after another: a million keys under one would be 1000 round trips.
PARALLEL = 32

#: Keys of a page: as many as a server gives.
PAGE = 1000

#: Names that are taken from a listing at a time: each time Zarr's thread is asked.
TAKEN = 10_000


def open_store(location: str, read_only: bool) -> RemoteStore:
    """Open an object store or a folder of a web server; nothing is asked of it yet."""
    return RemoteStore(make_client(location), location=location, read_only=read_only)


def in_turn(names: AsyncIterator[str]) -> Iterator[str]:
    """Go through what a store lists, while it does.

    Parameters
    ----------
    names : async iterator of str

    Yields
    ------
    str
        Each name.
    """
    while found := sync(_some(names)):
        yield from found


async def _some(names: AsyncIterator[str]) -> list[str]:
    found = list[str]()
    async for name in names:
        found.append(name)
        if len(found) == TAKEN:
            break
    return found


class _Explained(ObjectStore[Any]):
    # What Zarr calls, with errors that people understand.

    location: str

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        with explained(self.location):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        with explained(self.location):
            return await super().get_partial_values(prototype, key_ranges)

    async def exists(self, key: str) -> bool:
        with explained(self.location):
            return await super().exists(key)

    async def getsize(self, key: str) -> int:
        with explained(self.location):
            return await super().getsize(key)

    async def set(self, key: str, value: Buffer) -> None:
        with explained(self.location):
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        with explained(self.location):
            await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        with explained(self.location):
            await super().delete(key)

    async def _list(self, prefix: str | None = None) -> AsyncGenerator[Any, None]:
        self._check_lists()
        with explained(self.location):
            async for found in super()._list(prefix):
                yield found

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        self._check_lists()
        with explained(self.location):
            async for found in super().list_dir(prefix):
                yield found

    def _check_lists(self) -> None:
        # Before it is asked in a way that some servers answer as if they were out of order.
        if scheme_of(self.location) in WEB:
            problem = "lies on a web server, which cannot be asked what it holds"
            cure = "Give the path of one image or array, not of what holds several"
            raise StoreFailed(self.location, problem, cure)


class RemoteStore(_Explained):
    """An object store whose errors say what is wrong, and hold no secret.

    Parameters
    ----------
    store : obstore.store.ObjectStore
    location : str, URL
    read_only : bool
    """

    def __init__(self, store: Any, *, location: str, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self.location = location

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the client, which holds credentials: they would travel through a scheduler.
        return open_store, (self.location, self.read_only)

    def with_read_only(self, read_only: bool = False) -> RemoteStore:
        return RemoteStore(self.store, location=self.location, read_only=read_only)

    @property
    def can_list(self) -> bool:
        """Whether the keys below a prefix can be asked for; web servers know no such question."""
        return scheme_of(self.location) not in WEB

    async def delete_dir(self, prefix: str) -> None:
        """Remove all keys below a folder."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        await self.remove(sorted([key async for key in self.list_prefix(folder)]))

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """List all keys below a prefix."""
        async for entry in self.entries(prefix):
            yield entry["path"]

    async def entries(self, prefix: str) -> AsyncGenerator[Any, None]:
        """List all objects below a prefix, many folders at the same time.

        What is held at a time is a page of each: an entry takes 0.6 kB. The prefix ends in a
        slash or is empty; the entries come in no order.
        """
        import obstore

        folders, streams = [prefix], list[Any]()
        with explained(self.location):
            while folders and len(folders) < PARALLEL:
                looks = (obstore.list_with_delimiter_async(self.store, each) for each in folders)
                answers = await asyncio.gather(*looks)
                folders = [f"{path}/" for answer in answers for path in answer["common_prefixes"]]
                for entry in itertools.chain.from_iterable(each["objects"] for each in answers):
                    yield entry
            while folders or streams:
                while folders and len(streams) < PARALLEL:
                    streams.append(obstore.list(self.store, folders.pop(), chunk_size=PAGE))
                pages = await asyncio.gather(*map(_page, streams))
                for entry in itertools.chain.from_iterable(pages):
                    yield entry
                streams = [each for each, page in zip(streams, pages, strict=True) if page]

    async def some(self, prefix: str, most: int) -> list[str]:
        """List no more than so many keys below a prefix."""
        found = list[str]()
        async for entry in self._list(prefix):
            found.append(entry["path"])
            if len(found) == most:
                break
        return found

    async def holds_other_than(self, known: Container[str]) -> bool:
        """Tell whether anything is stored here, beside some keys.

        Empty objects do not count: some stores and tools keep folders as such, and go on showing
        them when all in them is gone.
        """
        async for entry in self._list():
            if entry["size"] and entry["path"] not in known:
                return True
        return False

    async def remove(self, keys: Sequence[str]) -> None:
        """Remove keys, many by one request."""
        import obstore

        check_writable(self)
        with explained(self.location):
            await obstore.delete_async(self.store, list(keys))

    async def create(self, key: str, value: bytes) -> bool:
        """Store a key, or give False where it is there: of several writers one succeeds."""
        import obstore

        check_writable(self)
        with explained(self.location):
            try:
                await obstore.put_async(self.store, key, value, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return False
            except (NotImplementedError, obstore.exceptions.NotSupportedError):
                await obstore.put_async(self.store, key, value)  # AWS_CONDITIONAL_PUT=disabled
        return True

    async def tagged(self, key: str) -> tuple[bytes | None, str | None]:
        """Read a key, and what tells this content from another."""
        import obstore

        with explained(self.location):
            try:
                found = await obstore.get_async(self.store, key)
            except FileNotFoundError as error:
                if any(code in str(error) for code in NO_BUCKET):
                    raise
                return None, None
            return bytes(await found.bytes_async()), found.meta["e_tag"]

    async def replace(self, key: str, value: bytes, tag: str | None) -> bool:
        """Store a key anew, or give False where it is no longer what was read."""
        import obstore

        check_writable(self)
        with explained(self.location):
            try:
                await obstore.put_async(
                    self.store, key, value, mode={"e_tag": tag} if tag else None
                )
            except (FileNotFoundError, obstore.exceptions.PreconditionError):
                return False
            except (NotImplementedError, obstore.exceptions.NotSupportedError):
                await obstore.put_async(self.store, key, value)  # AWS_CONDITIONAL_PUT=disabled
        return True

    async def content(self, key: str) -> bytes | None:
        """Read a key."""
        found = await self.get(key, default_buffer_prototype())
        return None if found is None else found.to_bytes()


async def _page(stream: Any) -> Sequence[Any]:
    # Empty at the end. (anext with a default takes no stream of obstore's.)
    async for page in stream:
        return page  # type: ignore[no-any-return]
    return ()
