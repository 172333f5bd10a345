"""The options that `predict` and `plan` share."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import click

from pipelines.options import REGION, SHAPE, F, bytes_option, check_device
from pipelines.options import cluster_options as cluster_options
from pipelines.predict.job import Choices
from tilenet.networks import ROTATIONS, STORED_TYPES, VALUE_BYTES
from tilenet.planning import BLOCK_SECONDS, DEVICE_BYTES
from tilenet.volumes import CODECS, VolumeReference


def prediction_options(function: F) -> F:
    """Add the options that ``predict`` and ``plan`` share."""
    # The others are those of ``predict`` alone.
    names = {field.name for field in dataclasses.fields(Choices)} - {"intensity", "overwrite"}

    @click.option("--region", type=REGION, help="Part to predict: z=0:10,y=0:512 (all of x).")
    @click.option("--mask", help="Low-resolution Zarr; where it is 0, 0 is stored.")
    @click.option(
        "--block", type=SHAPE, show_default="chosen by the plan", help="Voxels per task, z,y,x."
    )
    @click.option(
        "--shard", type=SHAPE, show_default="chosen by the plan",
        help="Voxels per stored object, z,y,x.",
    )  # fmt: skip
    @click.option(
        "--block-minutes", type=click.FloatRange(0, min_open=True), default=BLOCK_SECONDS / 60,
        show_default=True, help="How long a block is to last, about: what a preemption loses.",
    )  # fmt: skip
    @click.option(
        "--dtype", type=click.Choice(list(STORED_TYPES)), show_default="uint8",
        help="Stored values.",
    )  # fmt: skip
    @click.option(
        "--precision", type=click.Choice(list(VALUE_BYTES)), show_default="float32",
        help="Data type inside the network.",
    )  # fmt: skip
    @click.option(
        "--device", default="cpu", show_default=True, callback=check_device,
        help="cpu, cuda or cuda:N.",
    )  # fmt: skip
    @click.option(
        "--device-memory", callback=bytes_option, default=f"{DEVICE_BYTES // 10**9}GB",
        show_default=True, help="Memory of the GPU that an evaluation may use.",
    )  # fmt: skip
    @click.option("--codec", default="zstd", show_default=True, help=f"{', '.join(CODECS)}.")
    @click.option("--ignore-voxel-size", is_flag=True, help="Apply it whatever the voxels are.")
    @click.option("--strict", is_flag=True, help="Refuse inputs that a warning would be said of.")
    @click.option(
        "--rotations", type=click.Choice(ROTATIONS), show_default="1",
        help="Average the probabilities (or linear scores) of so many quarter turns and mirror "
        "images of the sections.",
    )  # fmt: skip
    @click.option("--flips", is_flag=True, help="Average over the flips of y and x only.")
    @functools.wraps(function)
    def command(*args: Any, mask: str | None, **kwargs: Any) -> Any:
        choices = Choices(**{name: kwargs.pop(name) for name in names})
        reference = None if mask is None else VolumeReference(mask)
        return function(*args, mask=reference, choices=choices, **kwargs)

    return command  # type: ignore[return-value]
