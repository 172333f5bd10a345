"""Border weight maps: how much every voxel counts in the loss.

Ronneberger et al. 2015 (MICCAI, equation 2): w(x) = w_c(x) + w0 exp(-(d1 + d2)^2 / (2 sigma^2)),
with the distances d1 <= d2 from a background voxel x to the nearest and the second nearest
instance. Here the border term is 0 where d2 > radius, see :mod:`tilenet.labels.weight_rule`. That
makes the weight of a voxel depend on its surroundings only, so that blocks give the same bits as
the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastremap
import numpy as np
import numpy.typing as npt

from tilenet.geometry import Box, zyx
from tilenet.labels.weight_rule import ClassCounts, WeightRule

#: Bytes of an array that shifts are added to at a time.
STRIP_BYTES = 2**18


def border_weights(
    labels_zyx: npt.NDArray[Any],
    rule: WeightRule,
    *,
    counts: ClassCounts | None = None,
    core: Box | None = None,
) -> npt.NDArray[np.float32]:
    """Compute the weight map of labels, or of a block within them.

    Parameters
    ----------
    labels_zyx : ndarray of int, shape (z, y, x)
        Instances; 0 is background. Not changed.
    rule : WeightRule
    counts : ClassCounts, optional
        Of the whole volume, after the gap was made; counted in ``core`` without it.
    core : Box, optional
        The voxels whose weights are wanted, in coordinates of the array, which has to reach
        :attr:`WeightRule.margins` farther or up to the volume's edge; the whole array by default.

    Returns
    -------
    ndarray of float32, shape of ``core``
        Weights.
    """
    core = core or Box.of_shape(zyx(labels_zyx.shape))
    labels = rule.separate(labels_zyx)
    if counts is None:
        counts = ClassCounts.of(labels[core.slices], rule.ignore)
    if not rule.per_section:
        return _weigh(labels, core, rule, counts)
    weights = np.empty(core.shape, np.float32)
    for z in range(core.shape[0]):
        plane = Box((0, *core.start[1:]), (1, *core.stop[1:]))
        start = core.start[0] + z
        weights[z : z + 1] = _weigh(labels[start : start + 1], plane, rule, counts)
    return weights


def _weigh(
    labels: npt.NDArray[Any], core: Box, rule: WeightRule, counts: ClassCounts
) -> npt.NDArray[np.float32]:
    near = core.grow(rule.reach, rule.reach).intersect(Box.of_shape(zyx(labels.shape)))
    labels, core = labels[near.slices], core.relative_to(near.start)
    inner = labels[core.slices]
    outside, inside = counts.weights
    weights = np.where(inner == 0, outside, inside).astype(np.float32)
    if rule.ignore is not None:
        weights[inner == rule.ignore] = 0
    first, second = nearest_two(labels, core, rule)
    bordered = (inner == 0) & (second < rule.far)
    # One flat, contiguous array in float64: every voxel's term is rounded alike wherever it lies.
    d1, d2 = (np.sqrt(squared[bordered] / rule.scale) for squared in (first, second))
    distance = d1 + d2
    term = rule.w0 * np.exp(-(distance * distance) / (2 * rule.sigma**2))
    weights[bordered] = (outside + term).astype(np.float32)
    return weights


def nearest_two(
    labels: npt.NDArray[Any], core: Box, rule: WeightRule
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Compute the squared distances to the two nearest instances of every voxel of ``core``.

    They are in units of 1 / ``rule.scale``, and ``rule.far`` beyond the radius; ``labels`` is one
    section where the rule is per section.

    Along one axis after the other, as in any separable distance transform, but every voxel keeps
    its two nearest instances with their distances. That is enough: the two nearest of a voxel are
    the nearest or second nearest of some voxel in its row. The work does not depend on the
    number of instances, nor on their shape.
    """
    instances = labels if rule.ignore is None else np.where(labels == rule.ignore, 0, labels)
    dense, numbers = fastremap.renumber(np.ascontiguousarray(instances))
    # A distance and the number of an instance in one whole number: the lesser is the nearer.
    bits = len(numbers).bit_length()
    dtype = np.min_scalar_type(-(4 * rule.far << bits))
    nowhere = dtype.type(rule.far << bits)
    first = np.where(dense != 0, dense.astype(dtype), nowhere)
    second = np.full_like(first, nowhere)
    for axis in range(3):
        reach = min(rule.reach[axis], labels.shape[axis] - 1)
        squares = [shift**2 * rule.step_units[axis] << bits for shift in range(1, reach + 1)]
        if squares:
            first, second = _along(axis, first, second, squares=squares, number=(1 << bits) - 1)
    return first[core.slices] >> bits, second[core.slices] >> bits


def _along(
    axis: int,
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    *,
    squares: Sequence[int],
    number: int,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    # Whole strips along the axis, so narrow that they stay in the cache for all shifts.
    moved = [np.moveaxis(values, axis, 0) for values in (first, second)]
    flat = [np.ascontiguousarray(values).reshape(len(values), -1) for values in moved]
    width = max(64, STRIP_BYTES // (len(flat[0]) * first.itemsize))
    for left in range(0, flat[0].shape[1], width):
        strips = [np.ascontiguousarray(values[:, left : left + width]) for values in flat]
        results = _two_least(strips[0], strips[1], squares, first.dtype.type(number))
        for values, result in zip(flat, results, strict=True):
            values[:, left : left + width] = result
    shape = moved[0].shape
    nearest, runner_up = (np.moveaxis(values.reshape(shape), 0, axis) for values in flat)
    return nearest, runner_up


def _two_least(
    first: npt.NDArray[Any], second: npt.NDArray[Any], squares: Sequence[int], number: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    # Over all shifts along the first axis: the least, then the least of another instance.
    kind = first.dtype.type
    nearest, raised = first.copy(), np.empty_like(first)
    for shift, square in enumerate(squares, start=1):
        np.add(first, kind(square), out=raised)
        for target, source in _shifted(shift):
            np.minimum(nearest[target], raised[source], out=nearest[target])
    own, found = first & number, nearest & number
    # A source whose nearest is the target's nearest too has only its second nearest to offer. One
    # whose nearest is another may offer both: the second is farther and does no harm. The choice
    # is a sum, which takes half the time of np.where.
    too_far, same = np.iinfo(kind).max // 2, np.empty_like(first)
    runner_up = np.minimum(second, np.where(own == found, second, first))
    untouched = second.min() == second.max()  # along the first axis nobody has a second yet
    for shift, square in enumerate(squares, start=1):
        if not untouched:
            np.add(second, kind(square), out=raised)
            for target, source in _shifted(shift):
                np.minimum(runner_up[target], raised[source], out=runner_up[target])
        np.add(first, kind(square), out=raised)
        for target, source in _shifted(shift):
            barred = (own[source] == found[target]).view(np.int8)
            offered = np.multiply(barred, kind(too_far), out=same[source])
            offered += raised[source]
            np.minimum(runner_up[target], offered, out=runner_up[target])
    return nearest, runner_up


def _shifted(shift: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    low, high = slice(None, -shift), slice(shift, None)
    return (high, low), (low, high)
