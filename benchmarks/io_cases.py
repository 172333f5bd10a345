"""What is read and written by ``bench_io``: images, storage shapes, and ways to go through them."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from scipy.ndimage import gaussian_filter

from tilenet.geometry import ZYX, Box, zyx
from tilenet.synthetic import synthetic_em

#: Voxels of the volumes: serial sections, and a cube. The latter is not whole blocks.
SHAPE = {"sections": (64, 2048, 2048), "cube": (512, 512, 512)}

#: One block, and what it reads beyond its faces at depth 4 in 2-D, at depth 3 in 3-D.
BLOCK, HALO = (64, 1024, 1024), 92
CUBE_BLOCK, CUBE_HALO = 256, 44

#: Shards that ``tilenet ingest`` writes, and the chunks that are compared, its own first.
SHARD = {"sections": (64, 1024, 1024), "cube": (256, 512, 512)}
CHUNKS: dict[str, tuple[ZYX, ...]] = {
    "sections": (
        (16, 256, 256), (8, 256, 256), (4, 256, 256), (32, 256, 256), (16, 128, 128),
        (64, 128, 128), (1, 512, 512),
    ),
    "cube": (
        (64, 128, 128), (64, 64, 128), (64, 64, 64), (32, 128, 128), (128, 128, 128),
        (16, 256, 256),
    ),
}  # fmt: skip

#: Planes that a network might ask for at once, whatever the chunks are.
SLAB = 16

#: Divisor of all sizes along y and x, and of cubes, with ``--quick``.
QUICK = 8


@dataclass(frozen=True)
class Pattern:
    """A way to read a volume."""

    name: str  # what the table calls it
    kind: str  # "sections" or "cube"
    boxes: tuple[Box, ...]  # what is read, one after the other

    @property
    def voxels(self) -> int:
        """Voxels wanted."""
        return sum(box.size for box in self.boxes)

    def amplification(self, chunk: ZYX) -> float:
        """Voxels of all chunks that are decoded / voxels wanted."""
        return sum(_decoded(box, chunk) for box in self.boxes) / self.voxels


def _decoded(box: Box, chunk: ZYX) -> int:
    sides = zip(box.start, box.stop, chunk, strict=True)
    return math.prod((-(-stop // size) - start // size) * size for start, stop, size in sides)


def patterns(chunks: dict[str, ZYX], k: int) -> list[Pattern]:
    """Give all ways to read, for volumes of certain chunks, all sizes divided by ``k``."""
    side, halo = 2048 // k, HALO // k
    low, high = 512 // k - halo, 1536 // k + halo
    depth = SHAPE["sections"][0]
    rng = np.random.default_rng(0)
    patch = 640 // k
    corners = [[int(n) for n in rng.integers(0, (depth, *(side - patch,) * 2))] for _ in range(4)]
    sections = {
        "2-D block with halo": [Box((0, low, low), (depth, high, high))],
        "16 whole sections": [Box((0, 0, 0), (16, side, side))],
        "whole sections, one by one": [Box((z, 0, 0), (z + 1, side, side)) for z in (5, 6)],
        "4 patches of 640 x 640": [
            Box((z, y, x), (z + 1, y + patch, x + patch)) for z, y, x in corners
        ],
    }
    start, stop = (128 - CUBE_HALO) // k, (128 + CUBE_BLOCK + CUBE_HALO) // k
    block = Box((start,) * 3, (stop,) * 3)
    cube = {"3-D block with halo": [block]}
    for axis, name in enumerate("zyx"):
        cube[f"the same along {name}, by chunks"] = list(slabs(block, axis, chunks["cube"][axis]))
    for axis, name in ((0, "z"), (2, "x")):
        planes = list(slabs(block, axis, max(1, SLAB // k), from_start=True))
        cube[f"the same along {name}, {SLAB} planes each"] = planes
    return [
        *(Pattern(name, "sections", tuple(boxes)) for name, boxes in sections.items()),
        *(Pattern(name, "cube", tuple(boxes)) for name, boxes in cube.items()),
    ]


def slabs(box: Box, axis: int, planes: int, *, from_start: bool = False) -> Iterator[Box]:
    """Cut a box along an axis, at multiples of ``planes`` from the origin or from its start."""
    first, last = box.start[axis], box.stop[axis]
    inner = range(first + planes if from_start else (first // planes + 1) * planes, last, planes)
    cuts = [first, *inner, last]
    for a, b in itertools.pairwise(cuts):
        start, stop = list(box.start), list(box.stop)
        start[axis], stop[axis] = a, b
        yield Box(zyx(start), zyx(stop))


def divided(shape: Sequence[int], kind: str, k: int) -> ZYX:
    """Make a shape smaller: sections along y and x only, cubes along all axes."""
    return zyx(
        n if kind == "sections" and axis == 0 else max(1, n // k) for axis, n in enumerate(shape)
    )


# -- images ---------------------------------------------------------------------------------------


def image(kind: str, k: int) -> npt.NDArray[Any]:
    """Fill a volume with micrographs, uint8: real ones where TILENET_DATA has them."""
    shape = divided(SHAPE[kind], kind, k)
    folder = os.environ.get("TILENET_DATA")
    if folder is None or k > 1:
        side = max(48, 384 // k)
        size = (50.0, 4.0, 4.0) if kind == "sections" else (8.0, 8.0, 8.0)
        small = synthetic_em((24 if kind == "sections" else side, side, side), seed=0,
                             voxel_size=size).raw  # fmt: skip
    elif kind == "sections":
        names = ("train-volume.tif", "test-volume.tif")
        small = np.concatenate([tifffile.imread(Path(folder) / "isbi2012" / n) for n in names])
    else:
        small = tifffile.imread(Path(folder) / "fib25" / "raw.tif")
    return tiled(small, shape)


def tiled(small: npt.NDArray[Any], shape: ZYX) -> npt.NDArray[Any]:
    """Fill a volume with copies turned such that no compressor finds a neighbour's rows again."""
    values = np.empty(shape, small.dtype)
    for place in np.ndindex(*(-(-n // s) for n, s in zip(shape, small.shape, strict=True))):
        turn = (place[0] + 2 * place[1] + 3 * place[2]) % 4
        copy = small.transpose(0, 2, 1) if turn % 2 else small
        copy = copy[:, :, ::-1] if turn > 1 else copy
        start = [p * s for p, s in zip(place, small.shape, strict=True)]
        target = values[tuple(slice(a, a + s) for a, s in zip(start, small.shape, strict=True))]
        target[...] = copy[tuple(slice(n) for n in target.shape)]
    return values


def probabilities(raw: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Imitate what a network makes of micrographs: mostly near 0 or 255, smooth in between."""
    smooth = gaussian_filter(raw.astype(np.float32), (0, 2, 2))
    smooth = (smooth - smooth.mean()) / smooth.std()
    values: npt.NDArray[np.uint8] = np.rint(255 / (1 + np.exp(-8 * smooth))).astype(np.uint8)
    return values
