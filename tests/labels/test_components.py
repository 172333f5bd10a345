"""Instances block by block against cc3d on the whole, renumbered by first voxel."""

from __future__ import annotations

from collections import Counter
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, BlockGrid, zyx
from tilenet.labels import LabelRule, SizeRule, id_dtype, join, label
from tilenet.labels.components import BlockComponents, block_components, extend
from tilenet.volumes import stored_cut


def slow_label(values: npt.NDArray[Any], rule: LabelRule) -> npt.NDArray[np.int64]:
    """cc3d on the whole (per section: on each), then ids by first voxel, one by one."""
    foreground = values if rule.threshold is None else (values > rule.threshold).astype(np.uint8)
    labels = np.zeros(values.shape, np.int64)
    parts = range(len(values)) if rule.per_section else [slice(None)]
    for part in parts:
        found = cc3d.connected_components(foreground[part], connectivity=rule.connectivity)
        labels[part] = np.where(found, found + labels.max(), 0)
    ids: dict[int, int] = {}
    for value in labels.ravel().tolist():
        if value:
            ids.setdefault(value, len(ids) + 1)
    return np.array([ids.get(v, 0) for v in labels.ravel().tolist()]).reshape(labels.shape)


def label_blocks(
    values: npt.NDArray[Any], block: ZYX, rule: LabelRule, sizes: SizeRule | None = None
) -> tuple[npt.NDArray[Any], list[BlockComponents]]:
    """Both passes, in a loop."""
    shape = zyx(values.shape)
    grid = BlockGrid(shape, block)
    seen = [
        block_components(values[extend(box, shape, rule).slices], box, shape, rule) for box in grid
    ]
    table = join([components for _, components in seen], sizes)
    some = values[values != 0].tolist()
    assert (table.values.lowest, table.values.highest) == (
        min(some, default=None),
        max(some, default=None),
    )
    result = np.zeros(shape, table.ids.dtype)
    for i, (box, (labels, _)) in enumerate(zip(grid, seen, strict=True)):
        ids = np.concatenate([[0], table.ids[table.offsets[i] : table.offsets[i + 1]]])
        result[box.slices] = ids[labels[box.relative_to(box.start).slices]]
    assert table.count == result.max(initial=0)
    return result, [components for _, components in seen]


def choose(labels: npt.NDArray[np.int64], sizes: SizeRule) -> npt.NDArray[np.int64]:
    """Keep instances by their sizes, counted voxel by voxel, and number them anew."""
    counts = Counter(value for value in labels.ravel().tolist() if value)
    kept = [v for v in sorted(counts) if (sizes.min_size or 0) <= counts[v]]
    kept = [v for v in kept if sizes.max_size is None or counts[v] <= sizes.max_size]
    if sizes.largest is not None:
        kept = sorted(sorted(kept, key=lambda v: (-counts[v], v))[: sizes.largest])
    ids = {value: number for number, value in enumerate(kept, 1)}
    return np.array([ids.get(v, 0) for v in labels.ravel().tolist()]).reshape(labels.shape)


@st.composite
def cases(draw: st.DrawFn) -> tuple[npt.NDArray[Any], LabelRule]:
    shape = draw(st.tuples(*(st.integers(1, 9) for _ in range(3))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["uint8", "int16", "uint64", "float32"]))
    by_value = kind != "float32" and draw(st.booleans())
    values = rng.integers(0, draw(st.integers(2, 4)), shape).astype(kind)
    # Sparse enough that pieces stay apart, or dense enough that they wind through many blocks.
    values[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.6, 0.9]))] = 0
    threshold = None if by_value else draw(st.sampled_from([0.0, 1.0, -1.0, 0.5]))
    connectivity = draw(st.sampled_from([4, 8, 6, 18, 26]))
    return values, LabelRule(connectivity=connectivity, threshold=threshold)


@given(cases(), st.tuples(*(st.integers(1, 5) for _ in range(3))))
def test_blocks_give_the_labels_of_the_whole(
    case: tuple[npt.NDArray[Any], LabelRule], block: ZYX
) -> None:
    values, rule = case
    expected = slow_label(values, rule)
    found, _ = label_blocks(values, block, rule)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(label(rule.foreground(values), rule)[0], expected)


@given(
    cases(),
    st.tuples(*(st.integers(1, 5) for _ in range(3))),
    st.tuples(*(st.none() | st.integers(1, 9) for _ in range(3))),
)
def test_sizes_choose_the_same_instances_whatever_the_blocks(
    case: tuple[npt.NDArray[Any], LabelRule],
    block: ZYX,
    numbers: tuple[int | None, int | None, int | None],
) -> None:
    values, rule = case
    low, more, largest = numbers
    high = None if more is None else (low or 1) + more - 1
    sizes = SizeRule(min_size=low, max_size=high, largest=largest)
    found, _ = label_blocks(values, block, rule, sizes)
    np.testing.assert_array_equal(found, choose(slow_label(values, rule), sizes))


def test_rows_of_one_pixel_are_labelled_with_8_neighbours() -> None:
    values = np.array([[[1, 0, 0, 1]]], np.uint8)
    rule = LabelRule(connectivity=8)
    assert label(rule.foreground(values), rule)[0].tolist() == [[[1, 0, 0, 2]]]


def test_a_largest_size_below_the_smallest_is_refused() -> None:
    with pytest.raises(InvalidData, match="--max-size: is 3, and --min-size 4"):
        SizeRule(min_size=4, max_size=3)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_a_threshold_that_the_type_lacks_is_compared_exactly(kind: str) -> None:
    # In float16 and float32 the nearest number is 1 itself.
    values = np.array([[[0.0, 0.5, 1.0]]], kind)
    threshold = stored_cut(1 - 1e-9, kind)
    assert LabelRule(connectivity=6, threshold=threshold).foreground(values).tolist() == [
        [[False, False, True]]
    ]


def test_a_spiral_through_all_blocks_is_one_instance() -> None:
    spiral = np.zeros((1, 33, 33), np.uint8)
    top, bottom, left, right = 0, 32, 0, 32
    while top <= bottom and left <= right:
        spiral[0, top, left : right + 1] = 1
        spiral[0, top : bottom + 1, right] = 1
        spiral[0, bottom, left : right + 1] = 1
        spiral[0, top + 2 : bottom + 1, left] = 1
        spiral[0, top + 2, left : left + 2] = 1
        top, bottom, left, right = top + 2, bottom - 2, left + 2, right - 2
    for connectivity in (4, 6, 26):
        found, _ = label_blocks(spiral, (1, 5, 7), LabelRule(connectivity=connectivity))
        assert set(np.unique(found)) == {0, 1}


@pytest.mark.parametrize("connectivity", [8, 18, 26])
def test_pieces_that_meet_at_a_corner_of_four_blocks_only(connectivity: int) -> None:
    values = np.zeros((1, 4, 4), np.uint8)
    values[0, 1, 2] = values[0, 2, 1] = 1  # neither lies in the block that sees both
    found, _ = label_blocks(values, (1, 2, 2), LabelRule(connectivity=connectivity))
    assert found.max() == 1
    values[0, 1, 1] = values[0, 2, 2] = 1
    found, _ = label_blocks(values, (1, 2, 2), LabelRule(connectivity=4))
    assert found.max() == 1


def test_tables_grow_with_contacts_not_with_voxels() -> None:
    values = np.ones((16, 64, 64), np.uint8)
    _, blocks = label_blocks(values, (8, 32, 32), LabelRule(connectivity=6))
    assert sum(len(b.first) for b in blocks) == 8
    # Eight blocks, each seeing 7 shared regions.
    assert sum(len(b.contact_voxels) for b in blocks) <= 8 * 14


def test_ids_are_as_wide_as_their_number_needs() -> None:
    assert id_dtype(2**32 - 1) == np.uint32
    assert id_dtype(2**32) == np.uint64
    empty, _ = label_blocks(np.zeros((2, 3, 4), np.uint8), (1, 2, 2), LabelRule(connectivity=6))
    assert empty.dtype == np.uint32
    assert not empty.any()


def test_labels_are_in_the_order_of_first_voxels_whatever_cc3d_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = (np.random.default_rng(0).random((4, 9, 9)) < 0.3).astype(np.uint8)
    rule = LabelRule(connectivity=6)
    expected, first = label(values, rule)
    original = cc3d.connected_components

    def backwards(*args: Any, **kwargs: Any) -> tuple[npt.NDArray[Any], int]:
        labels, count = original(*args, **kwargs)
        return np.where(labels, count + 1 - labels, 0).astype(labels.dtype), count

    monkeypatch.setattr(cc3d, "connected_components", backwards)
    found, again = label(values, rule)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(again, first)


def test_an_unknown_connectivity_is_refused() -> None:
    with pytest.raises(InvalidData, match="is 5"):
        LabelRule(connectivity=5)
