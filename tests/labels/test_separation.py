"""Borders between touching instances, against a loop over voxels."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilenet.errors import InvalidData
from tilenet.geometry import BlockGrid, Box, zyx
from tilenet.labels import gap_margins, separate


def slow_separate(
    labels: npt.NDArray[Any], gap: int, per_section: bool, ignore: int | None
) -> npt.NDArray[Any]:
    """Voxel by voxel, as the rule is written."""
    below, above = math.ceil(gap / 2), math.floor(gap / 2)
    result = labels.copy()
    for place in itertools.product(*(range(n) for n in labels.shape)):
        own = labels[place]
        if own == 0 or own == ignore:
            continue
        window = labels[
            tuple(
                slice(i, i + 1)
                if per_section and axis == 0
                else slice(max(0, i - below), i + above + 1)
                for axis, i in enumerate(place)
            )
        ]
        others = set(np.unique(window).tolist()) - {0, int(own), ignore}
        if others:
            result[place] = 0
    return result


@st.composite
def cases(draw: st.DrawFn) -> tuple[npt.NDArray[Any], int, bool, int | None]:
    shape = draw(st.tuples(*(st.integers(1, 7) for _ in range(3))))
    kind = draw(st.sampled_from(["uint8", "int16", "uint64"]))
    seed = draw(st.integers(0, 2**32 - 1))
    # 64-bit labels that float64 cannot tell apart, and the extremes of the type.
    values = np.array([0, 0, 1, 2, 3, np.iinfo(kind).max, np.iinfo(kind).max - 1], kind)
    labels = np.random.default_rng(seed).choice(values, shape)
    ignore = draw(st.sampled_from([None, 3]))
    return labels, draw(st.integers(0, 5)), draw(st.booleans()), ignore


@given(cases())
def test_it_is_the_rule(case: tuple[npt.NDArray[Any], int, bool, int | None]) -> None:
    labels, gap, per_section, ignore = case
    before = labels.copy()
    result = separate(labels, gap, per_section=per_section, ignore=ignore)
    np.testing.assert_array_equal(result, slow_separate(labels, gap, per_section, ignore))
    np.testing.assert_array_equal(labels, before)
    assert result.dtype == labels.dtype


@given(cases(), st.tuples(*(st.integers(1, 4) for _ in range(3))))
def test_blocks_with_their_margins_give_the_whole(
    case: tuple[npt.NDArray[Any], int, bool, int | None], block: tuple[int, int, int]
) -> None:
    labels, gap, per_section, ignore = case
    whole = separate(labels, gap, per_section=per_section, ignore=ignore)
    below, above = gap_margins(gap, per_section=per_section)
    shape = zyx(labels.shape)
    for box in BlockGrid(shape, block):
        read = box.grow(below, above).intersect(Box.of_shape(shape))
        part = separate(labels[read.slices], gap, per_section=per_section, ignore=ignore)
        inner = part[box.relative_to(read.start).slices]
        np.testing.assert_array_equal(inner, whole[box.slices])


@pytest.mark.parametrize("gap", range(6))
def test_a_straight_contact_becomes_as_wide_as_asked(gap: int) -> None:
    labels = np.ones((1, 3, 20), np.uint16)
    labels[:, :, 10:] = 2
    result = separate(labels, gap, per_section=False)
    assert (result == 0).sum(axis=2).tolist() == [[gap] * 3]


def test_sections_do_not_touch_and_the_ignore_label_separates_nothing() -> None:
    labels = np.array([[[1, 1]], [[2, 2]]], np.uint8)
    np.testing.assert_array_equal(separate(labels, 1, per_section=True), labels)
    assert (separate(labels, 1, per_section=False) == 0).sum() == 2
    np.testing.assert_array_equal(separate(labels, 1, per_section=False, ignore=2), labels)


def test_a_negative_gap_is_refused() -> None:
    with pytest.raises(InvalidData, match="is -1 voxels"):
        separate(np.zeros((1, 1, 1), np.uint8), -1, per_section=True)
