"""Border weights against one SciPy transform per instance over the whole image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.labels import ClassCounts, WeightRule, border_weights, separate, weight_map
from tilenet.labels.weight_map import nearest_two

VOXEL_SIZES = [
    (1.0, 1.0, 1.0), (50.0, 4.0, 4.0), (40.0, 9.2, 9.2), (4.0, 4.0, 4.0), (10.0, 6.0, 4.0),
    (4.0, 8.0, 8.0),
]  # fmt: skip


def slow_weights(labels: npt.NDArray[Any], rule: WeightRule) -> npt.NDArray[np.float64]:
    """The formula, one transform per instance over the whole image, sections apart if asked."""
    labels = separate(labels, rule.gap, per_section=rule.per_section, ignore=rule.ignore)
    ignored = np.zeros(labels.shape, bool) if rule.ignore is None else labels == rule.ignore
    background = (labels == 0).sum()
    foreground = labels.size - background - ignored.sum()
    total = background + foreground
    of_class = np.where(
        labels == 0,
        total / (2 * max(1, background)),
        np.where(ignored, 0, total / (2 * max(1, foreground))),
    )
    parts = [labels[i : i + 1] for i in range(len(labels))] if rule.per_section else [labels]
    skip = () if rule.ignore is None else (rule.ignore,)
    terms = np.concatenate([_slow_term(part, rule, skip) for part in parts])
    return np.asarray(of_class + terms)


def _slow_term(
    labels: npt.NDArray[Any], rule: WeightRule, skip: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    steps = [math.sqrt(step) for step in rule.squared_steps]
    distances = np.sort(
        [np.full(labels.shape, np.inf)] * 2
        + [
            distance_transform_edt(labels != value, sampling=steps)
            for value in np.unique(labels)
            if value != 0 and value not in skip
        ],
        axis=0,
    )
    # A hair more than the radius: square roots are rounded, and the rule includes the radius.
    term = np.where(
        distances[1] <= rule.radius * (1 + 1e-12),
        rule.w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * rule.sigma**2)),
        0,
    )
    return np.where(labels == 0, term, 0)


@st.composite
def cases(draw: st.DrawFn) -> tuple[npt.NDArray[Any], WeightRule]:
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 14), st.integers(1, 14)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.choice(np.array([1, 2, 7, 2**40], np.uint64), shape)
    labels[rng.random(shape) < draw(st.sampled_from([0.3, 0.8, 0.95]))] = 0
    rule = WeightRule(
        w0=draw(st.sampled_from([10.0, 3.3])),
        sigma=draw(st.sampled_from([1.0, 2.5, 5.0])),
        radius=draw(st.sampled_from([0.5, 1.0, 2.0, math.sqrt(5), 3.7, 5.0, 8.0])),
        gap=draw(st.integers(0, 3)),
        per_section=draw(st.booleans()),
        ignore=draw(st.sampled_from([None, 7])),
        voxel_size=draw(st.sampled_from(VOXEL_SIZES)),
    )
    return labels, rule


@given(cases())
def test_it_is_the_formula(case: tuple[npt.NDArray[Any], WeightRule]) -> None:
    labels, rule = case
    before = labels.copy()
    found = border_weights(labels, rule)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_weights(labels, rule), rtol=2e-7)
    np.testing.assert_array_equal(labels, before)


@given(cases(), st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)))
def test_blocks_give_the_same_bits_as_the_whole(
    case: tuple[npt.NDArray[Any], WeightRule], block: tuple[int, int, int]
) -> None:
    labels, rule = case
    whole = border_weights(labels, rule)
    shape, (below, above) = zyx(labels.shape), rule.margins
    cores = list(BlockGrid(shape, block))
    reads = [core.grow(below, above).intersect(Box.of_shape(shape)) for core in cores]
    inner = [core.relative_to(read.start) for core, read in zip(cores, reads, strict=True)]
    counts = ClassCounts()
    for read, core in zip(reads, inner, strict=True):
        counts += ClassCounts.of(rule.separate(labels[read.slices])[core.slices], rule.ignore)
    for block_core, read, core in zip(cores, reads, inner, strict=True):
        part = border_weights(labels[read.slices], rule, counts=counts, core=core)
        assert part.tobytes() == whole[block_core.slices].tobytes()


@pytest.mark.parametrize("per_section", [True, False])
def test_distances_are_computed_in_strips_with_the_same_bits(
    per_section: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.random.default_rng(5).choice(np.array([0, 0, 0, 0, 1, 2, 3], np.int32), (5, 40, 50))
    rule = WeightRule(radius=6, sigma=2, per_section=per_section, voxel_size=(9, 4, 4), gap=1)
    whole = border_weights(labels, rule)
    monkeypatch.setattr(weight_map, "STRIP_BYTES", 1)
    assert border_weights(labels, rule).tobytes() == whole.tobytes()


@pytest.mark.parametrize("voxel_size", VOXEL_SIZES)
@pytest.mark.parametrize(
    ("shape", "radius"), [((1, 300, 280), 250), ((60, 61, 62), 60), ((9, 1, 200), 60)]
)
def test_distances_are_exact_up_to_the_radius(
    voxel_size: tuple[float, float, float], shape: tuple[int, int, int], radius: float
) -> None:
    rule = WeightRule(radius=radius, voxel_size=voxel_size)
    instance = np.random.default_rng(1).random(shape) < 3e-4
    instance[0, 0, 0] = True
    steps = rule.squared_steps
    _, nearest = distance_transform_edt(
        ~instance, sampling=[math.sqrt(step) for step in steps], return_indices=True
    )
    offsets = nearest - np.indices(shape)
    exact = sum(
        step * offset.astype(float) ** 2 for step, offset in zip(steps, offsets, strict=True)
    )
    near = exact <= rule.radius**2
    first, second = nearest_two(instance.astype(np.uint8), Box.of_shape(shape), rule)
    assert (first[near] == exact[near] * rule.scale).all()
    assert (first[~near] == rule.far).all()
    assert (second == rule.far).all()


@pytest.mark.parametrize(
    ("rule", "units"),
    [
        (WeightRule(), (1, 1, 1)),
        (WeightRule(voxel_size=(50, 4, 4)), (625, 4, 4)),
        (WeightRule(voxel_size=(50, 4, 4), per_section=True), (156, 1, 1)),
        (WeightRule(voxel_size=(40, 9.2, 9.2)), (4839, 256, 256)),
    ],
)
def test_squared_steps_are_whole_numbers(rule: WeightRule, units: ZYX) -> None:
    assert rule.step_units == units


@pytest.mark.parametrize("count", [1, 2, 7, 300, 5000])
def test_any_number_of_instances(count: int) -> None:
    labels = np.zeros((1, 80, 90), np.int32)
    places = np.random.default_rng(count).choice(labels.size, count, replace=False)
    labels.flat[places] = np.arange(1, count + 1)
    rule = WeightRule(radius=20)
    first, second = nearest_two(labels, Box.of_shape((1, 80, 90)), rule)
    y, x = np.indices((80, 90))
    squares = (y[..., None] - places // 90) ** 2 + (x[..., None] - places % 90) ** 2
    padded = np.pad(squares, ((0, 0), (0, 0), (0, 1)), constant_values=rule.far)
    expected = np.minimum(np.partition(padded, 1, axis=-1)[..., :2], rule.far)
    np.testing.assert_array_equal(first[0], expected[..., 0])
    np.testing.assert_array_equal(second[0], expected[..., 1])


def test_two_squares_light_up_between_them_and_one_alone_does_not() -> None:
    labels = np.zeros((1, 40, 60), np.uint16)
    labels[0, 10:30, 10:29] = 1
    one = border_weights(labels, WeightRule())
    assert np.unique(one).size == 2
    labels[0, 10:30, 31:50] = 2
    two = border_weights(labels, WeightRule())
    outside, inside = ClassCounts.of(labels).weights
    # The pixel beside 1 has d1 = 1 and d2 = 2.
    assert two[0, 20, 29] == np.float32(outside + 10 * math.exp(-9 / 50))
    assert two[0, 20, 20] == np.float32(inside)
    assert two.argmax() in (20 * 60 + 29 + np.arange(-600, 600, 60))


def test_sections_are_apart_and_z_counts_in_nanometres() -> None:
    labels = np.zeros((3, 9, 9), np.uint8)
    labels[0, 4, 4], labels[2, 4, 4] = 1, 2
    assert np.unique(border_weights(labels, WeightRule(per_section=True))).size == 2
    thick = WeightRule(voxel_size=(50, 4, 4))
    assert thick.squared_steps == (156.25, 1.0, 1.0)
    outside, _ = ClassCounts.of(labels).weights
    expected = np.float32(outside + 10 * math.exp(-((2 * 12.5) ** 2) / 50))
    assert border_weights(labels, thick)[1, 4, 4] == expected


def test_the_weights_balance_the_classes() -> None:
    labels = np.array([[[0, 0, 0, 5, 6, 9, 9, 9]]], np.uint8)
    counts = ClassCounts.of(labels, ignore=9)
    assert counts == ClassCounts(3, 2, 5, 6)
    assert counts.weights == (5 / 6, 5 / 4)
    assert (border_weights(labels, WeightRule(ignore=9))[0, 0, 5:] == 0).all()
    assert ClassCounts.of(labels[..., :3]).weights == (0.5, 0.0)


def test_the_margins_hold_the_radius_and_the_gap() -> None:
    rule = WeightRule(voxel_size=(50, 4, 4), gap=3)
    assert rule.reach == (2, 32, 32)
    assert rule.margins == ((4, 34, 34), (3, 33, 33))
    flat = WeightRule(voxel_size=(50, 4, 8), gap=3, per_section=True)
    assert flat.margins == ((0, 34, 18), (0, 33, 17))
    assert WeightRule(radius=0.5).reach == (0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sigma": 0}, "sigma: is 0"),
        ({"sigma": 1e-200}, "sigma: is 1e-200, and can be 0.1 to 500 voxels"),
        ({"sigma": 1e200}, "sigma: is 1e+200, and can be 0.1 to 500 voxels"),
        ({"radius": -2}, "radius: is -2"),
        ({"w0": math.inf}, "w0: is inf"),
        ({"w0": math.nan}, "w0: is nan"),
        ({"radius": 501}, "radius: is 501, and at most 500 voxels are read"),
        ({"ignore": 0}, "ignore label: is 0. Choose another label"),
        ({"gap": -3}, "Gap: is -3 voxels"),
    ],
)
def test_impossible_rules_are_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(InvalidData) as caught:
        WeightRule(**changes)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_the_cut_off_bounds_what_the_radius_leaves_out() -> None:
    assert WeightRule().cut_off < 1e-7
    short = WeightRule(radius=10)
    labels = np.zeros((1, 1, 14), np.uint8)
    labels[0, 0, 0], labels[0, 0, -1] = 1, 2
    long = border_weights(labels, WeightRule(radius=100))
    lost = np.abs(long - border_weights(labels, short)).max()
    assert 0 < lost <= short.cut_off
