"""Loops over pixels that NumPy cannot express, compiled by numba when they are first called.

Imported only from inside functions: numba takes half a second to load. Images are flat, with a
border of one pixel around them, so that the neighbours of ``p`` are ``p - 1``, ``p - width``,
``p + 1`` and ``p + width`` and none of them needs a check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

F = TypeVar("F", bound=Callable[..., Any])

#: Labels of membrane pixels while they are flooded; 0 is a line, and above 0 are segments.
MASK, QUEUED, OUTSIDE = -2, -3, -4


def _compiled(function: F) -> F:
    # nogil: the other slot of a worker goes on. The cache spares every process some ten seconds;
    # numba writes it whole and keys it by processor and source.
    try:
        return cast(F, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # nowhere to write it: neither beside this file nor in the home
        return cast(F, numba.njit(nogil=True)(function))


@_compiled
def flood(labels: npt.NDArray[np.int32], scan: npt.NDArray[np.int64], width: int) -> None:
    """Grow segments over the membrane, and leave lines where they meet.

    The flooding of Vincent and Soille (1991) on two levels, first in, first out. ``labels`` is
    changed in place; ``scan`` lists the membrane pixels column by column.
    """
    steps = (-1, -width, 1, width)
    queue = np.empty(scan.size, np.int64)
    head = tail = 0
    for p in scan:
        if labels[p - 1] > 0 or labels[p - width] > 0 or labels[p + 1] > 0 or labels[p + width] > 0:
            queue[tail] = p
            tail += 1
    for i in range(tail):
        labels[queue[i]] = QUEUED
    # One flag for the whole image, as in the official code: a line that was drawn beside a line
    # may still be overgrown by a segment, until two segments meet anywhere.
    flag = False
    while head < tail:
        p = queue[head]
        head += 1
        for step in steps:
            q = p + step
            if labels[q] == MASK:
                labels[q] = QUEUED
                queue[tail] = q
                tail += 1
            elif labels[q] >= 0:
                flag = _meet(labels, p, q, flag)


@_compiled
def _meet(labels: npt.NDArray[np.int32], p: int, q: int, flag: bool) -> bool:
    """Let a pixel learn from a labelled neighbour what it is; give the flag anew."""
    if labels[q] == 0:
        if labels[p] == QUEUED:
            labels[p] = 0
            return True
    elif labels[p] == QUEUED or (labels[p] == 0 and flag):
        labels[p] = labels[q]
    elif labels[p] > 0 and labels[p] != labels[q]:
        labels[p] = 0
        return False
    return flag


@_compiled
def warp(
    image: npt.NDArray[np.uint8],
    wrong: npt.NDArray[np.int64],
    simple: npt.NDArray[np.bool],
    width: int,
) -> int:
    """Flip wrong pixels whose flip changes no topology, in the given order, until none is left.

    Gives how many stay wrong, and moves them to the start of ``wrong``.
    """
    count, before = wrong.size, -1
    while count not in (0, before):
        before, kept = count, 0
        for i in range(count):
            p = wrong[i]
            if simple[_around(image, p, width)]:
                image[p] = 1 - image[p]
            else:
                wrong[kept] = p
                kept += 1
        count = kept
    return count


@_compiled
def _around(image: npt.NDArray[np.uint8], p: int, width: int) -> int:
    """Give the eight neighbours as bits, row by row."""
    above, below = p - width, p + width
    return int(
        image[above - 1]
        | image[above] << 1
        | image[above + 1] << 2
        | image[p - 1] << 3
        | image[p + 1] << 4
        | image[below - 1] << 5
        | image[below] << 6
        | image[below + 1] << 7
    )


@_compiled
def count_splits_and_merges(
    image: npt.NDArray[np.uint8],
    ids: npt.NDArray[np.int32],
    wrong: npt.NDArray[np.int64],
    shape: tuple[int, int],
    radius: int,
) -> tuple[int, int]:
    """Tell splits and merges from the other pixels that stay wrong; ``ids`` are 4-connected."""
    width = shape[1] + 2
    seen = np.zeros(image.size, np.int32)
    stack = np.empty(min(2 * radius + 1, shape[0]) * min(2 * radius + 1, shape[1]), np.int64)
    split = merge = 0
    for number in range(wrong.size):
        p = wrong[number]
        found = _distinct_around(ids, p, width)
        if found >= 3:
            split += image[p]
            merge += 1 - image[p]
        elif found == 2 and image[p] == 1:
            row, column = p // width, p % width
            box = (
                max(1, row - radius),
                min(shape[0], row + radius),
                max(1, column - radius),
                min(shape[1], column + radius),
            )
            split += _holds_together(image, seen, stack, p, width, box, number + 1)
    return split, merge


@_compiled
def _distinct_around(ids: npt.NDArray[np.int32], p: int, width: int) -> int:
    """Count the different pieces among the eight neighbours, membrane counting as one."""
    found = 0
    known = np.empty(8, np.int32)
    for row in (p - width, p, p + width):
        for q in (row - 1, row, row + 1):
            if q == p or ids[q] == OUTSIDE:
                continue
            is_new = True
            for i in range(found):
                if known[i] == ids[q]:
                    is_new = False
            if is_new:
                known[found] = ids[q]
                found += 1
    return found


@_compiled
def _holds_together(
    image: npt.NDArray[np.uint8],
    seen: npt.NDArray[np.int32],
    stack: npt.NDArray[np.int64],
    p: int,
    width: int,
    box: tuple[int, int, int, int],
    mark: int,
) -> int:
    """Tell (1 or 0) whether the window falls into more pieces around ``p`` when ``p`` is 0."""
    seen[p] = mark
    kinds = 0
    for row in (p - width, p, p + width):
        for q in (row - 1, row, row + 1):
            if q != p and image[q] == 0:
                kinds = 1
    for row in (p - width, p, p + width):
        for q in (row - 1, row, row + 1):
            if image[q] == 1 and seen[q] != mark:
                kinds += 1
                if kinds > 2:
                    return 1
                _fill(image, seen, stack, q, width, box, mark)
    return 0


@_compiled
def _fill(
    image: npt.NDArray[np.uint8],
    seen: npt.NDArray[np.int32],
    stack: npt.NDArray[np.int64],
    start: int,
    width: int,
    box: tuple[int, int, int, int],
    mark: int,
) -> None:
    """Mark the 4-connected piece of a pixel, within a box of first and last rows and columns."""
    seen[start] = mark
    stack[0] = start
    top = 1
    while top > 0:
        top -= 1
        p = stack[top]
        row, column = p // width, p % width
        for q, inside in (
            (p - 1, column > box[2]),
            (p - width, row > box[0]),
            (p + 1, column < box[3]),
            (p + width, row < box[1]),
        ):
            if inside and image[q] == 1 and seen[q] != mark:
                seen[q] = mark
                stack[top] = q
                top += 1
