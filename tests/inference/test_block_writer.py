"""Planes of a block become rows of whole shards, each written once."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.inference.block_writer import Rows


def shard_of(axis: int, depth: int) -> ZYX:
    """So many planes of it along an axis, few voxels along the others."""
    shape = [2, 2, 2]
    shape[axis] = depth
    return zyx(shape)


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
    with Rows(write, block, axis=axis, shard=shard_of(axis, depth), threads=3) as rows:
        for count in pieces:
            index: tuple[Any, ...] = (..., slice(done, done + count), *[slice(None)] * (2 - axis))
            rows.add(values[index])
            done += count
    np.testing.assert_array_equal(result, values)
    # In any order: the shards of a row, and two rows, are written at once.
    written.sort(key=lambda box: box.start)
    assert written == [*BlockGrid(block.stop, shard_of(axis, depth), block)]


def test_all_shards_of_two_rows_are_written_at_once_and_a_third_row_waits() -> None:
    at_once, written = threading.Barrier(4), list[int]()

    def write(box: Box, row: np.ndarray) -> None:
        if box.start[0] < 4:
            at_once.wait(30)  # passes only when all four are here
        else:
            assert written.count(0) == 2, "the first row is done"
        written.append(box.start[0])

    with Rows(write, Box.of_shape((6, 2, 1)), axis=0, shard=(2, 1, 1), threads=5) as rows:
        rows.add(np.zeros((6, 2, 1)))
    assert sorted(written) == [0, 0, 2, 2, 4, 4]


def test_memory_holds_two_rows_beside_the_one_that_is_collected() -> None:
    go = threading.Event()
    held: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def write(box: Box, row: np.ndarray) -> None:
        assert go.wait(30)

    def wait(written: Future[None]) -> None:
        gc.collect()
        alive.append(sum(ref() is not None for ref in held))
        go.set()
        written.result(30)

    block, shard = Box.of_shape((20, 3, 1)), zyx((2, 3, 1))
    with Rows(write, block, axis=0, shard=shard, threads=2, wait=wait) as rows:
        for _ in range(10):
            values = np.zeros((2, 3, 1), np.uint8)
            held.append(weakref.ref(values))
            rows.add(values)
            del values
    assert max(alive) == 3


def fill(write: Callable[[Box, np.ndarray], None], planes: int, error: str = "") -> None:
    with Rows(write, Box.of_shape((6, 1, 1)), axis=0, shard=(2, 1, 1), threads=1) as rows:
        for _ in range(planes):
            rows.add(np.zeros((1, 1, 1)))
        if error:
            raise ValueError(error)


@pytest.mark.parametrize("bad", [0, 2, 4])
def test_a_shard_that_cannot_be_written_ends_the_block(bad: int) -> None:
    def write(box: Box, row: np.ndarray) -> None:
        if box.start[0] >= bad:
            raise OSError(f"disk full at {box.start[0]}")

    with pytest.raises(OSError, match=f"disk full at {bad}"):
        fill(write, 6)


def test_left_by_an_error_what_is_being_written_is_finished_and_the_rest_dropped() -> None:
    under_way, ended, left = threading.Event(), list[int](), list[Rows]()

    def write(box: Box, row: np.ndarray) -> None:
        under_way.set()
        for _ in range(3000):  # until all was handed on, and is being left
            if left and left[0]._writers._shutdown:
                break
            time.sleep(0.01)
        ended.append(box.start[0])

    def use() -> None:
        with Rows(write, Box.of_shape((6, 1, 1)), axis=0, shard=(2, 1, 1), threads=1) as rows:
            left.append(rows)
            rows.add(np.zeros((3, 1, 1)))
            assert under_way.wait(30)
            rows.add(np.zeros((1, 1, 1)))
            raise ValueError("computing")

    with pytest.raises(ValueError, match="computing"):
        use()
    assert ended == [0], "nothing is left running, and the second row was not begun"
    assert not [t for t in threading.enumerate() if t.name.startswith("tilenet-write")]
