"""A scheduler that runs already, by its address or its scheduler file."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import click
from distributed import Client
from distributed.utils import silence_logging_cmgr

from pipelines.cluster.options import ClusterOptions
from pipelines.cluster.tls import security
from tilenet.errors import InvalidData, SchedulerLost, TilenetError

#: Seconds to wait for a scheduler to answer, and for its first worker.
CONNECT_SECONDS = 30

#: Seconds after which the wait for a scheduler is told of.
_TOLD_SECONDS = 3.0

# What Dask can talk, and what an address looks like.
_SCHEMES = ("tcp", "tls", "ws", "wss", "ucx", "ucxx", "inproc")
_ADDRESS = re.compile(rf"(?:(?:{'|'.join(_SCHEMES)})://\S+|[^\s/:]+:\d+)")

_CURE = (
    "Check the address, and that 'dask scheduler' and workers are running; the address of one that "
    "encrypts begins with tls://."
)


class Joining(contextlib.ExitStack):
    """The client of a running scheduler, from its first use on until this is left.

    A command asks a scheduler for its workers, for their rates, and to run tasks: by one client.
    """

    _client: Client | None = None

    def client(self, options: ClusterOptions) -> Client:
        """Join the scheduler, unless that is done."""
        if self._client is None or self._client.status != "running":
            address = find_address(str(options.scheduler))
            # Dask prints a traceback of its own when a scheduler is lost; ours is enough.
            for name in ("distributed", "distributed.client"):
                self.enter_context(silence_logging_cmgr(logging.CRITICAL, name))
            self._client = self.enter_context(_connect(address, options))
        return self._client


@contextlib.contextmanager
def joined_client(options: ClusterOptions) -> Iterator[Client]:
    with contextlib.ExitStack() as stack:
        joining = options.joining or stack.enter_context(Joining())
        client = joining.client(options)
        address = client.scheduler.address
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            problem = f"has no workers within {CONNECT_SECONDS} s"
            raise InvalidData(f"Scheduler {address}", problem, _CURE) from error
        try:
            yield client
        except Exception as error:
            # Whatever was asked of a scheduler that is gone fails in its own way.
            if client.status == "running" or isinstance(error, TilenetError):
                raise
            raise SchedulerLost(address) from error


def find_address(scheduler: str) -> str:
    """Give the address of a scheduler, of which this is the address or the scheduler file."""
    if not (scheduler.endswith(".json") or Path(scheduler).is_file()):
        if _ADDRESS.fullmatch(scheduler) is None:
            problem = "is neither a file nor an address such as tcp://host:8786"
            cure = f"Addresses are host:port, or begin with one of {'://, '.join(_SCHEMES)}://."
            raise InvalidData(f"Scheduler {scheduler}", problem, cure)
        return scheduler
    what = f"Scheduler file {scheduler}"
    cure = "It is what 'dask scheduler --scheduler-file' makes."
    try:
        return str(json.loads(Path(scheduler).read_text())["address"])
    except OSError as error:
        raise InvalidData(what, f"{error.strerror or error}", cure) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidData(what, "does not hold the address of a scheduler", cure) from error


def _connect(address: str, options: ClusterOptions) -> Client:
    what = f"Scheduler {address}"
    if address.startswith("tls://") and options.tls is None:
        cure = "Give --tls-ca, --tls-cert and --tls-key."
        raise InvalidData(what, "wants certificates", cure)
    told = threading.Timer(_TOLD_SECONDS, _say_waiting, [address])
    told.daemon = True
    told.start()
    try:
        return Client(address, timeout=CONNECT_SECONDS, security=security(options.tls))
    except (OSError, ValueError, TimeoutError, RuntimeError) as error:
        problem = f"does not answer within {CONNECT_SECONDS} s"
        if (refusal := _tls_refusal(error)) is not None:
            problem, cure = f"refuses the TLS connection: {refusal}", "Check the --tls files."
            raise InvalidData(what, problem, cure) from error
        if options.tls is not None and not address.startswith("tls://"):
            cure = "Encrypted ones have addresses that begin with tls://."
            raise InvalidData(what, problem, cure) from error
        raise InvalidData(what, problem, _CURE) from error
    finally:
        told.cancel()


def _say_waiting(address: str) -> None:
    click.echo(f"Waiting for scheduler {address}, for {CONNECT_SECONDS} s at most", err=True)


def _tls_refusal(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return getattr(error, "verify_message", None) or str(error.reason)
        error = error.__cause__ or error.__context__
    return None
