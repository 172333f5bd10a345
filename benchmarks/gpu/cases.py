"""What ``bench_gpu`` measures: networks, volumes and precisions."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tilenet.geometry import ZYX, Box
from tilenet.networks import VALUE_BYTES, UNetArchitecture, slab_for, stream_axis
from tilenet.planning import Plan, Request
from tilenet.planning.choose import SLAB_BYTES


@dataclass(frozen=True, slots=True)
class Precision:
    """A data type of the network, and whether float32 may be rounded to TF32."""

    name: str
    dtype: torch.dtype
    tf32: bool = False


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("float32", torch.float32),
        Precision("tf32", torch.float32, tf32=True),
        Precision("bfloat16", torch.bfloat16),
        Precision("float16", torch.float16),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network, and a volume stored in layers: one row of shards along z each.

    ``tiles`` are what bare passes are tried on: the batch, and the voxels that a tile keeps.
    ``slab_bytes`` are those of a slab of features at full resolution, the planner's by default.
    """

    name: str
    architecture: UNetArchitecture
    layer: ZYX
    layers: int
    shard: ZYX
    chunk: ZYX
    tiles: tuple[tuple[int, ZYX], ...]
    slab_bytes: int | None = None

    def shape(self, layers: int) -> ZYX:
        """Voxels of so many layers, (z, y, x)."""
        return (layers * self.layer[0], *self.layer[1:])

    def plan(self, layers: int, precision: Precision, device: str, *, larger: float = 1) -> Plan:
        """How so many layers are predicted: sections one by one, or the volume in one stream."""
        shape, architecture = self.shape(layers), self.architecture
        tile = (1, *shape[1:]) if architecture.is_planar else shape
        given = architecture.input_for(architecture.output_for(tile))
        axis = stream_axis(architecture, given) if architecture.is_planar else 0
        kind = str(precision.dtype).removeprefix("torch.")
        values = int((self.slab_bytes or SLAB_BYTES[device]) * larger) // VALUE_BYTES[kind]
        request = Request(
            volume_shape=shape,
            region=Box.of_shape(shape),
            architecture=architecture,
            input_bytes=1,
            output_bytes=1,
            precision=kind,
            device=device,
        )
        return Plan(
            request=request,
            block=self.layer if architecture.is_planar else shape,
            shard=self.shard,
            chunk=self.chunk,
            tile=tile,
            axis=axis,
            slab=slab_for(architecture, given, axis, values),
        )


FULL = (
    Case(
        name="2d-64",  # the paper's network
        architecture=UNetArchitecture.planar(64, 4),
        layer=(8, 4096, 4096),
        layers=12,
        shard=(8, 1024, 1024),
        chunk=(8, 256, 256),
        tiles=((8, (1, 388, 388)), (1, (1, 2048, 2048))),
    ),
    Case(
        name="3d-32",
        architecture=UNetArchitecture.volumetric(32, 3),
        layer=(64, 768, 768),
        layers=48,
        shard=(64, 256, 256),
        chunk=(64, 128, 128),
        tiles=((2, (64, 64, 64)), (1, (128, 128, 128))),
    ),
)

QUICK = (
    Case(
        name="2d-4",
        architecture=UNetArchitecture.planar(4, 2),
        layer=(2, 96, 128),
        layers=3,
        shard=(2, 48, 64),
        chunk=(2, 24, 32),
        tiles=((2, (1, 64, 64)),),
        slab_bytes=2**16,
    ),
    Case(
        name="3d-4",
        architecture=UNetArchitecture.volumetric(4, 2),
        layer=(8, 24, 32),
        layers=4,
        shard=(8, 24, 16),
        chunk=(8, 12, 16),
        tiles=((1, (24, 24, 24)),),
        slab_bytes=2**19,
    ),
)
