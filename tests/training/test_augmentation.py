"""Deformations and grey-value curves, against pictures that are easy to know."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.interpolate import BSpline

from tilenet.training.augmentation import (
    Deformation,
    GreyCurve,
    control_points,
    draw_deformation,
    draw_grey_curve,
    reach,
    resample,
    spline_basis,
)

STILL = np.zeros((3, 1, 1, 1))


def still(**changes: Any) -> Deformation:
    return Deformation(**{"control": STILL, "spacing": (0.0, 0.0, 0.0), **changes})


def centred(shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.tensor([(n - 1) / 2 for n in shape]).view(3, 1, 1, 1)


def warp(image: np.ndarray, deformation: Deformation, *, nearest: bool = False) -> np.ndarray:
    shape: Any = image.shape
    places = deformation.coordinates(shape) + centred(shape)
    values = torch.from_numpy(image.astype(np.float32))[None]
    return resample(values, places, nearest=nearest)[0].numpy()


@pytest.mark.parametrize("shape", [(1, 7, 7), (3, 8, 8), (4, 5, 5)])
def test_turns_and_flips_are_numpys(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape)
    for turn in range(4):
        for signs in ((1, 1, 1), (1, -1, 1), (-1, 1, -1)):
            ours = warp(image, still(angle=turn * math.pi / 2, signs=signs))
            # Where a voxel comes from is turned, so the picture turns the other way.
            axes = tuple(i for i, s in enumerate(signs) if s < 0)
            theirs = np.flip(np.rot90(image, -turn, axes=(-2, -1)), axes)
            assert abs(ours - theirs).max() < 1e-3


def test_all_turns_differ() -> None:
    image = np.random.default_rng(0).integers(0, 255, (1, 6, 6))
    pictures = [warp(image, still(angle=turn * math.pi / 2)) for turn in range(4)]
    assert all(abs(a - b).max() > 1 for i, a in enumerate(pictures) for b in pictures[:i])


def test_resampling_is_scipys() -> None:
    rng = np.random.default_rng(1)
    image = rng.random((5, 9, 11)).astype(np.float32)
    places = rng.random((3, 4, 6, 7)) * (np.array(image.shape) - 1).reshape(3, 1, 1, 1)
    given_places = torch.from_numpy(places.astype(np.float32))
    for nearest, order in ((False, 1), (True, 0)):
        ours = resample(torch.from_numpy(image)[None], given_places, nearest=nearest)[0]
        theirs: Any = ndimage.map_coordinates(image, places, order=order)  # type: ignore[call-overload]
        assert np.abs(ours.numpy() - theirs).max() < 1e-4


def test_a_single_section_stays_in_its_plane() -> None:
    image = np.random.default_rng(2).random((1, 8, 8))
    assert np.abs(warp(image, still()) - image).max() < 1e-5


@given(st.integers(1, 60), st.floats(1.5, 40))
def test_splines_are_scipys_and_add_up_to_one(size: int, spacing: float) -> None:
    basis = spline_basis(size, spacing).numpy()
    assert basis.shape == (size, control_points(size, spacing))
    assert np.allclose(basis.sum(axis=1), 1)
    knots = spacing * np.arange(-3, basis.shape[1] + 1)
    for i in range(basis.shape[1]):
        one = BSpline(knots, np.eye(basis.shape[1])[i], 3)(np.arange(size))
        assert np.allclose(basis[:, i], one)


def test_one_control_point_moves_the_whole_picture() -> None:
    image = np.random.default_rng(3).random((3, 9, 9))
    moved = warp(image, still(control=np.array([0.0, 2.0, -1.0]).reshape(3, 1, 1, 1)))
    assert np.abs(moved[:, :-2, 1:] - image[:, 2:, :-1]).max() < 1e-5


@settings(max_examples=40)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["any", "quarter", "none"]),
    st.sampled_from([(1, 40, 40), (6, 30, 44), (9, 9, 9)]),
)
def test_nothing_comes_from_beyond_the_reach(
    seed: int, rotation: str, shape: tuple[int, int, int]
) -> None:
    std = (2.0, 10.0, 10.0) if shape[0] > 1 else (0.0, 10.0, 10.0)
    drawn = draw_deformation(
        np.random.default_rng(seed),
        shape,
        std=std,
        spacing=(4.0, 12.0, 12.0),
        rotation=rotation,
        flips=True,
    )
    far = torch.tensor(reach(shape, std=std, rotation=rotation)).view(3, 1, 1, 1)
    assert bool((drawn.coordinates(shape).abs() <= far + 1e-3).all())


def test_displacements_have_the_size_that_is_asked_for() -> None:
    rng = np.random.default_rng(4)
    shape = (1, 100, 100)
    drawn = [
        draw_deformation(
            rng, shape, std=(0, 10, 10), spacing=(0, 30, 30), rotation="none", flips=False
        ).field(shape)
        for _ in range(30)
    ]
    fields = torch.stack(drawn)
    assert float(fields[:, 0].abs().max()) == 0
    # Splines that approximate their control points vary by about half as much in two dimensions.
    assert 3.5 < float(fields[:, 1:].std()) < 6.5


def test_a_seed_decides_everything() -> None:
    def draw(seed: int) -> torch.Tensor:
        rng = np.random.default_rng(seed)
        drawn = draw_deformation(
            rng, (1, 20, 20), std=(0, 5, 5), spacing=(0, 8, 8), rotation="any", flips=True
        )
        return drawn.coordinates((1, 20, 20))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@given(st.integers(0, 10**6), st.floats(0, 0.9))
def test_grey_curves_keep_the_order_and_their_slopes(seed: int, slope: float) -> None:
    curve = draw_grey_curve(np.random.default_rng(seed), slope, 0.1)
    values = torch.linspace(-6, 6, 2000)
    rise = torch.diff(curve.apply(values)) / torch.diff(values)
    assert float(rise.min()) > 1 - slope - 0.02
    assert float(rise.max()) < 1 + slope + 0.02


def test_a_curve_of_slope_one_changes_nothing() -> None:
    values = torch.linspace(-5, 5, 101)
    assert torch.allclose(GreyCurve().apply(values), values, atol=1e-5)
    assert torch.allclose(GreyCurve(shift=0.5).apply(values), values + 0.5, atol=1e-5)


def test_places_are_computed_on_the_device_that_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    shape, spacing = (4, 20, 20), (4.0, 8.0, 8.0)
    drawn = draw_deformation(rng, shape, std=(1, 5, 5), spacing=spacing, rotation="any", flips=True)
    # Nothing can come from another device: "meta" holds no values that could be copied.
    assert drawn.coordinates(shape, "meta").device.type == "meta"
    assert drawn.coordinates(shape).device.type == "cpu"
