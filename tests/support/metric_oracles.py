"""The figures of an evaluation by plain loops over pixels, written from the definitions."""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Section = npt.NDArray[np.bool]
Place = tuple[int, int]

CROSS = ((-1, 0), (0, -1), (1, 0), (0, 1))
RING = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


def flood(mask: Section) -> dict[Place, int]:
    """Number 4-connected pieces by walking from pixel to pixel."""
    return walk(zip(*np.nonzero(mask), strict=True), CROSS)


def walk(places: Iterable[Place], steps: Iterable[Place]) -> dict[Place, int]:
    """Number the connected pieces of a set of places, from 1."""
    left, ids, steps = {(int(y), int(x)) for y, x in places}, dict[Place, int](), tuple(steps)
    for number, start in enumerate(sorted(left), 1):
        waiting = [start]
        while waiting:
            place = waiting.pop()
            if place in left:
                left.remove(place)
                ids[place] = number
                waiting += [(place[0] + dy, place[1] + dx) for dy, dx in steps]
    return ids


def thin(predicted: Section) -> dict[Place, int]:
    """Flood membranes from the segments, as the official watershed does; lines have 0.

    Written with (x, y) places and the words of the description: mark, queue, pop, look around.
    """
    height, width = predicted.shape
    label: dict[Place, int | str] = {(x, y): n for (y, x), n in flood(predicted).items()}
    if not label:
        return dict.fromkeys(itertools.product(range(height), range(width)), 1)
    scan = [p for p in itertools.product(range(width), range(height)) if p not in label]
    queue: deque[Place] = deque()
    for p in scan:
        label[p] = "mask"
        if any(is_number(label.get(q)) for q in around(p)):
            label[p] = "queued"
            queue.append(p)
    flag = False
    while queue:
        p = queue.popleft()
        for q in (q for q in around(p) if q in label):
            if label[q] == "mask":
                label[q] = "queued"
                queue.append(q)
            elif label[q] != "queued":
                label[p], flag = meet(label[p], label[q], flag)
    return {(y, x): int(n) for (x, y), n in label.items()}


def meet(p: int | str, q: int | str, flag: bool) -> tuple[int | str, bool]:
    """What a pixel becomes beside a labelled one, and the flag."""
    if q == 0:
        return (0, True) if p == "queued" else (p, flag)
    if p == "queued" or (p == 0 and flag):
        return q, flag
    return (0, False) if p not in (0, q) else (p, flag)


def around(p: Place) -> list[Place]:
    x, y = p
    return [(x - 1, y), (x, y - 1), (x + 1, y), (x, y + 1)]


def is_number(value: object) -> bool:
    return isinstance(value, int)


def warp(
    interior: Section, scores: Array, threshold: float, radius: int = 20
) -> tuple[int, int, int]:
    """Pixels that split, that merge, and that stay wrong."""
    height, width = interior.shape
    inside = {(int(y), int(x)) for y, x in zip(*np.nonzero(interior), strict=True)}
    target = {(int(y), int(x)) for y, x in zip(*np.nonzero(scores > threshold), strict=True)}
    places = [(y, x) for x in range(width) for y in range(height)]
    before = -1
    while True:
        wrong = [p for p in places if (p in inside) != (p in target)]
        if not wrong or len(wrong) == before:
            break
        before = len(wrong)
        wrong.sort(key=lambda p: -float(np.float32(abs(float(scores[p]) - threshold))))
        for p in wrong:
            if is_simple(inside, p):
                inside ^= {p}
    ids, split, merge = walk(inside, CROSS), 0, 0
    for y, x in wrong:
        near = [(y + dy, x + dx) for dy, dx in RING]
        kinds = {ids.get(q, 0) for q in near if 0 <= q[0] < height and 0 <= q[1] < width}
        if len(kinds) >= 3:
            split, merge = split + ((y, x) in inside), merge + ((y, x) not in inside)
        elif len(kinds) == 2 and (y, x) in inside:
            whole = radius > min(height, width)
            window = {
                q for q in inside - {(y, x)} if whole or max(abs(q[0] - y), abs(q[1] - x)) <= radius
            }
            pieces = walk(window, CROSS)
            split += len({pieces.get(q, 0) for q in near}) > 2
    return split, merge, len(wrong)


def is_simple(inside: set[Place], p: Place) -> bool:
    near = {(p[0] + dy, p[1] + dx) for dy, dx in RING}
    pieces = walk(near & inside, CROSS)
    touching = {pieces[q] for dy, dx in CROSS if (q := (p[0] + dy, p[1] + dx)) in pieces}
    return len(touching) == 1 and len(set(walk(near - inside, RING).values())) == 1


def v_info(truth: dict[Place, int], proposed: dict[Place, int]) -> float:
    """Precision and recall of information, as the official code has them, per section."""
    pairs = [(i, proposed.get(p, 0) or ("alone", p)) for p, i in truth.items()]
    h_truth, h_proposed = entropy(i for i, _ in pairs), entropy(j for _, j in pairs)
    shared = h_truth + h_proposed - entropy(pairs)
    if len({i for i, _ in pairs}) == 1 or len({j for _, j in pairs}) == 1:
        return 0.0
    precision, recall = shared / h_truth, shared / h_proposed
    return 2 * precision * recall / (precision + recall) if shared > 1e-12 else 0.0


def entropy(values: Iterable[Any], log: Callable[[float], float] = math.log) -> float:
    counts = Counter(values)
    total = sum(counts.values())
    return -sum(n / total * log(n / total) for n in counts.values())


def seg(labels: Array, segmentation: Array) -> float:
    """Mean intersection over union of the true instances of all sections, by sets of pixels."""
    found = []
    for truth, proposed in zip(labels, segmentation, strict=True):
        others = pixels_by_value(proposed)
        for pixels in pixels_by_value(truth).values():
            matches = [o for o in others.values() if 2 * len(pixels & o) > len(pixels)]
            assert len(matches) <= 1
            found.append(sum(len(pixels & o) / len(pixels | o) for o in matches))
    return sum(found) / len(found) if found else math.nan


def pixels_by_value(values: Array) -> dict[int, set[tuple[int, ...]]]:
    found: dict[int, set[tuple[int, ...]]] = {}
    for place, value in np.ndenumerate(values):
        if value:
            found.setdefault(int(value), set()).add(place)
    return found


def adapted_rand(labels: Array, segmentation: Array) -> tuple[float, float]:
    """Precision and recall over the volume as one, singletons divided by all voxels."""
    truth, proposed = pixels_by_value(labels), pixels_by_value(segmentation)
    interior = set().union(*truth.values())
    alone = len(interior - set().union(*proposed.values())) / labels.size
    both = sum(len(a & b) ** 2 for a in truth.values() for b in proposed.values()) + alone
    of_proposed = sum(len(b & interior) ** 2 for b in proposed.values()) + alone
    of_truth = sum(len(a) ** 2 for a in truth.values())
    return both / of_proposed if of_proposed else 1.0, both / of_truth


def information_variation(labels: Array, segmentation: Array) -> tuple[float, float]:
    """H(proposed | true) and H(true | proposed) in bits, in true foreground."""
    pairs = [(int(a), int(b)) for a, b in zip(labels.flat, segmentation.flat, strict=True) if a]
    both = entropy(pairs, math.log2)
    return (
        both - entropy((i for i, _ in pairs), math.log2),
        both - entropy((j for _, j in pairs), math.log2),
    )


def near_boundary(labels: Array, distance: int) -> Array:
    """Pixels of a section that lie so near to one that has another label beside it, by looking."""
    height, width = labels.shape
    edges = []
    for y, x in np.ndindex(height, width):
        beside = [(y + dy, x + dx) for dy, dx in CROSS]
        inside = [(a, b) for a, b in beside if 0 <= a < height and 0 <= b < width]
        if any(labels[place] != labels[y, x] for place in inside):
            edges.append((y, x))
    found = np.zeros(labels.shape, bool)
    for y, x in np.ndindex(height, width):
        found[y, x] = any((y - b) ** 2 + (x - a) ** 2 <= distance**2 for b, a in edges)
    return found


def objects(
    truth: Array, proposed: Array, overlap: Fraction, border: int = 0
) -> tuple[int, int, int]:
    """Found, wrong and missed objects of a stack (z, y, x), by sets of voxels."""
    shape = truth.shape[1:]

    def is_beside(voxels: set[tuple[int, ...]]) -> bool:
        for axis, size in zip((1, 2), shape, strict=True):
            centre = Fraction(sum(place[axis] for place in voxels), len(voxels)) + Fraction(1, 2)
            if centre < border or size - centre < border:
                return True
        return False

    true_sets, others = pixels_by_value(truth), pixels_by_value(proposed)
    matched = {
        (a, b)
        for a, voxels in true_sets.items()
        for b, other in others.items()
        if Fraction(len(voxels & other), len(voxels | other)) > overlap
    }
    counted = [a for a, voxels in true_sets.items() if not is_beside(voxels)]
    found = sum(a in counted for a, _ in matched)
    taken = {b for _, b in matched}
    wrong = sum(b not in taken and not is_beside(voxels) for b, voxels in others.items())
    return found, wrong, len(counted) - found
