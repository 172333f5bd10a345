"""Objects at several overlaps, classes, and what is left out of a truth, by plain loops."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tests.support import metric_oracles as oracle
from tilenet.metrics import OVERLAPS, ObjectTally, PairTable, TruthRule, class_scores, most_probable
from tilenet.metrics.objects import Centres

Array = npt.NDArray[Any]


@st.composite
def stacks(draw: st.DrawFn) -> tuple[Array, Array]:
    shape = draw(array_shapes(min_dims=3, max_dims=3, max_side=7))
    numbers = st.sampled_from([0, 1, 1, 2, 9])
    labels = draw(arrays(np.uint8, shape, elements=numbers, fill=st.just(1)))
    # Much the same objects, so that some overlap by more than a half.
    proposed = np.where(draw(arrays(bool, shape, fill=st.just(True))), labels, 0)
    proposed[draw(arrays(bool, shape, fill=st.just(False)))] = 5
    return labels, proposed.astype(np.uint16) * 3


@settings(max_examples=40)
@given(stacks=stacks(), border=st.integers(0, 3), cut=st.integers(1, 6), axis=st.integers(0, 2))
def test_objects_are_those_of_sets_of_voxels_whatever_the_blocks(
    stacks: tuple[Array, Array], border: int, cut: int, axis: int
) -> None:
    labels, proposed = stacks
    tables, true, found = [], [], []
    start = 0
    for size in (cut, 7):
        part = tuple(slice(start, start + size) if a == axis else slice(None) for a in range(3))
        start += size
        if labels[part].size:
            origin = (part[1].start or 0, part[2].start or 0)
            tables.append(PairTable.of(labels[part], proposed[part]))
            true.append(Centres.of(labels[part], origin))
            found.append(Centres.of(proposed[part], origin))
    beside = [Centres.pooled(p).beside(labels.shape[1:], border) for p in (true, found)]
    tally = ObjectTally.of(PairTable.pooled(tables), *beside)
    for overlap, counts in zip(OVERLAPS, tally.counts, strict=True):
        expected = oracle.objects(labels, proposed, Fraction(overlap, 100), border)
        assert (counts.tp, counts.fp, counts.fn) == expected


def test_objects_by_hand() -> None:
    # 3 of 4, so at 0.5 to 0.7; all of 2, at all ten; half of 2, never; a wrong one.
    labels = np.array([[[1, 1, 1, 1, 0, 2, 2, 0, 3, 3, 0, 0]]])
    found = np.array([[[4, 4, 4, 0, 0, 5, 5, 0, 6, 0, 0, 7]]])
    curve = ObjectTally.of(PairTable.of(labels, found)).curve
    assert curve.thresholds == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    assert curve.recall == (2 / 3,) * 5 + (1 / 3,) * 5
    assert curve.precision == (2 / 4,) * 5 + (1 / 4,) * 5
    assert curve.f_score == pytest.approx((4 / 7,) * 5 + (2 / 7,) * 5)


def test_objects_at_the_border_by_hand() -> None:
    # Centres at 1, 5 and 9 of 10: the first and the last lie within two pixels of an edge. The
    # second's match has its centre at 1.5, and counts all the same.
    labels = np.array([[[1, 1, 0, 0, 2, 2, 0, 0, 3, 3]]]).repeat(9, axis=1)
    found = np.array([[[1, 1, 0, 0, 2, 2, 0, 0, 0, 8]]]).repeat(9, axis=1)
    table = PairTable.of(labels, found)
    beside = [Centres.of(ids).beside((9, 10), 2) for ids in (labels, found)]
    assert [ids.tolist() for ids in beside] == [[1, 3], [1, 8]]
    counts = ObjectTally.of(table, *beside).counts[0]
    assert (counts.tp, counts.fp, counts.fn) == (1, 0, 0)
    counts = ObjectTally.of(table).counts[0]
    assert (counts.tp, counts.fp, counts.fn) == (2, 1, 1)
    seg = table.seg(beside[0])
    assert (seg.score, seg.instances) == (1.0, 1)


@given(
    labels=arrays(np.int16, array_shapes(min_dims=3, max_dims=3, max_side=8),
                  elements=st.sampled_from([-1, 0, 3]), fill=st.just(3)),
    distance=st.integers(0, 4),
)  # fmt: skip
def test_pixels_near_a_boundary_are_those_found_by_looking(labels: Array, distance: int) -> None:
    truth = TruthRule(boundary=distance, ignore=-1).judged(labels)
    near = np.stack([oracle.near_boundary(section, distance) for section in labels])
    assert truth.left_out is not None
    np.testing.assert_array_equal(truth.left_out, near | (labels == -1))
    np.testing.assert_array_equal(truth.labels, np.where(truth.left_out, 0, labels))
    assert truth.ignored == (labels == -1).sum()


@settings(max_examples=20)
@given(stacks=stacks())
def test_classes_are_counted_voxel_by_voxel(stacks: tuple[Array, Array]) -> None:
    labels, proposed = stacks[0], stacks[1] // 3
    scores = class_scores(PairTable.of(labels, proposed))
    assert [s.value for s in scores] == sorted({*labels.flat, *proposed.flat})
    for score in scores:
        a, b = labels == score.value, proposed == score.value
        assert score.dice == 2 * (a & b).sum() / (a.sum() + b.sum())
        assert score.iou == (a & b).sum() / (a | b).sum()


def test_the_most_probable_class_is_that_of_the_highest_channel() -> None:
    values = np.array([[[[9, 1, 5]]], [[[3, 2, 5]]], [[[4, 8, 1]]]], np.uint8)
    assert most_probable(values, (0, 7, 3)).tolist() == [[[0, 3, 0]]]  # of equal ones the first
