"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from pipelines.options.axis_values import AxisValues
from tilenet.errors import RegionOutside
from tilenet.geometry import ZYX, Box, zyx
from tilenet.volumes import VolumeReference, check_clip

F = TypeVar("F", bound=Callable[..., Any])


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


def _part(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if match is None:
        raise ValueError(text)
    return int(match[1] or 0), int(match[2]) if match[2] else None


VOXEL_SIZE = AxisValues(_positive(float), "positive size in nm")
SHAPE = AxisValues(_positive(int), "positive whole number")
OFFSET = AxisValues(int, "whole number")
BOX = AxisValues(_range, "range start:stop")
REGION = AxisValues(_part, "range start:stop", unnamed=":")

#: Start and stop along (z, y, x), as :data:`REGION` reads them; a stop of None is the volume's end.
Region = Sequence[tuple[int, int | None]]


def region_box(region: Region | None, shape: ZYX) -> Box:
    """Make the box of a region; RegionOutside where it is empty or leaves the volume.

    Parameters
    ----------
    region : sequence of (int, int or None) or None
        Start and stop along (z, y, x), a stop of None being the end; None is the whole volume.
    shape : tuple of int
        Of the volume, (z, y, x).

    Returns
    -------
    Box
        Inside the volume.
    """
    whole = Box.of_shape(shape)
    if region is None:
        return whole
    stops = (n if stop is None else stop for (_, stop), n in zip(region, shape, strict=True))
    box = Box(zyx(start for start, _ in region), zyx(stops))
    if not whole.contains(box) or min(box.shape) <= 0:
        raise RegionOutside(str(box), str(whole))
    return box


def input_options(function: F) -> F:
    """Add ``--level``, ``--channel`` and ``--axes``: what an input means where metadata do not say.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
        The command.
    """
    for option in (
        click.option(
            "--axes", help="Meaning of the stored axes, e.g. czyx. Wins over what is stated."
        ),
        click.option("--channel", type=click.IntRange(0), help="Channel to read of several."),
        click.option("--level", help="Pyramid level, by path or index; the finest by default."),
    ):
        function = option(function)
    return function


def source_argument(function: F, *, required: bool = True) -> F:
    """Add the argument SOURCE and the options that say how to open it.

    Parameters
    ----------
    function : callable
        A command that takes ``source``, a :class:`tilenet.volumes.VolumeReference`.
    required : bool
        Whether it must be given; else ``source`` may be None.

    Returns
    -------
    callable
        The command.
    """

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

    Returns
    -------
    str
        "cpu", "cuda" or "cuda:N".
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        raise click.BadParameter(f"{value!r} is not cpu, cuda or cuda:N")
    return value


def percentiles(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, float] | None:
    """Read two percentiles to clip at.

    Parameters
    ----------
    ctx, param : object
        Given by Click.
    value : str or None
        LOW,HIGH.

    Returns
    -------
    (float, float) or None
        From 0 to 100, the lower first.
    """
    if value is None:
        return None
    try:
        low, high = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not LOW,HIGH: 0.1,99.9") from None
    check_clip((low, high))
    return low, high
