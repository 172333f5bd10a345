"""The page of a run: on the dashboard where the scheduler is ours, else served by the command."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.resources
import socket
from collections.abc import Iterator
from typing import Any, Protocol

from distributed import Client
from tornado import httpserver, netutil, web

from pipelines.cluster import choose_dashboard
from pipelines.watching.metrics_text import metrics_text
from pipelines.watching.pass_state import PassState
from pipelines.watching.picture import map_png

#: Where the page lies on its server.
PAGE = "/tilenet"

#: Seconds that open connections have to end.
CLOSE_SECONDS = 5.0

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; connect-src 'self'; "
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    ),
    "X-Content-Type-Options": "nosniff",
}


class Watched(Protocol):
    """A run that has a page."""

    passes: list[PassState]

    def to_dict(self) -> dict[str, Any]: ...


class _MapOf:
    # The map of a run, drawn once for all its viewers when it has changed.

    def __init__(self, watch: Watched) -> None:
        self._watch = watch
        self._version = (-1, -1)
        self._drawn: asyncio.Future[bytes]

    async def png(self) -> bytes:
        number = len(self._watch.passes)
        state = self._watch.passes[-1] if number else PassState("", [], [])
        version = (number, state.changes)
        if version != self._version:
            # In a thread: the loop is the scheduler's too.
            self._drawn = asyncio.ensure_future(asyncio.to_thread(map_png, state))
            self._version = version
        return await asyncio.shield(self._drawn)


class _Handler(web.RequestHandler):
    def initialize(self, watch: Watched, map_: _MapOf) -> None:
        self.watch, self.map = watch, map_

    def set_default_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.set_header(name, value)


class _Page(_Handler):
    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(_page())


class _Status(_Handler):
    def get(self) -> None:
        self.finish(self.watch.to_dict())


class _Metrics(_Handler):
    def get(self) -> None:
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(metrics_text(self.watch.to_dict()))


class _Map(_Handler):
    async def get(self) -> None:
        drawn = await self.map.png()
        self.set_header("Content-Type", "image/png")
        self.finish(drawn)


@functools.cache
def _page() -> bytes:
    return importlib.resources.files(__package__).joinpath("page.html").read_bytes()


def application(watch: Watched) -> web.Application:
    known: dict[str, Any] = {"watch": watch, "map_": _MapOf(watch)}
    return web.Application(
        [
            (PAGE, _Page, known),
            (f"{PAGE}/", web.RedirectHandler, {"url": PAGE, "permanent": False}),
            (f"{PAGE}/status.json", _Status, known),
            (f"{PAGE}/map.png", _Map, known),
            (f"{PAGE}/metrics", _Metrics, known),
        ],
        log_function=lambda handler: None,
    )


@contextlib.contextmanager
def serve(watch: Watched, client: Client, dashboard: str | None) -> Iterator[str]:
    """Show the page of a run, at HOST:PORT where the scheduler is not in this process."""
    app = application(watch)
    if (server_of_dask := _own_application(client)) is not None:
        applications = server_of_dask.applications
        applications.append(app)
        try:
            yield str(client.dashboard_link).removesuffix("/status") + PAGE
        finally:
            applications.remove(app)
        return
    host, _, port = choose_dashboard(dashboard).rpartition(":")
    sockets = _bind(host, int(port))
    server = httpserver.HTTPServer(app)
    client.sync(_start, server, sockets)
    try:
        yield f"http://{host}:{sockets[0].getsockname()[1]}{PAGE}"
    finally:
        client.sync(_close, server, callback_timeout=CLOSE_SECONDS)


def dask_page(client: Client) -> str:
    """Say where Dask's own pages are: relative to ours on one server, for tunnels."""
    return str(client.dashboard_link) if _own_application(client) is None else "status"


def _own_application(client: Client) -> Any:
    # That of the scheduler, where it is in this process.
    return getattr(getattr(client.cluster, "scheduler", None), "http_application", None)


def _bind(host: str, port: int) -> list[socket.socket]:
    try:
        return netutil.bind_sockets(port, host)
    except OSError:  # somebody was sooner: another port, as Dask does
        return netutil.bind_sockets(0, host)


async def _start(server: httpserver.HTTPServer, sockets: list[socket.socket]) -> None:
    server.add_sockets(sockets)


async def _close(server: httpserver.HTTPServer) -> None:
    server.stop()
    await server.close_all_connections()
