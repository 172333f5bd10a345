"""Slabs: how an evaluation is fed along one axis, and what that holds. Pure.

Every plane of every feature is computed once, so an evaluation executes the operations of one that
is given its whole input at once; only memory depends on the slab. What is kept from slab to slab
does not depend on how long the input is along the stream axis.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from fractions import Fraction

from tilenet.geometry import ZYX
from tilenet.networks.axis_law import AxisLaw
from tilenet.networks.layers import shape_after
from tilenet.networks.unet_architecture import UNetArchitecture


def slabs(law: AxisLaw, size: int, slab: int) -> Iterator[slice]:
    """Cut an input into the pieces that a network is fed with.

    The first piece is what the input has beyond the network's gain and whole slabs, so that no
    pooling is left with a remainder: from the time that all queues are filled, every layer is
    given one and the same shape.

    Parameters
    ----------
    law : AxisLaw
    size, slab : int
        Input planes, legal for the network, and planes at once, a multiple of the alignment.

    Yields
    ------
    slice
        Of the input, in order; the first and the last may be shorter than ``slab``.
    """
    start = 0
    for stop in (*range(law.gain % slab, size, slab), size):
        if stop > start:
            yield slice(start, stop)
        start = stop


def stream_axis(architecture: UNetArchitecture, input_shape: ZYX) -> int:
    """Choose the axis that an evaluation is fed along.

    Parameters
    ----------
    architecture : UNetArchitecture
    input_shape : tuple of int, (z, y, x)

    Returns
    -------
    int
        The longest, so that the planes are smallest and with them the memory; the first of equals.
        Not z where the network is planar: its sections have nothing to do with one another.
    """
    axes = range(1, 3) if architecture.is_planar else range(3)
    return max(axes, key=lambda axis: input_shape[axis])


def slab_for(architecture: UNetArchitecture, input_shape: ZYX, axis: int, values: int) -> int:
    """Choose how many planes an evaluation is fed at once.

    Parameters
    ----------
    architecture : UNetArchitecture
    input_shape : tuple of int, (z, y, x)
    axis, values : int
        The stream axis, and the values that a slab of features at full resolution has at most.

    Returns
    -------
    int
        A multiple of the alignment: the largest within that, but no more than the input needs.
    """
    unit = architecture.alignment[axis]
    plane = architecture.channels[0] * math.prod(input_shape) // input_shape[axis]
    return unit * max(1, min(values // (plane * unit), -(-input_shape[axis] // unit)))


def fed_planes(law: AxisLaw, size: int, slab: int, wanted: int) -> int:
    """Give how many planes a stream is fed until all that is wanted of its output is complete.

    Parameters
    ----------
    law : AxisLaw
    size, slab, wanted : int
        Input planes of the whole evaluation, planes at once, and output planes wanted, from the
        first.

    Returns
    -------
    int
        No more than ``size``.
    """
    enough = min(size, law.output_for(wanted) + law.gain + law.loss)
    stops: list[int] = [piece.stop for piece in slabs(law, size, slab)]
    return min(stop for stop in stops if stop >= enough)


def live_values(
    architecture: UNetArchitecture,
    input_shape: ZYX,
    *,
    axis: int,
    slab: int,
    unfolded: bool = False,
) -> int:
    """Count the values that are alive at once in an evaluation that is fed slab by slab.

    They are what the layers keep from slab to slab, and what one slab needs on its way.

    Parameters
    ----------
    architecture : UNetArchitecture
    input_shape : tuple of int, legal, (z, y, x)
    axis, slab : int
        The stream axis, and input planes at once.
    unfolded : bool
        Convolutions unfold every kernel position into memory, as PyTorch's do in float64 on CPUs.

    Returns
    -------
    int
        Upper bound; with the weights not counted.
    """
    held, most, _ = _values(architecture, input_shape, axis, slab, unfolded)
    return held + most


def kept_values(architecture: UNetArchitecture, input_shape: ZYX, *, axis: int, slab: int) -> int:
    """Count the values that are alive between two slabs of an evaluation.

    Parameters
    ----------
    architecture : UNetArchitecture
    input_shape : tuple of int, legal, (z, y, x)
    axis, slab : int
        The stream axis, and input planes at once.

    Returns
    -------
    int
        Upper bound: what the layers keep, and the scores that were given last.
    """
    held, _, scores = _values(architecture, input_shape, axis, slab, False)
    return held + scores


@functools.lru_cache(maxsize=4096)  # a planner asks again and again
def _values(
    architecture: UNetArchitecture, input_shape: ZYX, axis: int, slab: int, unfolded: bool
) -> tuple[int, int, int]:
    # What the layers keep, the most that one slab needs on its way, and what the last layer gives.
    shape, held, most, voxels, outputs = input_shape, 0, 0, 0, 0
    planes = Fraction(min(slab, input_shape[axis]))
    for layer in architecture.layers():
        kernel, across = layer.kernel[axis], layer.inputs * math.prod(shape) // shape[axis]
        given, shape = math.ceil(planes) * across, shape_after(layer, shape)
        if layer.kind == "pool":
            # The first and the last slab in the queue may be partly used up.
            crop = architecture.laws[axis].crop(layer.level)
            held += math.ceil(crop + 2 * planes) * across
            planes /= kernel
        elif layer.kind == "up":
            planes *= kernel
        voxels = math.ceil(planes) * math.prod(shape) // shape[axis]
        work = given + layer.outputs * voxels
        if layer.kind == "conv":
            held += (kernel - 1) * across
            work = given + max(given, layer.outputs * voxels)
            work += layer.inputs * math.prod(layer.kernel) * voxels if unfolded else 0
        elif layer.kind == "up":  # the product, and the buffer of the next convolution
            work += 2 * layer.outputs * voxels
        most, outputs = max(most, work), layer.outputs
    return held, most, outputs * voxels
