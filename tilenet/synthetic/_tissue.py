"""What the sections cut: cells as chains of drifting beads, their mitochondria, smooth fields.

All lengths are nanometres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]
VoxelSize = tuple[float, float, float]

#: Cells this far outside the image still shape what is seen at its border.
MARGIN = 400.0
#: Median radius of a bead and the spread of its logarithm: most are thin, a few are huge.
MEDIAN_RADIUS, RADIUS_SPREAD, RADIUS_RANGE = 58.0, 0.58, (30.0, 260.0)
#: Radii of the small cells that fill the gaps left between the others.
FILLER_RANGE = (32.0, 55.0)
#: Area of the section per drawn cell and per drawn filler; those without a free place are dropped.
AREA_PER_CELL, AREA_PER_FILLER = 17000.0, 7500.0
#: Beads may overlap by the rest of this share of their radii; the diagram parts them.
CROWDING = 0.86
#: A chain is at most so long, which bounds the rivals that one cell can be for a pixel.
LONGEST_CHAIN = 7
#: Mesh of the map of free room.
MESH = 16.0


class Beads(NamedTuple):
    """Centres and radii, (section, bead), and the cell of each bead."""

    y: Floats
    x: Floats
    radius: Floats
    cell: Ids


class Mitochondria(NamedTuple):
    """Bead that holds each, place relative to it, and form; radius is per (section, one)."""

    bead: Ids
    y: Floats
    x: Floats
    radius: Floats
    aspect: Floats
    angle: Floats


class Tissue(NamedTuple):
    """Beads, mitochondria, and for each cell its grey offset and how many vesicles it holds."""

    beads: Beads
    mitochondria: Mitochondria
    tone: Floats
    crowd: Floats


class Fields(NamedTuple):
    """What varies smoothly over section ``z``, (y, x)."""

    warp_y: Floats
    warp_x: Floats
    thickness: Floats
    stain: Floats
    light: Floats


def smooth_fields(
    rng: np.random.Generator, shape: tuple[int, int, int], voxel: VoxelSize
) -> Iterator[Fields]:
    """Give the fields of one section after the other."""

    def noise(along_z: float, in_plane: float) -> Iterator[Floats]:
        scales = (along_z / voxel[0], in_plane / voxel[1], in_plane / voxel[2])
        return _smooth_sections(rng, shape, scales)

    bends = zip(noise(240.0, 330.0), noise(240.0, 330.0), strict=True)
    waves = zip(noise(60.0, 75.0), noise(60.0, 75.0), strict=True)
    # Tilt of the borders against the section: where it is strong they are cut wide.
    moods = zip(noise(70.0, 110.0), noise(30.0, 60.0), noise(1.0, 500.0), strict=True)
    for bend, wave, (tilt, stain, light) in zip(bends, waves, moods, strict=True):
        yield Fields(
            warp_y=85.0 * bend[0] + 18.0 * wave[0],
            warp_x=85.0 * bend[1] + 18.0 * wave[1],
            thickness=1.0 + np.float32(1.3) * (tilt - 0.9).clip(0.0, 2.0),
            stain=1.0 + 0.15 * stain,
            light=9.0 * light,
        )


def grow(rng: np.random.Generator, shape: tuple[int, int, int], voxel: VoxelSize) -> Tissue:
    """Lay out cells and mitochondria for a volume of ``shape`` voxels."""
    beads = _beads(rng, shape, voxel)
    n_cells = int(beads.cell.max()) + 1
    # A few cells are much darker than the rest, as glia are.
    dark = rng.standard_exponential(n_cells).clip(max=4.0)
    tone = 7.0 + 7.0 * rng.standard_normal(n_cells) - 9.0 * dark
    crowd = rng.uniform(0.3, 1.0, n_cells) ** 2
    mitochondria = _mitochondria(rng, beads, voxel[0])
    return Tissue(beads, mitochondria, tone.astype(np.float32), crowd.astype(np.float32))


def _basis(size: int, scale: float) -> Floats:
    """Give weights of Gaussian bumps, (voxel, bump), that turn white noise into smooth noise.

    Rows have unit norm, so that the deviation of the noise stays 1 everywhere.
    """
    scale = max(scale, 0.3)  # below this, neighbouring voxels are independent already
    bumps = np.arange(-3, math.ceil(size / scale) + 4) * scale
    weights = np.exp(-0.5 * ((np.arange(size)[:, np.newaxis] - bumps) / scale) ** 2)
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True), np.float32)


def _smooth_sections(
    rng: np.random.Generator, shape: tuple[int, int, int], scales: tuple[float, float, float]
) -> Iterator[Floats]:
    """Give the sections of Gaussian noise, deviation 1, smooth over ``scales`` voxels."""
    along_z, along_y, along_x = map(_basis, shape, scales)
    noise = rng.standard_normal(
        (along_z.shape[1], along_y.shape[1], along_x.shape[1]), dtype=np.float32
    )
    return (along_y @ np.tensordot(weights, noise, 1) @ along_x.T for weights in along_z)


def _beads(rng: np.random.Generator, shape: tuple[int, int, int], voxel: VoxelSize) -> Beads:
    extent = np.array([shape[1] * voxel[1], shape[2] * voxel[2]]) + 2 * MARGIN
    centres, radii, cell = _place(rng, extent)

    def drift(scale: float, count: int) -> Doubles:
        basis = _basis(shape[0], scale / voxel[0])
        return basis @ rng.standard_normal((basis.shape[1], count))

    def track(start: Doubles) -> Floats:
        # A cell moves as a whole, and its beads a little against one another.
        whole = drift(280.0, int(cell[-1]) + 1)[:, cell] * (35.0 + 0.2 * radii)
        return (start + whole + drift(220.0, cell.size) * 0.2 * radii).astype(np.float32)

    y, x = (track(start) for start in centres.T - MARGIN)
    radius = radii * np.exp(0.15 * drift(250.0, cell.size))
    return Beads(y, x, radius.astype(np.float32), cell)


def _place(rng: np.random.Generator, extent: Doubles) -> tuple[Doubles, Doubles, Ids]:
    """Pack chains of beads into a rectangle, large ones first: centres, radii and cells."""
    room = np.full((extent // MESH + 1).astype(int), np.inf)
    placed: list[Doubles] = []
    radii: list[float] = []
    for radius in _radii(rng, float(extent.prod())):
        chains = _chains(rng, radius, extent)
        nodes = np.rint(chains / MESH).astype(int).clip(0, np.array(room.shape) - 1)
        clearance = room[nodes[..., 0], nodes[..., 1]].min(axis=1) - CROWDING * radius
        free = np.flatnonzero(clearance > 0.0)
        if free.size:
            # The snuggest of the free places leaves the most room to the others.
            placed.append(chains[free[clearance[free].argmin()]])
            radii.append(radius)
            _take_room(room, placed[-1], radius)
    lengths = [len(chain) for chain in placed]
    cell = np.repeat(np.arange(len(placed)), lengths)
    return np.concatenate(placed), np.repeat(radii, lengths), cell


def _radii(rng: np.random.Generator, area: float) -> list[float]:
    """Draw the radii of cells for a section, the largest first."""
    cells = rng.lognormal(math.log(MEDIAN_RADIUS), RADIUS_SPREAD, 16 + int(area / AREA_PER_CELL))
    fillers = rng.uniform(*FILLER_RANGE, int(area / AREA_PER_FILLER))
    drawn = np.concatenate([cells.clip(*RADIUS_RANGE), fillers])
    return [float(radius) for radius in np.sort(drawn)[::-1]]


def _chains(rng: np.random.Generator, radius: float, extent: Doubles) -> Doubles:
    """Draw places for one cell, (try, bead, axis): a bead or a bent chain of several."""
    tries = 24
    length = 1 + int(rng.exponential(1.3 if radius < 150.0 else 0.5))
    shape = (tries, min(length, LONGEST_CHAIN))
    heading = rng.uniform(0, 2 * np.pi, (tries, 1)) + rng.normal(0, 0.5, shape).cumsum(axis=1)
    steps = 1.1 * radius * np.stack([np.sin(heading), np.cos(heading)], axis=-1)
    return np.asarray(rng.uniform(0.0, extent, (tries, 2))[:, np.newaxis] + steps.cumsum(axis=1))


def _take_room(room: Doubles, chain: Doubles, radius: float) -> None:
    """Lower the distances to the nearest bead around the beads of a chain.

    No later bead is larger, so distances beyond two radii decide nothing.
    """
    for centre in chain:
        low = np.floor((centre - 2 * radius) / MESH).astype(int).clip(0)
        high = np.ceil((centre + 2 * radius) / MESH).astype(int).clip(0)
        window = room[low[0] : high[0], low[1] : high[1]]
        y, x = (np.arange(n) * MESH for n in window.shape)
        dy, dx = y + low[0] * MESH - centre[0], x + low[1] * MESH - centre[1]
        apart = np.hypot(dy[:, np.newaxis], dx)
        np.minimum(window, apart - CROWDING * radius, out=window)


def _mitochondria(rng: np.random.Generator, beads: Beads, thickness: float) -> Mitochondria:
    """Put some mitochondria into the larger beads."""
    n_z = len(beads.radius)
    # Some have their middle above or below the volume.
    reach = 500.0
    depth = n_z * thickness + 2 * reach
    size = beads.radius.mean(axis=0)
    bead = np.repeat(np.arange(size.size), rng.poisson(np.where(size > 80.0, depth / 2800.0, 0.0)))
    count = bead.size
    radius = np.minimum(size[bead] * rng.uniform(0.3, 0.55, count), rng.uniform(60, 140, count))
    middle = rng.uniform(-reach, depth - reach, count)
    along = (np.arange(n_z)[:, np.newaxis] * thickness - middle) / rng.uniform(150, reach, count)
    direction = rng.uniform(0, 2 * np.pi, count)
    off_centre = 0.7 * (size[bead] - radius) * np.sqrt(rng.uniform(0, 1, count))
    return Mitochondria(
        bead,
        y=(off_centre * np.sin(direction)).astype(np.float32),
        x=(off_centre * np.cos(direction)).astype(np.float32),
        radius=(radius * np.sqrt((1.0 - along**2).clip(0.0))).astype(np.float32),
        aspect=rng.uniform(1.0, 1.7, count).astype(np.float32),
        angle=rng.uniform(0, np.pi, count).astype(np.float32),
    )
