"""Planes of a block become rows of whole shards, each written once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilenet.geometry import Box, zyx
from tilenet.rows import Rows


@given(
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(0, 3),
    st.lists(st.integers(1, 11), min_size=30, max_size=30),
    st.sampled_from(range(3)),
    st.sampled_from(((), (2,))),
)
def test_any_pieces_become_rows_of_shards(
    size: int, depth: int, before: int, pieces: list[int], axis: int, leading: tuple[int, ...]
) -> None:
    shape = [3, 2, 4]
    shape[axis] = size
    start = [0, 0, 0]
    start[axis] = before * depth
    block = Box(zyx(start), zyx(a + n for a, n in zip(start, shape, strict=True)))
    values = np.random.default_rng(0).integers(0, 255, (*leading, *shape), dtype=np.uint8)
    written: list[Box] = []
    result = np.zeros_like(values)

    def write(box: Box, row: np.ndarray) -> None:
        written.append(box)
        result[(..., *box.relative_to(block.start).slices)] = row

    done = 0
    with Rows(write, block, axis=axis, depth=depth) as rows:
        for count in pieces:
            index: tuple[Any, ...] = (..., slice(done, done + count), *[slice(None)] * (2 - axis))
            rows.add(values[index])
            done += count
    np.testing.assert_array_equal(result, values)
    assert [box.start[axis] for box in written] == [*range(start[axis], start[axis] + size, depth)]
    assert {box.shape[axis] for box in written[:-1]} <= {depth}


def test_a_row_is_written_while_the_next_is_computed_and_not_two_at_once() -> None:
    entered, go = threading.Event(), threading.Event()
    order: list[str] = []

    def write(box: Box, row: np.ndarray) -> None:
        order.append(f"begin {box.start[0]}")
        entered.set()
        assert go.wait(30)
        order.append(f"end {box.start[0]}")

    with Rows(write, Box.of_shape((4, 1, 1)), axis=0, depth=2) as rows:
        rows.add(np.zeros((3, 1, 1)))
        assert entered.wait(30), "the first row is being written, and we are here"
        order.append("added")
        go.set()
        rows.add(np.zeros((1, 1, 1)))
    assert order == ["begin 0", "added", "end 0", "begin 2", "end 2"]


def fill(write: Callable[[Box, np.ndarray], None], planes: int, error: str = "") -> None:
    with Rows(write, Box.of_shape((4, 1, 1)), axis=0, depth=2) as rows:
        for _ in range(planes):
            rows.add(np.zeros((1, 1, 1)))
        if error:
            raise ValueError(error)


def test_a_row_that_cannot_be_written_ends_the_block() -> None:
    def write(box: Box, row: np.ndarray) -> None:
        raise OSError(f"disk full at {box.start[0]}")

    with pytest.raises(OSError, match="disk full at 0"):
        fill(write, 4)


def test_what_is_not_complete_when_computing_fails_is_not_written() -> None:
    written: list[Box] = []
    with pytest.raises(ValueError, match="computing"):
        fill(lambda box, row: written.append(box), 3, "computing")
    assert [box.start[0] for box in written] == [0]
