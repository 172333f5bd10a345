"""Artificial micrographs: repeatable, well formed, and like the real ones where it matters."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tilenet.errors import InvalidData
from tilenet.synthetic import SyntheticEM, synthetic_em

SHAPES = [(1, 1, 1), (1, 16, 16), (3, 33, 70), (5, 64, 48)]


@pytest.fixture(scope="module")
def volume() -> SyntheticEM:
    return synthetic_em((4, 256, 256), seed=7)


# --- form ------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_volume() -> None:
    one, other = (synthetic_em((3, 40, 50), seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.raw, other.raw)
    np.testing.assert_array_equal(one.instances, other.instances)


def test_another_seed_gives_another_volume() -> None:
    one, other = (synthetic_em((2, 64, 64), seed=seed) for seed in (1, 2))
    assert (one.raw != other.raw).mean() > 0.5
    assert (one.cells != other.cells).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_dtypes(shape: tuple[int, int, int]) -> None:
    volume = synthetic_em(shape, seed=0)
    assert volume.raw.shape == volume.instances.shape == volume.cells.shape == shape
    assert volume.raw.dtype == volume.cells.dtype == np.uint8
    assert volume.instances.dtype == np.uint32
    assert volume.voxel_size == (50.0, 4.0, 4.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_instances_are_numbered_from_one_without_gaps(shape: tuple[int, int, int]) -> None:
    numbers = np.unique(synthetic_em(shape, seed=3).instances)
    present = numbers[numbers > 0]
    np.testing.assert_array_equal(present, np.arange(1, present.size + 1))


def test_cells_are_the_labels_of_isbi(volume: SyntheticEM) -> None:
    np.testing.assert_array_equal(volume.cells == 255, volume.instances > 0)
    np.testing.assert_array_equal(volume.cells == 0, volume.instances == 0)


@pytest.mark.parametrize("pixel", [1.0, 4.0, 11.0, 32.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_different_cells_never_touch_within_a_section(pixel: float, seed: int) -> None:
    ids = synthetic_em((2, 90, 110), seed=seed, voxel_size=(50.0, pixel, pixel)).instances
    assert not touching(ids[:, 1:], ids[:, :-1]).any()
    assert not touching(ids[:, :, 1:], ids[:, :, :-1]).any()


def touching(one: npt.NDArray[np.uint32], other: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool]:
    return np.asarray((one != other) & (one > 0) & (other > 0))


# --- likeness (figures of the real ISBI 2012 volume in brackets) -----------------------------


def test_grey_values_are_like_the_real_ones(volume: SyntheticEM) -> None:
    assert 105 < volume.raw.mean() < 155  # 125
    assert 33 < volume.raw.std() < 52  # 44


def test_membranes_take_their_share(volume: SyntheticEM) -> None:
    per_section = (volume.cells == 0).mean(axis=(1, 2))
    assert per_section.min() > 0.15  # 0.19
    assert per_section.max() < 0.35  # 0.27


def test_membranes_are_darker_than_cytoplasm(volume: SyntheticEM) -> None:
    inside = volume.cells > 0
    for raw, mask in zip(volume.raw, inside, strict=True):
        assert raw[~mask].mean() < raw[mask].mean() - 35  # 52


def test_profiles_are_of_very_different_size(volume: SyntheticEM) -> None:
    areas = np.concatenate([np.bincount(ids.ravel())[1:] for ids in volume.instances])
    small, large = np.quantile(areas[areas > 0], [0.1, 0.9])
    assert large > 15 * small  # 45


def test_cells_continue_into_the_next_section_but_drift(volume: SyntheticEM) -> None:
    ids = volume.instances
    near = [same_cell(ids[z], ids[z + 1]) for z in range(len(ids) - 1)]
    assert min(near) > 0.8
    assert 0.4 < same_cell(ids[0], ids[-1]) < min(near)


def same_cell(one: npt.NDArray[np.uint32], other: npt.NDArray[np.uint32]) -> float:
    """Share of the pixels inside cells in both sections that belong to one cell."""
    both = (one > 0) & (other > 0)
    return float((one == other)[both].mean())


def test_larger_pixels_see_more_cells() -> None:
    fine, coarse = (
        synthetic_em((1, 96, 96), seed=0, voxel_size=(50.0, pixel, pixel)) for pixel in (4.0, 12.0)
    )
    assert coarse.instances.max() > 3 * fine.instances.max() > 0


def test_thin_sections_differ_less() -> None:
    thin, thick = (
        synthetic_em((2, 200, 200), seed=4, voxel_size=(z, 4.0, 4.0)).instances
        for z in (5.0, 100.0)
    )
    assert changed(*thin) < 0.5 * changed(*thick)


def changed(one: npt.NDArray[np.uint32], other: npt.NDArray[np.uint32]) -> float:
    return float((one != other).mean())


# --- wrong arguments -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shape": (0, 16, 16)}, "shape"),
        ({"shape": (1, -4, 16)}, "shape"),
        ({"shape": (16, 16)}, "shape"),
        ({"shape": (1, 16.5, 16)}, "shape"),
        ({"seed": -1}, "seed"),
        ({"voxel_size": (50.0, 0.0, 4.0)}, "voxel_size"),
        ({"voxel_size": (50.0, 4.0, float("nan"))}, "voxel_size"),
        ({"voxel_size": (float("inf"), 4.0, 4.0)}, "voxel_size"),
        ({"voxel_size": (4.0, 4.0)}, "voxel_size"),
        ({"voxel_size": (50.0, 4.0, 33.0)}, "33 nm are wider than a membrane"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        synthetic_em(**{"shape": (1, 16, 16), "seed": 0, **arguments})
