"""SEG, adapted Rand error and variation of information: plain loops, and cases checked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tests.support import metric_oracles as oracle
from tilenet.errors import InvalidData
from tilenet.metrics import PairTable, adapted_rand_error, seg_score, variation_of_information

Array = npt.NDArray[Any]


@st.composite
def instance_stacks(draw: st.DrawFn) -> tuple[Array, Array]:
    shape = draw(array_shapes(min_dims=3, max_dims=3, max_side=5))
    dtype = draw(st.sampled_from([np.uint8, np.int32, np.uint64]))
    numbers = st.sampled_from([0, 0, 1, 2, 7, 100])
    labels = draw(arrays(dtype, shape, elements=numbers))
    labels[0, 0, 0] = 7
    return labels, draw(arrays(np.uint16, shape, elements=numbers))


@given(stacks=instance_stacks())
def test_seg_is_the_mean_over_sets_of_pixels(stacks: tuple[Array, Array]) -> None:
    assert seg_score(*stacks) == pytest.approx(oracle.seg(*stacks))


@given(stacks=instance_stacks())
def test_adapted_rand_is_the_sum_over_sets_of_voxels(stacks: tuple[Array, Array]) -> None:
    precision, recall = oracle.adapted_rand(*stacks)
    found = adapted_rand_error(*stacks)
    assert (found.precision, found.recall) == pytest.approx((precision, recall))
    f_score = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert found.error == pytest.approx(1 - f_score)


@given(stacks=instance_stacks())
def test_variation_of_information_is_that_of_counted_pairs(stacks: tuple[Array, Array]) -> None:
    found = variation_of_information(*stacks)
    assert (found.split, found.merge) == pytest.approx(
        oracle.information_variation(*stacks), abs=1e-9
    )
    assert found.total == found.split + found.merge


@given(stacks=instance_stacks(), cut=st.integers(0, 5), axis=st.integers(0, 2))
def test_tables_of_parts_add_up_to_that_of_the_whole(
    stacks: tuple[Array, Array], cut: int, axis: int
) -> None:
    labels, segmentation = stacks
    cut = min(cut, labels.shape[axis])
    parts = zip(np.split(labels, [cut], axis), np.split(segmentation, [cut], axis), strict=True)
    tables = [PairTable.of(*part) for part in parts if part[0].size]
    pooled, whole = PairTable.pooled(reversed(tables)), PairTable.of(labels, segmentation)
    np.testing.assert_array_equal(pooled.true, whole.true)
    np.testing.assert_array_equal(pooled.proposed, whole.proposed)
    np.testing.assert_array_equal(pooled.voxels, whole.voxels)


def test_numbers_beyond_two_to_the_63_are_kept_apart() -> None:
    labels = np.array([[2**64 - 1, 2**64 - 2, 2**63]], np.uint64)
    assert seg_score(labels, labels) == 1
    assert PairTable.of(labels, labels).true.tolist() == sorted(labels.ravel().tolist())


def test_seg_by_hand() -> None:
    labels = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3, 3]])
    found = np.array([[5, 5, 5, 0, 0, 6, 0, 0, 9, 9]])
    # 3 of 4; half of 2 is no match; all of 3.
    assert seg_score(labels, found) == pytest.approx((3 / 4 + 0 + 1) / 3)


def test_what_matches_nothing_does_not_lower_seg() -> None:
    labels = np.array([[1, 1, 0, 0, 0]])
    assert seg_score(labels, np.array([[4, 4, 0, 8, 9]])) == 1


def test_a_merged_cell_loses_seg_of_the_smaller_one() -> None:
    labels = np.array([[1, 1, 1, 2]])
    # One instance covers both: 3/4 of the union with 1, 1/4 of that with 2.
    assert seg_score(labels, np.ones((1, 4), int)) == pytest.approx((3 / 4 + 1 / 4) / 2)


def test_seg_counts_an_instance_once_in_every_section() -> None:
    labels = np.ones((2, 1, 4), int)
    found = np.stack([np.ones((1, 4), int), np.zeros((1, 4), int)])
    assert seg_score(labels, found) == 0.5
    assert PairTable.of(labels, found).seg().score == 0  # in 3-D one instance: half is no match


def test_seg_of_nothing_is_not_a_number() -> None:
    assert math.isnan(seg_score(np.zeros((1, 3), int), np.ones((1, 3), int)))


def test_a_split_costs_recall_and_a_merger_precision() -> None:
    one, two = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]])
    split, merged = adapted_rand_error(one, two), adapted_rand_error(two, one)
    assert (split.precision, split.recall) == (1, 8 / 16)
    assert (merged.precision, merged.recall) == (8 / 16, 1)
    assert split.error == pytest.approx(1 / 3)


def test_the_singleton_term_is_divided_by_all_voxels() -> None:
    labels, found = np.array([[1, 1, 1, 0]]), np.array([[1, 1, 0, 0]])
    assert adapted_rand_error(labels, found).recall == pytest.approx((2**2 + 1 / 4) / 3**2)


def test_halves_cost_one_bit() -> None:
    one, two = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]])
    assert variation_of_information(one, two).split == 1
    assert variation_of_information(one, two).merge == 0
    assert variation_of_information(two, one).merge == 1
    assert variation_of_information(two, two).total == 0


def test_true_background_is_left_out_of_the_information() -> None:
    labels, found = np.array([[0, 0, 1, 1]]), np.array([[3, 4, 5, 5]])
    assert variation_of_information(labels, found).total == 0


@pytest.mark.parametrize("figure", [seg_score, adapted_rand_error, variation_of_information])
@pytest.mark.parametrize(
    ("labels", "found", "said"),
    [
        (np.ones((1, 2, 2), int), np.ones((1, 2, 3), int), "segmentation: its shape"),
        (np.ones((1, 2, 2), int), np.ones((1, 2, 2)), "segmentation: the dtype float64"),
        (np.ones((1, 2, 2)), np.ones((1, 2, 2), int), "labels: the dtype float64"),
        (np.full((1, 2, 2), -3), np.ones((1, 2, 2), int), "negative value -3"),
        (np.ones((1, 0, 2), int), np.ones((1, 0, 2), int), "shape"),
    ],
)
def test_what_is_no_instances_is_refused(
    figure: Any, labels: Array, found: Array, said: str
) -> None:
    with pytest.raises(InvalidData, match=said):
        figure(labels, found)
