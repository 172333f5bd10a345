"""Mirror padding of a part of a volume, as if the whole volume had been padded.

NumPy's ``reflect``: the edge voxel is not repeated. Dask's "reflect" is NumPy's "symmetric",
which repeats it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilenet.geometry import ZYX, Box, mirrored_index


def mirror(
    stored: npt.NDArray[np.generic], read_box: Box, *, input_box: Box, volume_shape: ZYX
) -> npt.NDArray[np.generic]:
    """Fill an input box from the stored voxels behind it.

    Parameters
    ----------
    stored : ndarray, shape (..., z, y, x), any dtype
        The voxels of ``read_box``.
    read_box : Box
        Where ``stored`` lies in the volume; see :func:`tilenet.geometry.read_box_of`.
    input_box : Box
        The box to fill; may leave the volume on every side, by any distance.
    volume_shape : tuple of int
        Shape of the whole volume, (z, y, x).

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
