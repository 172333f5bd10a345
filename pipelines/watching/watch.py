"""One command's run, watched: its passes over blocks, its workers, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Self

import click
from distributed import Client

from pipelines.progress import Reporter, error_text, make_reporter
from pipelines.watching.page import dask_page, serve
from pipelines.watching.pass_state import PassState
from pipelines.watching.workers import list_workers, running_blocks, summarise
from tilenet._version import __version__
from tilenet.geometry import Box
from tilenet.worker import BlockReport

#: Seconds between two questions to the scheduler.
REFRESH_SECONDS = 1.0


class Watch:
    """What is known of a run.

    Parameters
    ----------
    command, output : str
        What runs, and what it writes.
    client : distributed.Client or None
        None where blocks are computed in this process.
    """

    def __init__(self, command: str, output: str, client: Client | None = None) -> None:
        self.command, self.output, self.client = command, output, client
        self.started, self.address = now_text(), ""
        self.dask = "" if client is None else dask_page(client)
        self.passes: list[PassState] = []
        self.workers: dict[str, Any] = summarise([])
        self._complained = False

    def reporter(
        self, name: str, grid: Sequence[Box], missing: Sequence[int], *, one_by_one: bool = False
    ) -> Reporter:
        """Begin a pass over blocks."""
        shown = make_reporter(name, len(grid), len(grid) - len(missing))
        state = PassState(name, grid, missing, one_by_one=one_by_one)
        self.passes.append(state)
        return _PassReporter(self, shown, state)

    def look(self) -> None:
        """Ask the scheduler for its workers, and what they compute; the run goes on without."""
        if self.client is None or self.client.status != "running":
            return
        try:
            self._ask(self.client)
        except (OSError, RuntimeError, asyncio.CancelledError):
            # The scheduler does not answer. The run finds that out by itself and says so; the page
            # goes on with what it knew.
            return
        except Exception as error:
            if not self._complained and self.client.status == "running":
                self._complained = True
                click.echo(f"The page shows no workers: {error_text(error)}", err=True)

    def _ask(self, client: Client) -> None:
        workers = list_workers(client)
        self.workers = summarise(workers)
        if self.passes:
            running = running_blocks(workers)
            self.passes[-1].see(self.workers["count"], self.workers["slots"], running)

    def to_dict(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "output": self.output,
            "tilenet": __version__,
            "started": self.started,
            "dask": self.dask,
            "workers": self.workers,
            **(self.passes[-1] if self.passes else PassState("Starting", [], [])).to_dict(),
        }


class _PassReporter:
    # Tells the terminal and the state of a pass what is reported.

    def __init__(self, watch: Watch, shown: Reporter, state: PassState) -> None:
        self._watch, self._shown, self._state = watch, shown, state

    def __enter__(self) -> Self:
        self._watch.look()
        self._shown.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._state.finish()
        self._shown.__exit__(*error)

    def advance(self, box: Box, result: BlockReport | str) -> None:
        self._state.advance(box, result)
        self._shown.advance(box, result)

    def retry(self, box: Box, problem: str, *, noted: bool = False) -> None:
        self._state.retry(box, problem)
        self._shown.retry(box, problem, noted=noted)

    def note(self, text: str) -> None:
        self._state.note(text)
        self._shown.note(text)


@contextlib.contextmanager
def open_watch(
    command: str, output: str, client: Client | None, dashboard: str | None = None
) -> Iterator[Watch]:
    """Watch a run, and show it on a page until the context is left.

    Parameters
    ----------
    command, output : str
        What runs, and what it writes.
    client : distributed.Client or None
        None where blocks are computed in this process, which is soon over.
    dashboard : str, optional
        Where to listen, HOST:PORT, when the scheduler is not in this process.

    Yields
    ------
    Watch
        The run.
    """
    watch = Watch(command, output, client)
    if client is None:
        yield watch
        return
    with serve(watch, client, dashboard) as watch.address, _polling_workers(watch):
        click.echo(f"Dashboard: {watch.address}", err=True)
        yield watch


@contextlib.contextmanager
def _polling_workers(watch: Watch) -> Iterator[None]:
    over = threading.Event()

    def poll() -> None:
        while not over.wait(REFRESH_SECONDS):
            watch.look()

    thread = threading.Thread(target=poll, name="tilenet-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(
            REFRESH_SECONDS
        )  # not for ever: where the scheduler hangs, so does the question


def now_text() -> str:
    """Give the time as ISO 8601 in seconds, with the offset from UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
