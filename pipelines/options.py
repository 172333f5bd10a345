"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
import psutil
from dask.utils import parse_bytes

from pipelines.axis_values import AxisValues
from pipelines.cluster import ClusterOptions
from pipelines.prediction import Choices
from tilenet.codecs import CODECS
from tilenet.errors import RegionOutside
from tilenet.geometry import ZYX, Box, zyx
from tilenet.orientation import ROTATIONS
from tilenet.request import BLOCK_SECONDS, DEVICE_BYTES
from tilenet.settings import VALUE_BYTES
from tilenet.tasks import VolumeReference

F = TypeVar("F", bound=Callable[..., Any])

#: Share of the machine's available memory that workers may use together by default.
MEMORY_SHARE = 0.75


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    return read


def _range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        raise ValueError(text)
    return int(match[1]), int(match[2])


VOXEL_SIZE = AxisValues(_positive(float), "positive size in nm")
SHAPE = AxisValues(_positive(int), "positive whole number")
REGION = AxisValues(_range, "range start:stop")


def region_box(region: Sequence[tuple[int, int]] | None, shape: ZYX) -> Box:
    """Make the box of a region.

    Parameters
    ----------
    region : sequence of (int, int) or None
        Start and stop along (z, y, x); None is the whole volume.
    shape : tuple of int
        Shape of the volume, (z, y, x).

    Returns
    -------
    Box
        Inside the volume.

    Raises
    ------
    RegionOutside
        When the region is empty or leaves the volume.
    """
    whole = Box.of_shape(shape)
    if region is None:
        return whole
    box = Box(zyx(start for start, _ in region), zyx(stop for _, stop in region))
    if not whole.contains(box) or min(box.shape) <= 0:
        raise RegionOutside(str(box), str(whole))
    return box


def read_bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a number of bytes such as ``8GB`` or ``512MiB``.

    Parameters
    ----------
    ctx, param : object
        Given by Click.
    value : str or None
        What the user wrote.

    Returns
    -------
    int or None
        Bytes.
    """
    if value is None:
        return None
    try:
        count = int(parse_bytes(value))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a size such as 8GB or 512MiB") from error
    if count <= 0:
        raise click.BadParameter(f"{value!r} is not positive")
    return count


def input_options(function: F) -> F:
    """Add the options that say what an input means where its metadata do not.

    Parameters
    ----------
    function : callable
        A command.

    Returns
    -------
    callable
        The command with ``--level``, ``--channel`` and ``--axes``.
    """
    for option in (
        click.option(
            "--axes", help="Meaning of the stored axes, e.g. czyx, where nothing says it."
        ),
        click.option("--channel", type=click.IntRange(0), help="Channel to read of several."),
        click.option("--level", help="Pyramid level, by path or index; the finest by default."),
    ):
        function = option(function)
    return function


def cluster_options(function: F) -> F:
    """Add the options that say where to compute.

    Parameters
    ----------
    function : callable
        A command that takes ``cluster``, a :class:`pipelines.cluster.ClusterOptions`.

    Returns
    -------
    callable
        The command with ``--workers``, ``--slots``, ``--threads``, ``--memory``, ``--scheduler``.
    """

    @click.option("--scheduler", help="Address of a running Dask scheduler to join.")
    @click.option("--workers", type=click.IntRange(1), help="Worker processes; one per core.")
    @click.option(
        "--slots", type=click.IntRange(1), default=2, show_default=True,
        help="Blocks at once per worker: one computes while another reads or writes.",
    )  # fmt: skip
    @click.option("--threads", type=click.IntRange(1), help="CPU threads per worker; 1 by default.")
    @click.option(
        "--memory", callback=read_bytes,
        help="Memory that all local workers may use together, e.g. 16GB.",
    )  # fmt: skip
    @functools.wraps(function)
    def command(
        *args: Any,
        scheduler: str | None,
        workers: int | None,
        slots: int,
        threads: int | None,
        memory: int | None,
        **kwargs: Any,
    ) -> Any:
        count = workers or default_workers(threads or 1)
        total = memory or int(psutil.virtual_memory().available * MEMORY_SHARE)
        left_to_the_plan = scheduler is None and workers is None and threads is None
        cluster = ClusterOptions(
            scheduler=scheduler, workers=count, slots=slots, threads=threads, memory=total // count,
            cores=default_workers(1) if left_to_the_plan else None,
        )  # fmt: skip
        return function(*args, cluster=cluster, **kwargs)

    return command  # type: ignore[return-value]


def source_argument(function: F) -> F:
    """Add the argument SOURCE and the options that say how to open it.

    Parameters
    ----------
    function : callable
        A command that takes ``source``, a :class:`tilenet.tasks.VolumeReference`.

    Returns
    -------
    callable
        The command.
    """
    return _with_source(function, required=True)


def optional_source(function: F) -> F:
    """Add the argument SOURCE, which may be left out, and the options that say how to open it.

    Parameters
    ----------
    function : callable
        A command that takes ``source``, a :class:`tilenet.tasks.VolumeReference` or None.

    Returns
    -------
    callable
        The command.
    """
    return _with_source(function, required=False)


def _with_source(function: F, *, required: bool) -> F:
    @click.argument("source", required=required)
    @input_options
    @functools.wraps(function)
    def command(
        *args: Any,
        source: str | None,
        level: str | None,
        channel: int | None,
        axes: str | None,
        **kwargs: Any,
    ) -> Any:
        reference = (
            None
            if source is None
            else VolumeReference(source, level=level, channel=channel, axes=axes)
        )
        return function(*args, source=reference, **kwargs)

    return command  # type: ignore[return-value]


def check_device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check the name of a device.

    Parameters
    ----------
    ctx, param : object
        Given by Click.
    value : str
        What the user wrote.

    Returns
    -------
    str
        "cpu", "cuda" or "cuda:N".
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        raise click.BadParameter(f"{value!r} is not cpu, cuda or cuda:N")
    return value


def prediction_options(function: F) -> F:
    """Add the options that ``predict`` and ``plan`` share.

    Parameters
    ----------
    function : callable
        A command that takes ``region``, ``mask`` and ``choices``.

    Returns
    -------
    callable
        The command.
    """
    names = {field.name for field in dataclasses.fields(Choices)}

    @click.option("--region", type=REGION, help="Part to predict: z=0:10,y=0:512,x=0:512.")
    @click.option("--mask", help="Low-resolution Zarr; where it is 0, 0 is stored.")
    @click.option("--block", type=SHAPE, help="Voxels per task, z,y,x; chosen by the plan.")
    @click.option("--shard", type=SHAPE, help="Voxels per stored object, z,y,x; chosen too.")
    @click.option(
        "--block-minutes", type=click.FloatRange(0, min_open=True), default=BLOCK_SECONDS / 60,
        show_default=True, help="How long a block is to last, about: what a preemption loses.",
    )  # fmt: skip
    @click.option(
        "--dtype", type=click.Choice(["uint8", "float16", "float32"]), help="Output; uint8."
    )
    @click.option("--precision", type=click.Choice(list(VALUE_BYTES)), help="Network; float32.")
    @click.option(
        "--device", default="cpu", show_default=True, callback=check_device,
        help="cpu, cuda or cuda:N.",
    )  # fmt: skip
    @click.option(
        "--device-memory", callback=read_bytes, default=f"{DEVICE_BYTES // 10**9}GB",
        show_default=True, help="Memory of the GPU that an evaluation may use.",
    )  # fmt: skip
    @click.option("--codec", default="zstd", show_default=True, help=f"{', '.join(CODECS)}.")
    @click.option("--ignore-voxel-size", is_flag=True, help="Whatever the model was trained at.")
    @click.option(
        "--rotations", type=click.Choice(ROTATIONS),
        help="Average the probabilities (or linear scores) of so many quarter turns and mirror "
        "images of the sections; 1.",
    )  # fmt: skip
    @click.option("--flips", is_flag=True, help="Average over the flips of y and x only.")
    @functools.wraps(function)
    def command(*args: Any, mask: str | None, **kwargs: Any) -> Any:
        choices = Choices(**{name: kwargs.pop(name) for name in names})
        reference = None if mask is None else VolumeReference(mask)
        return function(*args, mask=reference, choices=choices, **kwargs)

    return command  # type: ignore[return-value]


def default_workers(threads: int) -> int:
    """Give the number of local worker processes that fill the machine.

    Parameters
    ----------
    threads : int
        Threads of each.

    Returns
    -------
    int
        At least 1.
    """
    # A container or a job may be allowed fewer cores than the machine has; macOS cannot say.
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // threads)
