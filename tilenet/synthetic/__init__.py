"""Artificial serial-section electron micrographs with known truth.

For demonstrations and tests where no real volume may be shipped. Neurites are chains of beads
whose places and sizes drift smoothly from section to section (``_tissue``); each section is the
weighted Voronoi diagram of the beads, drawn with membranes and organelles (``_section``). Lengths
are nanometres and grey values 0 to 255; both imitate the ISBI 2012 volume (Drosophila larva,
50 x 4 x 4 nm; Cardona et al. 2010, PLoS Biol 8:e1000502).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.synthetic._section import cut, instances_of, paint
from tilenet.synthetic._tissue import VoxelSize, grow, smooth_fields

__all__ = ["SyntheticEM", "synthetic_em"]

#: Membranes of some 25 nm cannot be drawn with pixels much larger than this.
LARGEST_PIXEL = 32.0


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticEM:
    """An artificial volume and its truth."""

    # The micrograph; membranes are dark.
    raw: npt.NDArray[np.uint8]
    # A number from 1 for each cell, and 0 on membranes. Different cells never have 4-adjacent
    # voxels within a section.
    instances: npt.NDArray[np.uint32]
    # Nanometres along (z, y, x).
    voxel_size: VoxelSize

    @property
    def cells(self) -> npt.NDArray[np.uint8]:
        """Labels as in ISBI 2012, (z, y, x): 255 inside cells, 0 on membranes."""
        return np.where(self.instances > 0, np.uint8(255), np.uint8(0))


def synthetic_em(
    shape: tuple[int, int, int], *, seed: int, voxel_size: VoxelSize = (50.0, 4.0, 4.0)
) -> SyntheticEM:
    """Draw an artificial serial-section micrograph of neural tissue.

    Shape and voxel size (nanometres; pixels are at most 32) are along (z, y, x). The same seed
    gives the same volume.
    """
    _check(shape, seed, voxel_size)
    # Streams of their own keep the layout what it is when the painting draws more or less.
    for_tissue, for_fields, for_paint = np.random.default_rng(seed).spawn(3)
    tissue = grow(for_tissue, shape, voxel_size)
    raw = np.empty(shape, np.uint8)
    instances = np.empty(shape, np.uint32)
    for z, fields in enumerate(smooth_fields(for_fields, shape, voxel_size)):
        section = cut(tissue.beads, z, fields=fields, voxel=voxel_size)
        instances[z] = instances_of(section, fields, voxel=voxel_size)
        raw[z] = paint(for_paint, tissue, section=section, fields=fields, voxel=voxel_size)
    return SyntheticEM(raw, _consecutive(instances), voxel_size)


def _check(shape: tuple[int, int, int], seed: int, voxel_size: VoxelSize) -> None:
    if len(shape) != 3 or any(size < 1 or int(size) != size for size in shape):
        raise InvalidData(
            what="shape",
            problem=f"{tuple(shape)} is not three positive integers",
            cure="Give voxels along (z, y, x), for example (24, 512, 512).",
        )
    if seed < 0:
        raise InvalidData(
            what="seed", problem=f"{seed} is negative", cure="Give an integer of at least 0."
        )
    if len(voxel_size) != 3 or not all(0.0 < size < math.inf for size in voxel_size):
        raise InvalidData(
            what="voxel_size",
            problem=f"{tuple(voxel_size)} is not three positive lengths",
            cure="Give nanometres along (z, y, x), for example (50, 4, 4).",
        )
    if max(voxel_size[1:]) > LARGEST_PIXEL:
        raise InvalidData(
            what="voxel_size",
            problem=f"pixels of {max(voxel_size[1:]):g} nm are wider than a membrane",
            cure=f"Give at most {LARGEST_PIXEL:g} nm along y and x.",
        )


def _consecutive(ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    present = np.bincount(ids.ravel()) > 0
    present[0] = False
    return np.where(present, present.cumsum(), 0).astype(np.uint32)[ids]
