"""The options that say where to compute."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pipelines.cluster import (
    FLAGS,
    SYSTEMS,
    Joining,
    make_options,
    read_address,
    read_bytes,
    read_seconds,
)
from tilenet.volumes.stores import bind_reading

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def bytes_option(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a number of bytes such as ``8GB`` or ``512MiB``.

    Parameters
    ----------
    ctx, param : object
        Given by Click.
    value : str or None

    Returns
    -------
    int or None
        Bytes.
    """
    return _read(read_bytes, value)


def seconds_option(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check a duration such as ``12:00:00`` or ``90min``."""
    _read(read_seconds, value)
    return value


def address_option(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check where to listen, for example ``127.0.0.1:8787``."""
    return _read(read_address, value)


def _read(kind: Callable[[str], T], value: str | None) -> T | None:
    try:
        return None if value is None else kind(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_COUNT = click.IntRange(1)

_OPTIONS = (
    click.option("--cluster", help=f"local, {', '.join(SYSTEMS)}, or a profile (.toml)."),
    click.option("--scheduler", help="Address or file (.json) of a running Dask scheduler."),
    click.option(
        "--workers", type=_COUNT, help="Worker processes.",
        show_default="chosen by the plan; else one per core, per GPU, or per job",
    ),
    click.option(
        "--slots", type=_COUNT, show_default="2",
        help="Blocks at once per worker: one computes while another reads or writes.",
    ),
    click.option(
        "--threads", type=_COUNT, show_default="chosen by the plan; else 1",
        help="CPU threads per worker.",
    ),
    click.option(
        "--memory", callback=bytes_option,
        help="Memory of all workers of this machine, or of a job, together: 16GB.",
    ),
    click.option("--queue", help="Queue (partition) of the jobs."),
    click.option("--account", help="Account that the jobs are charged to."),
    click.option("--walltime", callback=seconds_option, help="Of a job: 12:00:00 or 90min."),
    click.option("--gpus-per-job", type=_COUNT, help="GPUs of a job, a worker for each."),
    click.option(
        "--directive", "directives", multiple=True, help="Extra scheduler directive (repeatable)."
    ),
    click.option("--min-jobs", type=_COUNT, show_default="1", help="Jobs at least."),
    click.option("--max-jobs", type=_COUNT, help="Jobs at most, while there is work for them."),
    click.option(
        "--lifetime", callback=seconds_option,
        show_default="the walltime less the time of --slots blocks and a half, at most half of it",
        help="When a job's workers take no further block.",
    ),
    click.option(
        "--lifetime-stagger", callback=seconds_option, help="By how much lifetimes differ."
    ),
    click.option(
        "--start-timeout", callback=seconds_option, show_default="1h",
        help="Longest wait for a first worker.",
    ),
    click.option(
        "--block-timeout", callback=seconds_option, show_default="ten times a block's time",
        help="When a worker that finishes no block counts as hung.",
    ),
    click.option(
        "--outage-timeout", callback=seconds_option, show_default="10min",
        help="How long to pause in all where block after block fails, as when a file system is "
        "away.",
    ),
    click.option(
        "--dashboard", callback=address_option, metavar="HOST:PORT",
        show_default="127.0.0.1:8787, or another port if that is taken",
        help="Where the dashboard listens.",
    ),
    click.option("--tls-ca", help="Certificate of the authority, for encrypted connections."),
    click.option("--tls-cert", help="This side's certificate."),
    click.option("--tls-key", help="Its private key."),
)  # fmt: skip


def cluster_options(function: F) -> F:
    """Add the options of a cluster profile, and ``--cluster`` for its file.

    Parameters
    ----------
    function : callable
        A command that takes ``cluster``, a :class:`pipelines.cluster.ClusterOptions`.

    Returns
    -------
    callable
        The command.
    """

    @functools.wraps(function)
    def command(*args: Any, cluster: str | None, **kwargs: Any) -> Any:
        flags = {name: kwargs.pop(name) for name in FLAGS if name in kwargs}
        chosen = make_options(cluster, flags)
        if chosen.threads is not None:
            bind_reading(chosen.threads)  # what is next to nothing is done in this process
        with Joining() as joining:
            chosen = dataclasses.replace(chosen, joining=joining)
            return function(*args, cluster=chosen, **kwargs)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command  # type: ignore[return-value]
