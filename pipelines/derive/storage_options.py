"""How a derived volume is to be stored: options that ingest, label and weights share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from pipelines.options import SHAPE
from pipelines.outputs import SHARD_BYTES, storage_shapes
from tilenet.errors import AmbiguousVolume
from tilenet.geometry import ZYX, zyx
from tilenet.volumes import CODECS, Volume

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    # chunk, shard: voxels, (z, y, x).
    chunk: ZYX | None = None
    shard: ZYX | None = None
    codec: str = "zstd"  # compressor
    overwrite: bool = False  # replace a Zarr that is there

    def shapes(
        self, volume: Volume, begun: Volume | None, *, itemsize: int, flat: bool,
        fits: Callable[[ZYX], bool],
    ) -> tuple[ZYX, ZYX]:  # fmt: skip
        """Choose chunk and shard, (z, y, x), of what is derived from a volume.

        ``itemsize`` is that of a stored value, in bytes; ``fits`` says whether the workers have the
        memory for a shard.
        """
        most = SHARD_BYTES // itemsize
        chunk, shard = storage_shapes(
            volume.shape, volume.voxel_size, chunk=self.chunk, shard=self.shard, flat=flat,
            fits=lambda shard: math.prod(shard) <= most and fits(shard),
        )  # fmt: skip
        if begun is not None:
            # What was chosen when it was begun holds, unless the user now asks for something else.
            shard = self.shard or zyx(begun.write_shape)
        return chunk, shard


def check_one_channel(volume: Volume) -> None:
    """Refuse a volume of several channels of which none was chosen."""
    if volume.channels is not None:
        choices = tuple(str(i) for i in range(volume.channels))
        cure = "Choose one of them with --channel"
        raise AmbiguousVolume(volume.location, f"has {volume.channels} channels", choices, cure)


def storage_options(function: F) -> F:
    """Add ``--chunk``, ``--shard`` and ``--codec``."""
    codec = click.option("--codec", default="zstd", show_default=True, help=f"{', '.join(CODECS)}.")
    shard = click.option("--shard", type=SHAPE, help="Voxels per shard (one stored object), z,y,x.")
    chunk = click.option("--chunk", type=SHAPE, help="Voxels per chunk, z,y,x.")
    return chunk(shard(codec(function)))


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace a Zarr that is there.")
