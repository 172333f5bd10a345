"""Where percentiles clip, and how few voxels carry the variance, against NumPy."""

from __future__ import annotations

import functools
import math
import operator
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilenet.errors import InvalidData
from tilenet.volumes import (
    FEW,
    Fold,
    HistogramCount,
    Intensity,
    Moments,
    OwnStatistics,
    by_value,
    own_intensity,
    share_of_few,
)

RNG = np.random.default_rng(5)
VOLUMES: dict[str, npt.NDArray[Any]] = {
    "uint8": RNG.integers(0, 256, 5000).astype(np.uint8),
    "uint16": RNG.normal(30_000, 900, 5000).astype(np.uint16),
    "int16": RNG.normal(-100, 900, 5000).astype(np.int16),
    "int8": RNG.integers(-128, 128, 5000).astype(np.int8),
    "int32": RNG.normal(0, 1e5, 5000).astype(np.int32),
    "float32": RNG.normal(-0.1, 1, 5000).astype(np.float32),
    "far float32": RNG.normal(32_768, 3, 5000).astype(np.float32),
    "float64": RNG.normal(0, 1e-3, 5000).astype(np.float32).astype(np.float64),
    "1e30": np.append(RNG.normal(0, 1, 4999), 1e30).astype(np.float32),
}


def fold_of(parts: list[npt.NDArray[Any]]) -> Fold:
    return lambda count: functools.reduce(operator.add, map(count, parts))


def in_order(values: npt.NDArray[Any], percent: float) -> float:
    # NumPy's inverted_cdf, but for the rounding of 99.9 / 100.
    rank = math.ceil(Decimal(str(percent)) * values.size / 100)
    return float(np.sort(values, axis=None)[max(0, rank - 1)])


def own(values: npt.NDArray[Any], rule: OwnStatistics, cuts: Any = ()) -> Intensity:
    return own_intensity(fold_of(np.split(values, sorted(cuts))), rule, values.dtype)


@pytest.mark.parametrize("name", VOLUMES)
@pytest.mark.parametrize("clip", [(0.1, 99.9), (0, 100), (2.5, 60), (0, 99.98)])
def test_limits_are_percentiles_and_moments_are_of_the_clipped_values(
    name: str, clip: tuple[float, float]
) -> None:
    values = VOLUMES[name]
    found = own(values, OwnStatistics(clip))
    low, high = (in_order(values, percent) for percent in clip)
    assert (found.low, found.high) == (low, high)
    kept = values.astype(np.float64).clip(low, high)
    assert found.mean == pytest.approx(kept.mean(), rel=1e-9, abs=1e-12 * abs(high))
    assert found.std == pytest.approx(kept.std(), rel=1e-6)


@given(st.lists(st.integers(1, 4999), max_size=4), st.sampled_from(list(VOLUMES)))
def test_clipping_does_not_depend_on_blocks(cuts: list[int], name: str) -> None:
    values = VOLUMES[name]
    whole, split = (own(values, OwnStatistics((1, 99)), c) for c in ((), cuts))
    assert (whole.low, whole.high) == (split.low, split.high)
    if by_value(values.dtype):
        assert whole == split
    else:
        assert split.std == pytest.approx(whole.std, rel=1e-6)


def test_one_voxel_of_1e30_moves_nothing_once_it_is_clipped() -> None:
    values = VOLUMES["1e30"]
    assert Moments.of(values).deviation > 1e28
    found = own(values, OwnStatistics((0.1, 99.9)))
    assert found.std == pytest.approx(values[:-1].std(), rel=0.02)
    assert found.apply(values).max() < 4


@pytest.mark.parametrize("name", ["uint16", "float32"])
def test_void_counts_neither_for_percentiles_nor_for_moments(name: str) -> None:
    values = VOLUMES[name]
    void = 65_535 if name == "uint16" else -1e4
    mixed = np.concatenate([values, np.full(9000, void, values.dtype)])
    assert own(mixed, OwnStatistics((1, 99), void)) == own(values, OwnStatistics((1, 99)))
    with pytest.raises(InvalidData, match=r"no voxels beside the void value"):
        own(mixed[5000:], OwnStatistics((1, 99), void))


def test_percentiles_of_one_grey_value_are_refused() -> None:
    values = np.append(np.zeros(2000, np.uint8), 9).astype(np.uint8)
    with pytest.raises(InvalidData, match=r"Percentiles 0.1,99.9 .* leave one grey value only, 0"):
        own(values, OwnStatistics((0.1, 99.9)))
    for clip in ((5, 5), (-1, 50), (0, 101), (90, 10)):
        with pytest.raises(InvalidData, match="is not a range"):
            OwnStatistics(clip)


def test_volumes_counted_by_value_and_by_bits_are_added() -> None:
    small, real = VOLUMES["int16"], VOLUMES["float32"]
    both = HistogramCount(True)(small) + HistogramCount(False)(real)
    assert not both.exact
    again = HistogramCount(False)(np.concatenate([small.astype(np.float32), real]))
    assert np.array_equal(both.keys, again.keys)
    assert np.array_equal(both.counts, again.counts)


def few_by_sorting(values: npt.NDArray[Any]) -> float:
    wide = values.astype(np.float64)
    squares = np.sort((wide - wide.mean()) ** 2)
    return float(squares[-round(FEW * len(wide)) :].sum() / squares.sum())


@pytest.mark.parametrize("name", VOLUMES)
def test_the_share_of_few_is_that_of_the_furthest_voxels(name: str) -> None:
    values = VOLUMES[name]
    moments = Moments.of(values)
    rule = Intensity(moments.mean, moments.deviation)
    found = share_of_few(HistogramCount(by_value(values.dtype))(values), rule)
    expected = few_by_sorting(values)
    if by_value(values.dtype):
        assert found == pytest.approx(expected, rel=1e-9)
    else:
        assert 0 <= found <= expected + 1e-9, "never more than there is"
        assert name == "far float32" or found > 0.9 * expected
    assert (found > 0.5) == (name == "1e30")


def test_hot_pixels_are_few_that_carry_most() -> None:
    values = RNG.normal(2000, 400, 20_000).astype(np.uint16)
    values[:40] = 65_535
    seen, moments = HistogramCount(True)(values), Moments.of(values)
    hot = share_of_few(seen, Intensity(moments.mean, moments.deviation))
    assert hot == pytest.approx(few_by_sorting(values), rel=1e-9)
    assert hot > 0.95
    cured = own(values, OwnStatistics((0.5, 99.5)))
    assert share_of_few(seen, cured) < 0.1
    assert cured.std == pytest.approx(400, rel=0.05)
