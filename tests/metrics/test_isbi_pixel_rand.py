"""The ISBI 2012 figures against the official code's values and against plain loops."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tests.support.metric_oracles import flood
from tilenet.errors import InvalidData
from tilenet.metrics import ThresholdCurve, isbi_figures
from tilenet.metrics.curves import ISBI_THRESHOLDS

Counts = tuple[int, int, int]
Section = npt.NDArray[np.bool]
Array = npt.NDArray[Any]
Metric = Callable[..., ThresholdCurve]

GOLDEN_CASES = ("noisy_blur", "perfect", "shifted_binary", "toy_merge", "toy_split")


def pixel_curve(labels: Array, proposal: Array) -> ThresholdCurve:
    return isbi_figures(labels, proposal, figures=["pixel"]).pixel_curve


def rand_curve(labels: Array, proposal: Array) -> ThresholdCurve:
    return isbi_figures(labels, proposal, figures=["rand"]).rand_curve


BOTH = pytest.mark.parametrize("metric", [pixel_curve, rand_curve])


# --- the official values ---------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_pixel_error_has_the_official_values(tilenet_data: Path, case: str) -> None:
    labels, proposal, golden = golden_case(tilenet_data, case)
    check_golden(pixel_curve(labels, proposal), golden, "pixel_stats", "pixel_error")


@pytest.mark.data
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_rand_error_has_the_official_values(tilenet_data: Path, case: str) -> None:
    labels, proposal, golden = golden_case(tilenet_data, case)
    check_golden(rand_curve(labels, proposal), golden, "rand_stats_fgr_n2", "rand_error_fgr")


def golden_case(data: Path, case: str) -> tuple[Array, Array, dict[str, Any]]:
    folder = data / "isbi-metrics" / case
    golden: dict[str, Any] = json.loads((folder / "values.json").read_text())
    return tifffile.imread(folder / "labels.tif"), tifffile.imread(folder / "proposal.tif"), golden


def check_golden(curve: ThresholdCurve, golden: dict[str, Any], stats: str, summary: str) -> None:
    # JSON keys are Java's own printing of the thresholds, so this compares them bit for bit.
    assert list(map(repr, curve.thresholds)) == list(golden["thresholds"])
    expected = [at[stats] for at in golden["thresholds"].values()]
    for ours, theirs in (("precision",) * 2, ("recall",) * 2, ("f_score", "fscore")):
        want = [values[theirs] for values in expected]
        assert getattr(curve, ours) == pytest.approx(want, rel=0.0, abs=1e-12)
    assert curve.error == pytest.approx(golden["summary"][summary], rel=0.0, abs=1e-12)


# --- an oracle of plain loops ----------------------------------------------------------------


def pixel_counts(interior: Section, predicted: Section) -> Counts:
    pairs = list(zip(interior.ravel().tolist(), predicted.ravel().tolist(), strict=True))
    return pairs.count((True, True)), pairs.count((False, True)), pairs.count((True, False))


def pair_counts(interior: Section, predicted: Section) -> Counts:
    """Go through all ordered pairs of interior voxels, each with itself included.

    A voxel that the proposal calls membrane shares a segment with nothing but itself.
    """
    truth, proposed = flood(interior), flood(predicted)
    tp = fp = fn = 0
    for a, b in itertools.product(zip(*np.nonzero(interior), strict=True), repeat=2):
        same_truth = truth[a] == truth[b]
        same_proposed = proposed[a] == proposed[b] if predicted[a] and predicted[b] else a == b
        tp += int(same_truth and same_proposed)
        fp += int(same_proposed and not same_truth)
        fn += int(same_truth and not same_proposed)
    return tp, fp, fn


def check_oracle(
    curve: ThresholdCurve,
    labels: Array,
    proposal: Array,
    count: Callable[[Section, Section], Counts],
) -> None:
    for index, threshold in enumerate(curve.thresholds):
        sections = [
            count(truth > 0, np.array([[v > threshold for v in row] for row in scores.tolist()]))
            for truth, scores in zip(labels, proposal, strict=True)
        ]
        tp, fp, fn = map(sum, zip(*sections, strict=True))
        precision = tp / (tp + fp) if fp else 1.0
        recall = tp / (tp + fn) if fn else 1.0
        total = precision + recall
        assert curve.precision[index] == pytest.approx(precision)
        assert curve.recall[index] == pytest.approx(recall)
        assert curve.f_score[index] == pytest.approx(2 * precision * recall / total if total else 0)


@st.composite
def small_stacks(draw: st.DrawFn) -> tuple[Array, Array]:
    """Labels with some interior, and a proposal with values at and between thresholds."""
    shape = draw(array_shapes(min_dims=3, max_dims=3, max_side=5))
    labels = draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255])))
    labels[0, 0, 0] = 255
    values = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0])
    proposal = draw(arrays(np.float64, shape, elements=values))
    return labels, proposal.astype(np.float32) if draw(st.booleans()) else proposal


@given(stacks=small_stacks())
def test_pixel_error_equals_the_plain_loop(stacks: tuple[Array, Array]) -> None:
    check_oracle(pixel_curve(*stacks), *stacks, count=pixel_counts)


@given(stacks=small_stacks())
def test_rand_error_equals_the_loop_over_all_pairs(stacks: tuple[Array, Array]) -> None:
    check_oracle(rand_curve(*stacks), *stacks, count=pair_counts)


# --- conventions -----------------------------------------------------------------------------


def test_thresholds_are_those_of_the_accumulating_loop() -> None:
    assert len(ISBI_THRESHOLDS) == 11
    assert ISBI_THRESHOLDS[3] == 0.30000000000000004
    assert ISBI_THRESHOLDS[-1] == 0.9999999999999999


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_proposal_of_one_is_interior_at_every_threshold(dtype: type[np.floating[Any]]) -> None:
    labels = np.full((1, 4, 4), 255, np.uint8)
    assert pixel_curve(labels, np.ones((1, 4, 4), dtype)).recall == (1.0,) * 11


def at_a_half(curve: ThresholdCurve) -> float:
    return curve.recall[ISBI_THRESHOLDS.index(0.5)]


def test_a_value_at_the_threshold_is_membrane() -> None:
    labels = np.array([[255, 255]], np.uint8)
    curve = pixel_curve(labels, np.array([[0.5, 0.75]]))
    assert at_a_half(curve) == 0.5


def test_segments_that_touch_at_a_corner_are_two() -> None:
    labels = np.array([[255, 255, 255]] * 3, np.uint8)
    proposal = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], np.float32)
    # Five voxels are right; 4-connected, they are segments of 4 and 1, not one of 5.
    assert at_a_half(rand_curve(labels, proposal)) == (4**2 + 1**2 + 4) / 9**2


def test_segments_do_not_reach_through_sections() -> None:
    labels = np.full((2, 3, 3), 1, np.uint8)
    proposal = np.stack([np.ones((3, 3)), np.zeros((3, 3))])
    assert at_a_half(rand_curve(labels, proposal)) == (9**2 + 9) / (2 * 9**2)


@BOTH
def test_one_section_may_come_without_a_z_axis(metric: Metric) -> None:
    labels = np.array([[255, 0, 255], [255, 0, 255]], np.uint8)
    proposal = np.array([[0.9, 0.2, 0.6], [0.8, 0.7, 0.4]])
    assert metric(labels, proposal) == metric(labels[np.newaxis], proposal[np.newaxis])


@BOTH
@pytest.mark.parametrize("dtype", [np.bool, np.int64, np.uint16])
def test_labels_mean_the_same_in_every_dtype(metric: Metric, dtype: type[np.generic]) -> None:
    labels = np.array([[[1, 0, 7], [1, 0, 7]]])
    proposal = np.array([[[0.9, 0.2, 0.6], [0.8, 0.7, 0.4]]])
    assert metric(labels.astype(dtype), proposal) == metric(np.uint8(255) * (labels > 0), proposal)


@BOTH
def test_bool_proposal_is_its_own_binarisation(metric: Metric) -> None:
    labels = np.array([[255, 0, 255, 255]], np.uint8)
    proposal = np.array([[True, False, False, True]])
    assert metric(labels, proposal) == metric(labels, proposal.astype(np.float64))


def test_best_threshold_is_the_lowest_of_the_best() -> None:
    curve = ThresholdCurve((0.0, 0.5, 0.7), (1.0,) * 3, (0.5, 1.0, 1.0), (0.6, 0.875, 0.875))
    assert curve.best_threshold == 0.5
    assert curve.error == 0.125


def test_proposal_without_interior_scores_zero() -> None:
    curve = pixel_curve(np.ones((1, 2, 2), np.uint8), np.zeros((1, 2, 2)))
    assert curve.error == 1.0
    assert set(curve.f_score) == {0.0}


# --- wrong input -----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("labels", "proposal", "said"),
    [
        (np.ones((1, 2, 2), int), np.zeros((1, 2, 3)), "shape"),
        (np.ones(4, int), np.zeros(4), "shape"),
        (np.ones((1, 0, 2), int), np.zeros((1, 0, 2)), "shape"),
        (np.ones((1, 2, 2), float), np.zeros((1, 2, 2)), "float64"),
        (np.ones((1, 2, 2), int), np.zeros((1, 2, 2), complex), "complex128"),
        (np.ones((1, 2, 2), int), np.full((1, 2, 2), np.nan), "NaN"),
        (np.ones((1, 2, 2), int), np.full((1, 2, 2), np.inf), "infinite"),
        (np.ones((1, 2, 2), int), np.full((1, 2, 2), -0.1), "Scale it"),
        (np.ones((1, 2, 2), int), np.full((1, 2, 2), 255, np.uint8), "divide an 8-bit map by 255"),
    ],
)
def test_wrong_arrays_are_refused(
    metric: Metric, labels: Array, proposal: Array, said: str
) -> None:
    with pytest.raises(InvalidData, match=said):
        metric(labels, proposal)


def test_rand_error_refuses_labels_without_interior() -> None:
    with pytest.raises(InvalidData, match="no interior"):
        rand_curve(np.zeros((1, 2, 2), int), np.ones((1, 2, 2)))


def test_curve_survives_pickling() -> None:
    curve = pixel_curve(np.ones((1, 2, 2), int), np.full((1, 2, 2), 0.5))
    assert pickle.loads(pickle.dumps(curve)) == curve
