"""Connected components of a block, and what it takes to join them with its neighbours'.

Every block is labelled together with one more voxel on its high side. Two adjacent voxels, across
a face, an edge or a corner of blocks, lie together in the extended box of one block: that of the
lowest coordinates. What two blocks both see, the *shared regions*, is where their labels are
matched: a component of the foreground within such a region belongs to one component of either
block, and both name it by its first voxel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, Box, zyx
from tilenet.volumes import ValueRange

#: Neighbours of a voxel that count as adjacent, within a section and in 3-D.
PLANAR, VOLUMETRIC = (4, 8), (6, 18, 26)


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """What belongs together.

    Parameters
    ----------
    connectivity : int
        4 or 8 within the section; 6, 18 or 26 in 3-D.
    threshold : float or None
        Values above it are foreground, compared in the type of the masks; None: voxels of equal
        value that is not 0 belong together.
    invert : bool
        Values at or below the threshold are foreground instead: the masks are of membranes.
    """

    connectivity: int
    threshold: float | None = 0.0
    invert: bool = False

    def __post_init__(self) -> None:
        if self.connectivity not in PLANAR + VOLUMETRIC:
            cure = "Choose 4 or 8 per section, 6, 18 or 26 in 3-D."
            raise InvalidData("Connectivity", f"is {self.connectivity}", cure)

    @property
    def per_section(self) -> bool:
        """Sections are images of their own."""
        return self.connectivity in PLANAR

    @property
    def reach(self) -> ZYX:
        """Voxels that a block is extended by on its high side, (z, y, x)."""
        return (0, 1, 1) if self.per_section else (1, 1, 1)

    def foreground(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Say what is foreground: not 0, and what may be joined has one value."""
        if self.threshold is None:
            return values
        return np.asarray((values > self.threshold) != self.invert)


@dataclass(frozen=True)
class BlockComponents:
    """The components that a block sees, without their voxels."""

    # First voxel of each in the block's extended box, in (z, y, x) order, as its index in the
    # whole volume; ascending. The n-th component has the block's label n + 1.
    first: npt.NDArray[np.int64]
    contact_voxels: npt.NDArray[np.int64]  # first voxel of every component of a shared region
    contact_labels: npt.NDArray[np.uint32]  # the block's label of that component
    sizes: npt.NDArray[np.int64]  # voxels of each component within the block itself
    values: ValueRange  # of the masks


def extend(box: Box, volume_shape: ZYX, rule: LabelRule) -> Box:
    """Give the box that a block has to see: a voxel more on the high sides, if there is one."""
    return box.grow((0, 0, 0), rule.reach).intersect(Box.of_shape(volume_shape))


def label(
    foreground: npt.NDArray[Any], rule: LabelRule
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Label the connected components of an array, in the order of their first voxels.

    Parameters
    ----------
    foreground : ndarray of bool or int, shape (z, y, x)
        From :meth:`LabelRule.foreground`.
    rule : LabelRule

    Returns
    -------
    labels : ndarray of uint32, shape (z, y, x)
        0 in the background, components from 1.
    first : ndarray of int64, shape (components,)
        Flat index of the first voxel of each, ascending.
    """
    foreground = np.ascontiguousarray(foreground)
    if foreground.dtype == bool and rule.connectivity in (8, 26):
        # Given bool, cc3d 4.1.1 takes a short cut whose union-find may be allocated too small:
        # with 26 it fails on 3 x 1 x 1 voxels with a hole in the middle, with 8 it gives wrong
        # labels of a single row.
        foreground = foreground.view(np.uint8)
    parts = foreground if rule.per_section else [foreground]
    labels = np.empty(foreground.shape, np.uint32)
    count = 0
    for target, part in zip(labels if rule.per_section else [labels], parts, strict=True):
        found, new = cc3d.connected_components(
            part, connectivity=rule.connectivity, out_dtype=np.uint32, return_N=True
        )
        np.add(found, count, out=target, where=found != 0)
        np.copyto(target, 0, where=found == 0)
        count += new
    return _in_order(labels, _first_voxels(labels, count))


def _first_voxels(labels: npt.NDArray[np.uint32], count: int) -> npt.NDArray[np.int64]:
    first = np.empty(count + 1, np.int64)
    stop = labels.size
    for plane in labels[::-1]:
        # Backwards: of several values for one index NumPy keeps the last.
        first[plane.ravel()[::-1]] = np.arange(stop - 1, stop - plane.size - 1, -1)
        stop -= plane.size
    return first[1:]


def _in_order(
    labels: npt.NDArray[np.uint32], first: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    # cc3d does not promise an order, and the second pass must find the labels of the first.
    if (first[1:] > first[:-1]).all():
        return labels, first
    order = np.argsort(first)
    rank = np.zeros(len(first) + 1, np.uint32)
    rank[order + 1] = np.arange(1, len(first) + 1)
    return rank[labels], first[order]


def block_components(
    values: npt.NDArray[Any], box: Box, volume_shape: ZYX, rule: LabelRule
) -> tuple[npt.NDArray[np.uint32], BlockComponents]:
    """Label a block's extended box, ``values``, and say what it shares with its neighbours."""
    origin, foreground = box.start, rule.foreground(values)
    labels, first = label(foreground, rule)
    voxels, owners = [np.empty(0, np.int64)], [np.empty(0, np.uint32)]
    for region in shared_regions(box, volume_shape, rule):
        inner = region.relative_to(origin).slices
        _, starts = label(foreground[inner], rule)
        voxels.append(volume_index(starts, region, volume_shape))
        owners.append(labels[inner].ravel()[starts])
    whole = extend(box, volume_shape, rule)
    # Each voxel counts in the one block that it lies in.
    own = labels[box.relative_to(origin).slices]
    return labels, BlockComponents(
        volume_index(first, whole, volume_shape), np.concatenate(voxels), np.concatenate(owners),
        np.bincount(own.ravel(), minlength=len(first) + 1)[1:], ValueRange.of(values),
    )  # fmt: skip


def shared_regions(box: Box, volume_shape: ZYX, rule: LabelRule) -> Iterator[Box]:
    """List what a block and a block on its high side both see.

    Up to seven regions of neighbours (faces, edges, a corner), and up to seven of this block that
    neighbours on the low side see.
    """
    for steps in itertools.product(*(range(n + 1) for n in rule.reach)):
        if not any(steps):
            continue
        axes = list(zip(box.start, box.stop, volume_shape, steps, strict=True))
        if all(not step or stop < size for _, stop, size, step in axes):
            yield Box(
                zyx(stop if step else start for start, stop, _, step in axes),
                zyx(stop + step for _, stop, _, step in axes),
            )
        if all(not step or start > 0 for start, _, _, step in axes):
            yield Box(box.start, zyx(a + 1 if step else b for a, b, _, step in axes))


def volume_index(flat: npt.NDArray[np.int64], box: Box, volume_shape: ZYX) -> npt.NDArray[np.int64]:
    """Turn flat indices within a box into flat indices within the volume."""
    places = zip(np.unravel_index(flat, box.shape), box.start, strict=True)
    return np.ravel_multi_index(tuple(place + start for place, start in places), volume_shape)
