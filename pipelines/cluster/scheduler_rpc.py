"""Questions to a scheduler or to workers, which may hang: no answer is waited for without end."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any

import click
from distributed import Client

from pipelines.progress import LINE_SECONDS, clock
from pipelines.stopping import check_stop
from tilenet.errors import SchedulerLost

#: Seconds that a scheduler may take to answer, and those after which a request to stop ends the
#: wait; what hangs answers no sooner for being waited for.
RPC_SECONDS, STOPPED_SECONDS = 60.0, 5.0

# Seconds between two looks at whether there is an answer.
_WAKE_SECONDS = 0.2


def ask(client: Client, question: Callable[..., Any], *arguments: Any) -> Any:
    """Ask the scheduler, and take silence for its loss.

    Parameters
    ----------
    client : distributed.Client
    question : callable
        A method of the client that asks, for example ``client.run_on_scheduler``.
    *arguments
        Its arguments.

    Returns
    -------
    object
        The answer.
    """
    address = client.scheduler.address if client.scheduler else "(closed)"
    try:
        return answer(
            client, question(*arguments, asynchronous=True), RPC_SECONDS, f"scheduler {address}"
        )
    except TimeoutError as error:
        raise SchedulerLost(address) from error


def answer(client: Client, asked: Any, seconds: float, whom: str) -> Any:
    """Wait for what a method of the client with ``asynchronous=True`` gives, and say so.

    Without an answer in time this is a TimeoutError. The time is counted in looks: a command that
    was held meanwhile has not been waiting.
    """
    future = asyncio.run_coroutine_threadsafe(asked, client.loop.asyncio_loop)
    waited = said = 0.0
    try:
        while not concurrent.futures.wait([future], _WAKE_SECONDS).done:
            waited += _WAKE_SECONDS
            if waited >= seconds or client.status != "running":
                raise TimeoutError
            if waited >= STOPPED_SECONDS:
                check_stop()
            if waited - said >= LINE_SECONDS:
                said = waited
                click.echo(
                    f"No answer of {whom}; waiting, {clock(waited)} of {clock(seconds)}", err=True
                )
        return future.result()
    finally:
        future.cancel()
