"""Mirror padding of a part of a volume, as if the whole volume had been padded.

NumPy's ``reflect``: the edge voxel is not repeated. Dask's "reflect" is NumPy's "symmetric",
which repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tilenet.geometry import ZYX, Box, mirrored_index, read_box_of, zyx


def read_mirrored(
    read: Callable[[Box], npt.NDArray[Any]], box: Box, region: Box
) -> npt.NDArray[Any]:
    """Read a box, mirrored at the faces of a region as if the volume ended there.

    Parameters
    ----------
    read : callable
        Gives the stored voxels of a box inside the region: ndarray of shape (..., z, y, x).
    box, region : Box
        The box may leave the region, a part of the volume or all of it, by any distance.

    Returns
    -------
    ndarray, shape (..., z, y, x)
        What is read, and mirrored.
    """
    inside = box.relative_to(region.start)
    stored_box = read_box_of(inside, region.shape)
    stored = read(stored_box.relative_to(zyx(-n for n in region.start)))
    return mirror(stored, stored_box, input_box=inside, volume_shape=region.shape)


def mirror(
    stored: npt.NDArray[np.generic], read_box: Box, *, input_box: Box, volume_shape: ZYX
) -> npt.NDArray[np.generic]:
    """Fill an input box from the stored voxels behind it.

    Parameters
    ----------
    stored : ndarray, shape (..., z, y, x), any dtype
    read_box, input_box : Box
        Where ``stored`` lies in the volume, see :func:`tilenet.geometry.read_box_of`, and the box
        to fill, which may leave the volume by any distance.
    volume_shape : tuple of int, (z, y, x)

    Returns
    -------
    ndarray, shape (..., z, y, x)
        What ``numpy.pad(whole, ..., mode="reflect")`` has in ``input_box``. It shares memory with
        ``stored`` where nothing is mirrored.
    """
    result = stored
    for axis in range(3):
        start, stop = input_box.start[axis], input_box.stop[axis]
        origin, size = read_box.start[axis], volume_shape[axis]
        dimension = stored.ndim - 3 + axis
        if start >= 0 and stop <= size:
            cut = [slice(None)] * stored.ndim
            cut[dimension] = slice(start - origin, stop - origin)
            result = result[tuple(cut)]
        else:
            indices = [mirrored_index(i, size) - origin for i in range(start, stop)]
            result = np.take(result, indices, axis=dimension)
    return result
