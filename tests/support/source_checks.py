"""What the tests of sources share."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tilenet.errors import AmbiguousVolume, UnreadableVolume
from tilenet.formats import Source, open_source
from tilenet.geometry import Box, zyx

Array = npt.NDArray[Any]
Writer = Callable[[Path, Array], str]

SHAPE = (7, 33, 50)
WHOLE = Box((0, 0, 0), SHAPE)


def random_values(dtype: str, shape: tuple[int, ...] = SHAPE) -> Array:
    values = np.random.default_rng(7).integers(0, 200, shape)
    return values.astype(dtype) if dtype != "bool" else values > 100


def random_boxes(shape: tuple[int, int, int], count: int = 12) -> list[Box]:
    rng = np.random.default_rng(3)
    boxes = [Box.of_shape(shape)]
    for _ in range(count):
        start = rng.integers(0, shape)
        boxes.append(Box(zyx(start), zyx(rng.integers(start, shape) + 1)))
    return boxes


def check(source: Source, truth: Array) -> None:
    """Every box equals the slice, also after pickling, and is a fresh native array."""
    expected = truth.astype(np.uint8) if truth.dtype == bool else truth
    assert source.shape == truth.shape[-3:]
    assert (len(source.channels or ()),) == (*truth.shape[:-3], 0)[:1]
    assert source.dtype == expected.dtype.newbyteorder("=")
    assert all(1 <= p <= n for p, n in zip(source.piece_shape, source.shape, strict=True))
    copy: Source = pickle.loads(pickle.dumps(source))
    for box in random_boxes(source.shape):
        values = copy.read(box)
        np.testing.assert_array_equal(values, expected[(..., *box.slices)])
        assert values.dtype == source.dtype
        assert values.flags.c_contiguous
        assert values.flags.writeable
    assert source.identity() == copy.identity()


def refused(location: object, match: str, **options: Any) -> UnreadableVolume:
    with pytest.raises(UnreadableVolume, match=match) as caught:
        open_source(str(location), **options)
    return caught.value


def ambiguous(location: object, match: str, **options: Any) -> AmbiguousVolume:
    with pytest.raises(AmbiguousVolume, match=match) as caught:
        open_source(str(location), **options)
    return caught.value


def cut(path: Path, count: int) -> None:
    os.truncate(path, path.stat().st_size - count)
