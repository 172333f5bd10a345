"""Expected run length: how far one follows a neuron until the segmentation is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class RunLength:
    """What becomes of skeletons in a segmentation.

    Parameters
    ----------
    expected : float
        Nanometres: the mean, over all places of all skeletons, of the length of the run that the
        place is in.
    longest : float
        What it would be if nothing were wrong.
    correct, split, merged, missed : int
        Edges within one segment, from one to another, within segments that hold several
        skeletons, and with an end in none.
    """

    expected: float
    longest: float
    correct: int
    split: int
    merged: int
    missed: int


def run_length(
    lengths: npt.NDArray[np.float64],
    skeleton: npt.NDArray[np.int64],
    segments: npt.NDArray[Any],
    edges: npt.NDArray[np.int64],
) -> RunLength:
    """Follow skeletons through a segmentation.

    An edge belongs to the run of a skeleton in a segment, if both its ends are in that segment and
    no node of another skeleton is; else its run has no length. With the lengths l of runs, the
    expected run length is the sum of l^2 over the length of all skeletons (Januszewski et al. 2018,
    Nat. Methods 15:605).

    Parameters
    ----------
    lengths : ndarray of float64, (m,)
        Of the edges, nanometres.
    skeleton, segments : ndarray of int, (n,)
        Of each node: its skeleton, and the segment that it lies in; 0 is none.
    edges : ndarray of int64, (m, 2)
        Indices of nodes.

    Returns
    -------
    RunLength
        Sums in an order of their own, whatever that of the nodes is.
    """
    _, segment = np.unique(segments, return_inverse=True)
    pairs = np.unique(np.stack([segment, skeleton]), axis=1)
    merges = np.bincount(pairs[0], minlength=segment.max(initial=0) + 1) > 1
    a, b = segment[edges[:, 0]], segment[edges[:, 1]]
    missed = (segments[edges] == 0).any(axis=1)
    split = ~missed & (a != b)
    merged = ~missed & ~split & merges[a]
    correct = ~(missed | split | merged)
    owner = skeleton[edges[:, 0]]
    total = math.fsum(lengths)
    runs = _sums(np.stack([owner[correct], a[correct]]), lengths[correct])
    whole = _sums(owner[None], lengths)
    expected, longest = (math.fsum(n * n for n in sums) / (total or 1.0) for sums in (runs, whole))
    counts = (int(np.count_nonzero(where)) for where in (correct, split, merged, missed))
    return RunLength(expected, longest, *counts)


def _sums(keys: npt.NDArray[np.int64], lengths: npt.NDArray[np.float64]) -> list[float]:
    # In an order of their own, so that that of nodes changes no bit.
    found, group = np.unique(keys, axis=1, return_inverse=True)
    parts: list[list[float]] = [[] for _ in range(found.shape[1])]
    for number, length in zip(group.ravel().tolist(), lengths.tolist(), strict=True):
        parts[number].append(length)
    return [math.fsum(part) for part in parts]
