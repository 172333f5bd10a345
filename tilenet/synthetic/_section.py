"""One section of the tissue: which cell owns each pixel, and what the microscope would show.

A section is the additively weighted Voronoi diagram of the beads in smoothly warped coordinates:
large profiles bulge, and small ones fill the gaps between them. All lengths are nanometres.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from tilenet.synthetic._tissue import LONGEST_CHAIN, Beads, Fields, Floats, Ids, Tissue, VoxelSize

Mask = npt.NDArray[np.bool]

#: Half the width of a membrane in the labels, and the width of its stain.
HALF_MEMBRANE, STAIN_WIDTH = 11.0, 12.0
#: Corners of profiles are rounded to about this.
ROUNDING = 8.0
#: Smaller pieces of cell or membrane are taken for the other (square nanometres).
SMALLEST_PIECE = 700.0
#: The beads that compete for a pixel are looked up on a lattice, since a look-up at each pixel
#: would take most of the time. They are enough to hold two cells, and the lattice does not show.
LATTICE, RIVALS = 16.0, LONGEST_CHAIN + 1
#: Rows that are searched at a time, so that the rivals of all their pixels stay in the cache.
BAND = 32
#: Grey of plain cytoplasm, of the middle of a membrane and of a mitochondrion.
CYTOPLASM, MEMBRANE, MITOCHONDRION = 160.0, 58.0, 106.0
#: Organelles keep this far from the border of their cell.
CLEARANCE = 20.0
#: Area per stained dot or ring in the most crowded cytoplasm.
AREA_PER_VESICLE = 1500.0
#: Radii of dots, microtubules and vesicles, and how frequent they are.
RINGS, RING_SHARES = (0.0, 11.0, 18.0), (0.2, 0.4, 0.4)


class Section(NamedTuple):
    """Number, warped coordinates, the cell that owns each pixel, and the depth inside it."""

    z: int
    y: Floats
    x: Floats
    cell: Ids
    depth: Floats


# --- geometry --------------------------------------------------------------------------------


def cut(beads: Beads, z: int, *, fields: Fields, voxel: VoxelSize) -> Section:
    """Find the owner of each pixel of section ``z``, and how far off its border is."""
    n_y, n_x = fields.warp_y.shape
    y = fields.warp_y + np.arange(n_y, dtype=np.float32)[:, np.newaxis] * np.float32(voxel[1])
    x = fields.warp_x + np.arange(n_x, dtype=np.float32) * np.float32(voxel[2])
    cell, depth = np.empty(y.shape, np.intp), np.empty(y.shape, np.float32)
    for start in range(0, n_y, BAND):
        band = slice(start, start + BAND)
        cell[band], depth[band] = _owners(beads, z, y=y[band], x=x[band], voxel=voxel)
    return Section(z, y, x, cell, depth)


def _owners(beads: Beads, z: int, *, y: Floats, x: Floats, voxel: VoxelSize) -> tuple[Ids, Floats]:
    """Find the owner of each pixel and the distance to the nearest other cell."""
    rivals = _rivals(beads, z, y=y, x=x, voxel=voxel)
    to_y, to_x = y - beads.y[z][rivals], x - beads.x[z][rivals]
    apart = np.hypot(to_y, to_x).clip(1e-3)
    gap = apart - beads.radius[z][rivals]
    owners = beads.cell[rivals]
    first, nearest = _smallest(gap)
    owner = np.take_along_axis(owners, first, axis=0)
    gap[owners == owner] = np.inf
    second, next_nearest = _smallest(gap)
    # A soft minimum over the other cells rounds the corners where several meet.
    rounding = ROUNDING * np.log(np.exp((next_nearest - gap) / ROUNDING).sum(axis=0))
    # Per nanometre towards the border the two gaps close by as much as their directions differ.
    closing = np.hypot(
        _difference(to_y / apart, first, second), _difference(to_x / apart, first, second)
    )
    return owner[0], (next_nearest[0] - rounding - nearest[0]) / closing.clip(0.3)


def _smallest(gap: Floats) -> tuple[Ids, Floats]:
    """Give place and value of the smallest along the first axis, which is kept."""
    index = gap.argmin(axis=0, keepdims=True)
    return index, np.take_along_axis(gap, index, axis=0)


def _difference(values: Floats, first: Ids, second: Ids) -> Floats:
    one, other = (np.take_along_axis(values, index, axis=0)[0] for index in (first, second))
    return np.asarray(one - other)


def _rivals(beads: Beads, z: int, *, y: Floats, x: Floats, voxel: VoxelSize) -> Ids:
    """Find the beads that may own each pixel or border on its owner, (rival, y, x).

    A third coordinate sqrt(R^2 - r^2) makes the nearest neighbours those of the power diagram,
    so that a large bead is found from afar.
    """
    radius = beads.radius[z]
    lift = np.sqrt(radius.max() ** 2 - radius**2)
    tree = cKDTree(np.stack([beads.y[z], beads.x[z], lift], axis=-1))
    steps = [max(1, int(LATTICE / size)) for size in voxel[1:]]
    rows, columns = (
        np.minimum(np.arange(0, size, step) + step // 2, size - 1)
        for size, step in zip(y.shape, steps, strict=True)
    )
    at = np.ix_(rows, columns)
    points = np.stack([y[at], x[at], np.zeros_like(y[at])], axis=-1)
    _, found = tree.query(points, k=min(RIVALS, radius.size))
    whole = np.asarray(found, np.intp).repeat(steps[0], axis=0).repeat(steps[1], axis=1)
    return np.ascontiguousarray(np.moveaxis(whole[: y.shape[0], : y.shape[1]], -1, 0))


def instances_of(section: Section, fields: Fields, *, voxel: VoxelSize) -> npt.NDArray[np.uint32]:
    """Give each cell of a section a number from 1, and membranes, which part them, 0."""
    smallest = SMALLEST_PIECE / (voxel[1] * voxel[2])
    inside = _without_crumbs(section.depth > HALF_MEMBRANE * fields.thickness, smallest)
    inside = ~_without_crumbs(~inside, smallest)
    ids = np.where(inside, section.cell + 1, 0).astype(np.uint32)
    for here, there in ((ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1])):
        # Large pixels can step over a thin membrane.
        here[(here != there) & (there > 0)] = 0
    return ids


def _without_crumbs(mask: Mask, smallest: float) -> Mask:
    pieces, _ = ndimage.label(mask)
    large = np.bincount(pieces.ravel()) >= smallest
    large[0] = False
    return np.asarray(large[pieces])


# --- grey values -----------------------------------------------------------------------------


def paint(
    rng: np.random.Generator,
    tissue: Tissue,
    *,
    section: Section,
    fields: Fields,
    voxel: VoxelSize,
) -> npt.NDArray[np.uint8]:
    """Draw what the microscope would show of a section."""
    grey = _cytoplasm(rng, tissue.tone[section.cell], voxel)
    _paint_mitochondria(grey, tissue, section)
    grey -= _vesicles(rng, tissue, section=section, voxel=voxel)
    grey += _membrane(section, fields) * (MEMBRANE - grey)
    # The electrons' noise belongs to what they pass: bright places have more of it.
    shot = rng.standard_normal(grey.shape, dtype=np.float32)
    grey += 46.0 * np.sqrt(grey.clip(0.0) / CYTOPLASM) * shot
    grey = ndimage.gaussian_filter(grey, [2.9 / size for size in voxel[1:]])
    # Sections differ in thickness and exposure.
    contrast, brightness = rng.normal(1.0, 0.05), rng.normal(0.0, 8.0)
    grey = CYTOPLASM + contrast * (grey - CYTOPLASM) + fields.light + brightness
    return np.rint(grey).clip(0, 255).astype(np.uint8)


def _cytoplasm(rng: np.random.Generator, tone: Floats, voxel: VoxelSize) -> Floats:
    clouds = _grain(rng, tone.shape, sigma=40.0, voxel=voxel)
    specks = _grain(rng, tone.shape, sigma=5.0, voxel=voxel)
    # What is stained stands out more than what is not, so the square makes the histogram skew.
    return np.asarray(CYTOPLASM + tone + 11.0 * clouds + 22.0 * specks - 4.0 * specks**2)


def _grain(
    rng: np.random.Generator, shape: tuple[int, ...], *, sigma: float, voxel: VoxelSize
) -> Floats:
    """Give noise of a deviation of about 1, smooth over ``sigma``."""
    sigmas = [sigma / size for size in voxel[1:]]
    white = rng.standard_normal(shape, dtype=np.float32)
    # A Gaussian filter leaves this much of the deviation of white noise.
    left = math.prod((1.0 + 4.0 * math.pi * pixels**2) ** -0.25 for pixels in sigmas)
    return np.asarray(ndimage.gaussian_filter(white, sigmas, mode="wrap") / np.float32(left))


def _membrane(section: Section, fields: Fields) -> Floats:
    """Give how much of each pixel is stained membrane, 0 to 1."""
    profile = np.exp(-((section.depth / (STAIN_WIDTH * fields.thickness)) ** 2))
    # A membrane that is cut obliquely is wide and somewhat pale.
    return np.asarray((profile * fields.stain / fields.thickness**0.25).clip(0.0, 1.0))


def _paint_mitochondria(grey: Floats, tissue: Tissue, section: Section) -> None:
    """Paint dark bodies with a rim and stripes (cristae) inside their cells."""
    bodies, beads, z = tissue.mitochondria, tissue.beads, section.z
    boxes = ndimage.find_objects(section.cell + 1)
    for body in np.flatnonzero(bodies.radius[z] > 0.0):
        bead = bodies.bead[body]
        owner = beads.cell[bead]
        box = boxes[owner] if owner < len(boxes) else None
        if box is None:
            continue
        dy = section.y[box] - beads.y[z, bead] - bodies.y[body]
        dx = section.x[box] - beads.x[z, bead] - bodies.x[body]
        cos, sin = np.cos(bodies.angle[body]), np.sin(bodies.angle[body])
        along, across = cos * dy + sin * dx, cos * dx - sin * dy
        outside = np.hypot(along / bodies.aspect[body], across) - bodies.radius[z, body]
        cover = (0.5 - outside / 6.0).clip(0.0, 1.0) * (section.cell[box] == owner)
        cover *= ((section.depth[box] - CLEARANCE) / 6.0).clip(0.0, 1.0)
        cristae = 26.0 * np.sin((across + 0.15 * along) * (2.0 * np.pi / 30.0))
        rim = 34.0 * np.exp(-(((outside + 6.0) / 6.0) ** 2))
        grey[box] += cover * (MITOCHONDRION + cristae - rim - grey[box])


def _vesicles(
    rng: np.random.Generator, tissue: Tissue, *, section: Section, voxel: VoxelSize
) -> Floats:
    """Give the stain of dots, microtubules and vesicles: small rings in the cytoplasm."""
    shape, pixel = np.array(section.cell.shape), np.array(voxel[1:])
    count = rng.poisson(shape.prod() * pixel.prod() / AREA_PER_VESICLE)
    centre = rng.uniform(-0.5, shape - 0.5, (count, 2))
    radius = rng.choice(RINGS, count, p=RING_SHARES)
    strength = rng.uniform(35.0, 65.0, count)
    at = tuple(np.rint(centre).astype(int).clip(0, shape - 1).T)
    kept = rng.uniform(0.0, 1.0, count) < tissue.crowd[section.cell[at]]
    kept &= section.depth[at] > CLEARANCE + radius
    # Everything below is (one, row, column) around the centre of each.
    half = np.ceil(1.6 * max(RINGS) / pixel).astype(int)
    spread = np.mgrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1][:, np.newaxis]
    centre, radius, strength = (
        values[kept].T[..., np.newaxis, np.newaxis] for values in (centre, radius, strength)
    )
    nodes = np.rint(centre).astype(int) + spread
    away = np.hypot(*((nodes - centre) * pixel[:, np.newaxis, np.newaxis, np.newaxis]))
    stamps = strength * np.exp(-(((away - radius) / 4.5) ** 2))
    rows, columns = nodes
    seen = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    stain = np.zeros(shape, np.float32)
    # The darkest wins: sums of stains that overlap would be black.
    np.maximum.at(stain, (rows[seen], columns[seen]), stamps[seen].astype(np.float32))
    return stain
