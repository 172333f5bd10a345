"""Mirrored indices: which stored voxels stand behind those beyond a volume's faces."""

from __future__ import annotations

from tilenet.geometry.box import ZYX, Box, zyx


def mirrored_index(index: int, size: int) -> int:
    """Fold an index of the mirror-padded axis back onto the volume.

    Parameters
    ----------
    index, size : int
        A voxel, outside the volume by any distance; voxels along the axis, at least 1.

    Returns
    -------
    int
        Index in ``range(size)``, as ``numpy.pad(..., mode="reflect")`` would take it: the edge
        voxel is not repeated, and thin axes are reflected repeatedly.
    """
    if size == 1:
        return 0
    period = 2 * (size - 1)
    folded = index % period
    return min(folded, period - folded)


def mirror_source(start: int, stop: int, size: int) -> tuple[int, int]:
    """Give the range of stored voxels that a range of the mirror-padded axis comes from.

    Parameters
    ----------
    start, stop, size : int
        Half-open range, not empty, and voxels along the axis, at least 1.

    Returns
    -------
    tuple of int
        Half-open range within ``range(size)``.
    """
    ends = [mirrored_index(start, size), mirrored_index(stop - 1, size)]
    if size == 1:
        return 0, 1
    # The folded line turns at every multiple of size - 1: at 0 for even, at the edge for odd ones.
    first_turn = -(-start // (size - 1))
    last_turn = (stop - 1) // (size - 1)
    if first_turn <= last_turn:
        ends.append(0 if first_turn % 2 == 0 else size - 1)
    if first_turn < last_turn:
        ends.append(0 if first_turn % 2 == 1 else size - 1)
    return min(ends), max(ends) + 1


def read_box_of(input_box: Box, volume_shape: ZYX) -> Box:
    """Give the stored voxels that are needed to fill an input box.

    Parameters
    ----------
    input_box : Box, not empty, in voxels of the mirror-padded volume
    volume_shape : tuple of int, (z, y, x)

    Returns
    -------
    Box
        Inside the volume.
    """
    ranges = [
        mirror_source(a, b, n)
        for a, b, n in zip(input_box.start, input_box.stop, volume_shape, strict=True)
    ]
    return Box(zyx(a for a, _ in ranges), zyx(b for _, b in ranges))
