"""How a derived volume is to be stored: options that ingest, label and weights share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from pipelines.options import SHAPE
from tilenet.geometry import ZYX
from tilenet.volumes import CODECS

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """What the user chose of how to store."""

    # chunk, shard: voxels, (z, y, x).
    chunk: ZYX | None = None
    shard: ZYX | None = None
    codec: str = "zstd"  # compressor
    overwrite: bool = False  # replace a Zarr that is there


def storage_options(function: F) -> F:
    """Add ``--chunk``, ``--shard`` and ``--codec``."""
    codec = click.option("--codec", default="zstd", show_default=True, help=f"{', '.join(CODECS)}.")
    shard = click.option("--shard", type=SHAPE, help="Voxels per shard (one stored object), z,y,x.")
    chunk = click.option("--chunk", type=SHAPE, help="Voxels per chunk, z,y,x.")
    return chunk(shard(codec(function)))


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace a Zarr that is there.")
