"""Grey values: the affine rule against a formula per voxel, and statistics that add up."""

from __future__ import annotations

import functools
import json
import operator
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilenet.errors import InvalidData
from tilenet.volumes import Intensity, Moments

numbers = st.floats(-1000, 1000, width=32)


def by_voxel(rule: Intensity, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The dumb way: one voxel after another, in double precision."""
    result = np.empty(values.shape)
    for index, value in np.ndenumerate(values):
        grey = float(value)
        grey = grey if rule.low is None else max(grey, rule.low)
        grey = grey if rule.high is None else min(grey, rule.high)
        result[index] = (grey - rule.mean) / rule.std * (-1 if rule.invert else 1)
    return result


@st.composite
def rules(draw: st.DrawFn) -> Intensity:
    low, high = draw(st.none() | numbers), draw(st.none() | numbers)
    if low is not None and high is not None and low >= high:
        low, high = (None, high) if low == high else (high, low)
    return Intensity(draw(numbers), draw(st.floats(0.1, 100)), low, high, draw(st.booleans()))


@given(rules(), st.lists(numbers, min_size=1, max_size=20))
def test_every_voxel_obeys_the_formula(rule: Intensity, greys: list[float]) -> None:
    values = np.array(greys).reshape(1, -1)
    result = rule.apply(values, np.float64)
    np.testing.assert_allclose(result, by_voxel(rule, values), rtol=1e-12, atol=1e-12)


@given(rules(), st.lists(numbers, min_size=1, max_size=20))
def test_single_precision_is_the_formula_up_to_rounding(
    rule: Intensity, greys: list[float]
) -> None:
    values = np.array(greys, np.float32)
    result = rule.apply(values)
    assert result.dtype == np.float32
    scale = 1000 / rule.std
    np.testing.assert_allclose(result, by_voxel(rule, values), rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", ">u2", "float16", "float32", "bool"])
def test_any_stored_type_is_taken(dtype: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    rule = Intensity(7.5, 2.0, 1.0, 20.0)
    result = rule.apply(values)
    assert result.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(result, by_voxel(rule, values).astype(np.float32))


def test_small_integers_do_not_wrap_around() -> None:
    assert Intensity(200.0, 1.0).apply(np.array([0, 255], np.uint8)).tolist() == [-200.0, 55.0]


def test_the_input_is_left_as_it_is() -> None:
    values = np.array([1.0, 2.0, 3.0], np.float32)
    Intensity(2.0, 0.5, 1.5, 2.5).apply(values)
    assert values.tolist() == [1.0, 2.0, 3.0]


def test_values_do_not_depend_on_their_neighbours() -> None:
    values = np.random.default_rng(0).normal(128, 40, (6, 7, 8)).astype(np.float32)
    rule = Intensity(127.3, 39.9)
    whole = rule.apply(values)
    np.testing.assert_array_equal(rule.apply(values[2:4, 1:, ::2]), whole[2:4, 1:, ::2])


def test_a_window_becomes_zero_to_one_and_clips_beyond() -> None:
    greys = np.array([0, 100, 150, 200, 255], np.uint8)
    assert Intensity.window(100, 200).apply(greys).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_an_inverted_window_becomes_zero_to_minus_one() -> None:
    greys = np.array([0, 100, 150, 200, 255], np.uint8)
    inverted = Intensity.window(100, 200, invert=True).apply(greys)
    assert inverted.tolist() == [0.0, 0.0, -0.5, -1.0, -1.0]


def test_one_sided_clipping() -> None:
    greys = np.array([0.0, 5.0, 10.0])
    assert Intensity(low=4.0).apply(greys).tolist() == [4.0, 5.0, 10.0]
    assert Intensity(high=6.0).apply(greys).tolist() == [0.0, 5.0, 6.0]


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_a_deviation_that_is_not_positive_is_refused(std: float) -> None:
    with pytest.raises(InvalidData, match=f"Intensity std {std:g}: is not positive"):
        Intensity(1.0, std)


@pytest.mark.parametrize("field", ["mean", "std", "low", "high"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidData, match="is not finite"):
        Intensity.from_dict({field: value})


@pytest.mark.parametrize(("low", "high"), [(5.0, 5.0), (6.0, 5.0)])
def test_an_empty_window_is_refused(low: float, high: float) -> None:
    with pytest.raises(InvalidData, match=f"window {low:g},{high:g}: is empty"):
        Intensity(0.0, 1.0, low, high)
    with pytest.raises(InvalidData, match=f"window {low:g},{high:g}: is empty"):
        Intensity.window(low, high)


@given(rules())
def test_a_rule_survives_json(rule: Intensity) -> None:
    assert Intensity.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


# -- statistics of a whole volume -------------------------------------------------------------


@given(
    st.lists(st.integers(0, 65535), min_size=2, max_size=60).filter(lambda v: len(set(v)) > 1),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_moments_of_any_split_give_the_mean_and_deviation_of_the_whole(
    greys: list[int], cuts: list[int]
) -> None:
    values = np.array(greys, np.uint16)
    parts = np.split(values, sorted(cuts))
    found = functools.reduce(operator.add, map(Moments.of, parts), Moments()).intensity
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.std == pytest.approx(values.std(), rel=1e-6)


@given(st.permutations(range(6)))
def test_moments_of_whole_numbers_do_not_depend_on_the_order(order: list[int]) -> None:
    parts = np.array_split(np.arange(0, 60_000, 7, dtype=np.uint16), 6)
    whole = Moments.of(np.concatenate(parts))
    assert functools.reduce(operator.add, (Moments.of(parts[i]) for i in order)) == whole


def test_the_volumes_own_rule_gives_mean_0_and_deviation_1() -> None:
    values = np.random.default_rng(1).integers(0, 256, (5, 6, 7), dtype=np.uint8)
    normalised = Moments.of(values).intensity.apply(values, np.float64)
    assert normalised.mean() == pytest.approx(0, abs=1e-12)
    assert normalised.std() == pytest.approx(1, rel=1e-12)


def test_void_voxels_do_not_count() -> None:
    values = np.array([[0, 0, 10], [20, 0, 30]], np.uint8)
    moments = Moments.of(values, void=0)
    assert moments == Moments.of(np.array([10, 20, 30], np.uint8))
    assert moments.count == 3


def test_a_volume_of_nothing_but_void_is_refused() -> None:
    with pytest.raises(InvalidData, match=r"no voxels beside the void value.*--void"):
        _ = Moments.of(np.zeros((2, 2), np.uint8), void=0).intensity


@pytest.mark.parametrize("value", [0, 1, 0.1, 1 / 3, 123.456, 1e6 + 0.1, -0.3])
@pytest.mark.parametrize("count", [1, 3, 7, 1000])
def test_a_volume_of_one_grey_value_is_refused(value: float, count: int) -> None:
    with pytest.raises(InvalidData, match="one grey value only"):
        _ = Moments.of(np.full(count, value)).intensity


def test_a_small_deviation_about_a_large_mean_is_kept() -> None:
    found = Moments.of(np.array([60_000, 60_001], np.uint16)).intensity
    assert found.std == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("void", [None, 0])
def test_moments_take_little_memory_beside_the_block(void: float | None) -> None:
    values = np.ones((8, 1024, 2048), np.uint8).transpose(1, 2, 0)
    tracemalloc.start()
    moments = Moments.of(values, void)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert moments == Moments(2**24, 2.0**24, 2.0**24)
    assert peak < 2**24 + 2**21, "8 bytes per voxel of a slice and of no more"


def test_moments_of_16_bits_are_exact_beyond_what_float64_adds_up() -> None:
    values = np.random.default_rng(2).integers(60_000, 65_536, 2**23, dtype=np.uint16)
    wide = values.astype(np.uint64)
    assert Moments.of(values) == Moments(2**23, float(wide.sum()), float((wide * wide).sum()))
