"""Warping error, V_Rand and V_Info: official values, plain loops, and cases checked by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tests.metrics.test_isbi_pixel_rand import (
    GOLDEN_CASES,
    golden_case,
    pair_counts,
    small_stacks,
)
from tests.support import metric_oracles as oracle
from tests.whole.test_imports import modules_after
from tilenet.errors import InvalidData
from tilenet.metrics import (
    is_inverted,
    isbi_figures,
    segments,
    tally_section,
)
from tilenet.metrics.curves import ISBI_THRESHOLDS, WARPING_THRESHOLDS
from tilenet.metrics.overlaps import Overlaps
from tilenet.metrics.thinning import thinned_segments
from tilenet.metrics.warping import simple_points, warp_counts

Array = npt.NDArray[Any]

#: What is counted, and the curves that follow.
CURVES = {
    "warping": ["warping_curve"],
    "rand": ["rand_curve"],
    "pixel": ["pixel_curve"],
    "thinned": ["v_rand_curve", "v_info_curve"],
}


def exactly(values: Any) -> Any:
    return pytest.approx(values, rel=0.0, abs=1e-12)


# --- the official values ---------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_warping_error_has_the_official_values(tilenet_data: Path, case: str) -> None:
    labels, proposal, golden = golden_case(tilenet_data, case)
    *want, last = (at["warping_splitmerge_bytype_r20"] for at in golden["thresholds"].values())
    found = isbi_figures(labels, proposal, figures=["warping"])
    assert found.warping_curve.errors == pytest.approx(want)
    assert found.warping == exactly(golden["summary"]["warping_error"])
    # The figure leaves out the last threshold, but the official values have it.
    stacks = (array.reshape((-1, *array.shape[-2:])) for array in (labels > 0, proposal))
    counts = [
        warp_counts(interior, scores.astype(np.float64), ISBI_THRESHOLDS[-1])
        for interior, scores in zip(*stacks, strict=True)
    ]
    assert sum(at.split + at.merge for at in counts) / labels.size == pytest.approx(last)


@pytest.mark.data
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_all_that_stays_wrong_is_the_official_classic_error(tilenet_data: Path, case: str) -> None:
    labels, proposal, golden = golden_case(tilenet_data, case)
    stacks = (array.reshape((-1, *array.shape[-2:])) for array in (labels, proposal))
    tallies = [tally_section(*s, figures={"warping"}) for s in zip(*stacks, strict=True)]
    for index, threshold in enumerate(WARPING_THRESHOLDS):
        wrong = sum(tally.warped[index].wrong for tally in tallies) / labels.size
        want = golden["thresholds"][repr(threshold)]["warping_classic"]
        assert wrong == exactly(want)


@pytest.mark.data
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_v_rand_thinned_has_the_official_values(tilenet_data: Path, case: str) -> None:
    labels, proposal, golden = golden_case(tilenet_data, case)
    curve = isbi_figures(labels, proposal, figures=["thinned"]).v_rand_curve
    expected = [at["vrand_thin_perslice"] for at in golden["thresholds"].values()]
    for ours, theirs in (("precision",) * 2, ("recall",) * 2, ("f_score", "fscore")):
        want = [values[theirs] for values in expected]
        assert getattr(curve, ours) == exactly(want)
    assert curve.score == exactly(golden["summary"]["vrand_thin"])


@pytest.mark.data
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_v_info_thinned_has_the_official_values(tilenet_data: Path, case: str) -> None:
    labels, proposal, golden = golden_case(tilenet_data, case)
    curve = isbi_figures(labels, proposal, figures=["thinned"]).v_info_curve
    want = [at["vinfo_thin"] for at in golden["thresholds"].values()]
    assert curve.scores == exactly(want)
    assert curve.score == exactly(golden["summary"]["vinfo_thin"])


@pytest.mark.data
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_isbi_figures_has_all_five_official_values(tilenet_data: Path, case: str) -> None:
    labels, proposal, golden = golden_case(tilenet_data, case)
    figures, summary = isbi_figures(labels, proposal), golden["summary"]
    ours = (figures.warping, figures.rand, figures.pixel)
    want = [summary[name] for name in ("warping_error", "rand_error_fgr", "pixel_error")]
    assert ours == exactly(want)
    assert figures.v_rand_thinned == exactly(summary["vrand_thin"])
    assert figures.v_info_thinned == exactly(summary["vinfo_thin"])


# --- plain loops -----------------------------------------------------------------------------


@st.composite
def sections(draw: st.DrawFn, values: tuple[float, ...] = (0.0, 1.0), side: int = 12) -> Array:
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=side))
    return draw(arrays(np.float64, shape, elements=st.sampled_from(values)))


def same_pieces(ids: Array, expected: dict[tuple[int, int], int]) -> bool:
    """Same pixels without a piece, and the others in the same pieces, whatever their numbers."""
    pairs = {(int(n), expected.get((int(y), int(x)), 0)) for (y, x), n in np.ndenumerate(ids)}
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    one_to_one = len(set(ours)) == len(ours) and len(set(theirs)) == len(theirs)
    return one_to_one and all((a == 0) == (b == 0) for a, b in pairs)


@given(values=sections())
def test_segments_are_the_pieces_of_a_walk(values: Array) -> None:
    assert same_pieces(segments(values > 0), oracle.flood(values > 0))


@settings(max_examples=300)
@given(values=sections())
def test_thinning_is_the_flooding_by_the_book(values: Array) -> None:
    assert same_pieces(thinned_segments(values > 0), oracle.thin(values > 0))


@pytest.mark.parametrize("share", [0.03, 0.1, 0.4, 0.7])
def test_thinning_keeps_to_the_order_of_the_book(share: float) -> None:
    rng = np.random.default_rng(8)
    for _ in range(5):
        predicted = rng.random((24, 31)) < share
        assert same_pieces(thinned_segments(predicted), oracle.thin(predicted))


@settings(max_examples=200)
@given(data=st.data(), radius=st.sampled_from([1, 2, 3, 20]))
def test_warping_is_the_loop_by_the_book(data: st.DataObject, radius: int) -> None:
    scores = data.draw(sections(values=(0.0, 0.2, 0.5, 0.7, 1.0), side=9))
    interior = data.draw(arrays(np.bool, scores.shape))
    for threshold in (0.0, 0.3, 0.6):
        counts = warp_counts(interior, scores, threshold, radius=radius)
        expected = oracle.warp(interior, scores, threshold, radius)
        assert (counts.split, counts.merge, counts.wrong) == expected


@given(stacks=small_stacks())
def test_thinned_scores_are_those_of_the_loops(stacks: tuple[Array, Array]) -> None:
    found = isbi_figures(*stacks, figures=["thinned"])
    v_rand, v_info = found.v_rand_curve, found.v_info_curve
    for index, threshold in enumerate(ISBI_THRESHOLDS):
        f_scores, infos = [], []
        for labels, proposal in zip(*stacks, strict=True):
            if not (labels > 0).any():
                continue
            thinned = oracle.thin(proposal.astype(np.float64) > threshold)
            truth = oracle.flood(labels > 0)
            proposed = {p: n for p, n in thinned.items() if n}
            tp, fp, fn = loop_pairs(truth, proposed)
            precision = tp / (tp + fp) if fp else 1.0
            recall = tp / (tp + fn) if fn else 1.0
            f_scores.append(2 * precision * recall / (precision + recall))
            infos.append(oracle.v_info(truth, proposed))
        assert v_rand.f_score[index] == pytest.approx(np.mean(f_scores))
        assert v_info.scores[index] == pytest.approx(np.mean(infos), abs=1e-9)


def loop_pairs(truth: dict[Any, int], proposed: dict[Any, int]) -> tuple[int, int, int]:
    tp = fp = fn = 0
    for a in truth:
        for b in truth:
            same_truth = truth[a] == truth[b]
            known = a in proposed and b in proposed
            same_proposed = proposed[a] == proposed[b] if known else a == b
            tp += same_truth and same_proposed
            fp += same_proposed and not same_truth
            fn += same_truth and not same_proposed
    return tp, fp, fn


@given(values=sections(side=5))
def test_rand_pairs_of_the_table_are_those_of_the_loop(values: Array) -> None:
    interior = np.ones(values.shape, np.bool)
    interior[values.shape[0] // 2] = values.shape[0] == 1
    predicted = values > 0
    overlaps = Overlaps.of(segments(interior)[interior], segments(predicted)[interior])
    counts = overlaps.pair_counts()
    assert (counts.tp, counts.fp, counts.fn) == pair_counts(interior, predicted)


@settings(max_examples=30)
@given(stacks=small_stacks())
def test_isbi_figures_are_those_computed_one_by_one(stacks: tuple[Array, Array]) -> None:
    figures = isbi_figures(*stacks)
    for name, curves in CURVES.items():
        alone = isbi_figures(*stacks, figures=[name])
        for curve in curves:
            assert getattr(figures, curve) == getattr(alone, curve)


@pytest.mark.parametrize("name", CURVES)
def test_a_figure_that_was_not_asked_for_is_refused(name: str) -> None:
    found = isbi_figures(two_cells(), np.ones((1, 7, 9)), figures=CURVES.keys() - {name})
    for curve in CURVES[name]:
        with pytest.raises(ValueError, match=f"{name} was not counted"):
            getattr(found, curve)


def test_a_figure_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidData, match=r"rnad is none of them\. Take some of pixel, rand"):
        isbi_figures(two_cells(), np.ones((1, 7, 9)), figures=["rand", "rnad"])


@settings(max_examples=50)
@given(data=st.data())
def test_flipping_a_simple_point_changes_no_number_of_pieces(data: st.DataObject) -> None:
    inside = {tuple(p) for p in np.argwhere(data.draw(arrays(np.bool, (5, 5)))) + 1}
    everywhere = {(y, x) for y in range(7) for x in range(7)}
    for place in sorted(everywhere - {p for p in everywhere if 0 in p or 6 in p}):
        ring = [(place[0] + dy, place[1] + dx) in inside for dy, dx in oracle.RING]
        if simple_points()[sum(bit << i for i, bit in enumerate(ring))]:
            assert pieces(inside, everywhere) == pieces(inside ^ {place}, everywhere)


def pieces(inside: set[Any], everywhere: set[Any]) -> tuple[int, int]:
    interior, membrane = oracle.walk(inside, oracle.CROSS), everywhere - inside
    return len(set(interior.values())), len(set(oracle.walk(membrane, oracle.RING).values()))


# --- by hand ---------------------------------------------------------------------------------


def two_cells() -> Array:
    labels = np.full((1, 7, 9), 255, np.uint8)
    labels[:, :, 4] = 0
    return labels


def test_a_hole_in_a_membrane_is_one_merge() -> None:
    proposal = (two_cells() > 0).astype(np.float32)
    proposal[0, 3, 4] = 1
    counts = warp_counts(two_cells()[0] > 0, proposal[0].astype(np.float64), 0.5)
    assert (counts.split, counts.merge, counts.wrong) == (0, 1, 1)
    assert isbi_figures(two_cells(), proposal, figures=["warping"]).warping == 1 / 63


def test_a_membrane_through_a_cell_is_one_split_however_long_it_is() -> None:
    labels = np.full((1, 7, 9), 255, np.uint8)
    proposal = (two_cells() > 0).astype(np.float32)
    counts = warp_counts(labels[0] > 0, proposal[0].astype(np.float64), 0.5)
    # From both ends the line grows into the cell; its last pixel would cut it.
    assert (counts.split, counts.merge, counts.wrong) == (1, 0, 1)
    assert isbi_figures(labels, proposal, figures=["warping"]).warping == 1 / 63


def test_a_moved_membrane_is_no_warping_error_but_a_pixel_error() -> None:
    proposal = np.roll((two_cells() > 0).astype(np.float32), 1, axis=2)
    figures = isbi_figures(two_cells(), proposal)
    assert figures.warping == 0
    # 49 of 56 interior pixels are right, and 7 are interior wrongly.
    assert figures.pixel == pytest.approx(1 - 49 / 56)


def test_a_speck_is_wrong_but_neither_split_nor_merge() -> None:
    interior = np.zeros((7, 7), np.bool)
    interior[1:3, 1:3] = True
    scores = interior.astype(np.float64)
    scores[5, 5] = 1
    counts = warp_counts(interior, scores, 0.5)
    assert (counts.split, counts.merge, counts.wrong) == (0, 0, 1)


def test_a_cut_ring_is_split_within_the_window_and_whole_beyond() -> None:
    interior = np.zeros((9, 9), np.bool)
    interior[1:8, 1:8] = True
    interior[3:6, 3:6] = False
    scores = interior.astype(np.float64)
    scores[1:3, 4] = 0
    assert warp_counts(interior, scores, 0.5, radius=2).split == 1
    assert warp_counts(interior, scores, 0.5, radius=9).split == 0
    assert warp_counts(interior, scores, 0.5, radius=20).split == 0  # more than the section


def test_thinning_leaves_a_line_one_pixel_wide_in_the_middle() -> None:
    predicted = np.zeros((3, 9), np.bool)
    predicted[:, :2] = predicted[:, -2:] = True
    thinned = thinned_segments(predicted)
    assert np.count_nonzero(thinned[1] == 0) == 1
    assert thinned[1, 4] == 0
    assert len(set(thinned[1, :4])) == len(set(thinned[1, 5:])) == 1


def test_a_section_of_membrane_thins_to_one_segment() -> None:
    assert (thinned_segments(np.zeros((3, 4), np.bool)) == 1).all()


def test_thick_membranes_cost_nothing_after_thinning() -> None:
    labels = two_cells()
    proposal = np.zeros(labels.shape, np.float32)
    proposal[0, 2:5, 1:3] = proposal[0, 2:5, 6:8] = 1
    figures = isbi_figures(labels, proposal)
    assert figures.v_rand_thinned == figures.v_info_thinned == 1
    assert figures.rand > 0.5


def test_merged_cells_share_half_of_the_pairs_and_no_information() -> None:
    figures = isbi_figures(two_cells(), np.ones((1, 7, 9)))
    # 28 pixels each: tp + fp = 56^2, tp + fn = 2 x 28^2.
    assert figures.v_rand_thinned == pytest.approx(2 / 3)
    assert figures.v_info_thinned == 0


def test_sections_without_interior_are_left_out_of_the_means() -> None:
    labels = np.concatenate([two_cells(), np.zeros_like(two_cells())])
    proposal = (labels > 0).astype(np.float32)
    figures = isbi_figures(labels, proposal)
    assert figures.v_rand_thinned == figures.v_info_thinned == 1
    assert figures.rand == 0


def test_figures_say_where_they_are_reached() -> None:
    labels = two_cells()
    proposal = np.where(labels > 0, 0.65, 0.35)
    figures = isbi_figures(labels, proposal)
    for curve in itertools.chain.from_iterable(CURVES.values()):
        assert getattr(figures, curve).best_threshold == 0.4
    assert (figures.warping, figures.rand, figures.pixel) == (0, 0, 0)


def test_the_warping_error_is_not_taken_at_the_last_threshold() -> None:
    assert len(isbi_figures(two_cells(), np.ones((1, 7, 9))).warping_curve.errors) == 10


# --- polarity, and wrong input ---------------------------------------------------------------


@pytest.mark.parametrize("sharp", [True, False])
def test_polarity_is_told_of_hard_and_of_soft_predictions(sharp: bool) -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(two_cells(), 3, axis=0)
    noise = 0.0 if sharp else rng.uniform(0, 0.3, labels.shape)
    proposal = np.abs((labels > 0) - noise)
    assert not is_inverted(labels, proposal)
    assert is_inverted(labels, 1 - proposal)


def test_a_prediction_that_knows_nothing_is_not_inverted() -> None:
    labels = np.repeat(two_cells(), 3, axis=0)
    assert not is_inverted(labels, np.full(labels.shape, 0.5))
    assert not is_inverted(labels, np.ones(labels.shape))


@pytest.mark.parametrize("figures", [CURVES, ["thinned"]])
def test_labels_without_interior_are_refused(figures: Iterable[str]) -> None:
    with pytest.raises(InvalidData, match="no interior"):
        isbi_figures(np.zeros((1, 2, 2), int), np.ones((1, 2, 2)), figures=figures)


@pytest.mark.parametrize("figures", [CURVES, ["warping"], ["thinned"]])
def test_wrong_arrays_are_refused(figures: Iterable[str]) -> None:
    with pytest.raises(InvalidData, match=r"\(1, 2, 3\)"):
        isbi_figures(np.ones((1, 2, 2), int), np.ones((1, 2, 3)), figures=figures)
    with pytest.raises(InvalidData, match="divide an 8-bit map by 255"):
        isbi_figures(np.ones((1, 2, 2), int), np.full((1, 2, 2), 255, np.uint8), figures=figures)


def test_the_figures_load_numba_only_when_it_is_needed() -> None:
    assert "numba" not in modules_after(
        "from tilenet.metrics import *; import tilenet.metrics.evaluate_task"
    )


@pytest.mark.data
def test_real_sections_agree_with_themselves_and_not_with_a_merger(tilenet_data: Path) -> None:
    path = tilenet_data / "isbi2012" / "train-labels.tif"
    labels = tifffile.imread(path, key=[0, 1])[:, :256, :256]
    itself = isbi_figures(labels, labels > 0)
    assert (itself.warping, itself.rand, itself.pixel) == (0, 0, 0)
    assert itself.v_rand_thinned == pytest.approx(1)
    assert itself.v_info_thinned == pytest.approx(1)
    # A bridge between the two largest cells: hardly wrong pixel by pixel, and badly in segments.
    proposal, ids = (labels > 0).astype(np.float32), segments(labels[0] > 0)
    cells = np.argsort(np.bincount(ids.ravel())[1:])[-2:] + 1
    (y, x), (end_y, end_x) = (np.argwhere(ids == cell)[0] for cell in cells)
    proposal[0, min(y, end_y) : max(y, end_y) + 1, x] = 1
    proposal[0, end_y, min(x, end_x) : max(x, end_x) + 1] = 1
    merged = isbi_figures(labels, proposal)
    assert merged.pixel < 0.01 < merged.rand
    assert merged.warping > 0
    assert merged.v_info_thinned < itself.v_info_thinned
