"""What a task takes of its inputs: nothing that is not there, or is no number; and of a mask."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.oracles import (
    grey_values,
    probabilities,
    random_network,
    save_softmax,
    whole_pass,
)
from tests.support.runs import predict_task, store_volume
from tilenet.errors import NonFiniteValues, UnreadableBlock
from tilenet.geometry import Box
from tilenet.inference import PredictTask
from tilenet.networks import UNetArchitecture
from tilenet.volumes import GreyTask, Intensity, VolumeReference, open_volume

SHAPE = (4, 32, 32)
WHOLE = Box.of_shape(SHAPE)
VALUES = grey_values(SHAPE)
NETWORK = UNetArchitecture.planar(2, 1, dropout=0.0)


def task_for(
    folder: Path, values: np.ndarray, mask: np.ndarray | None = None, **changes: Any
) -> PredictTask:
    """A task over one block of all sections, from shards of one section each."""
    save_softmax(folder / "model.safetensors", random_network(NETWORK))
    source = store_volume(folder / "em.zarr", values, chunk=(1, 32, 32))
    task = predict_task(
        source, str(folder / "model.safetensors"), folder / "out.zarr",
        block=SHAPE, tile=(1, 32, 32), dtype="float32",
    )  # fmt: skip
    if mask is not None:
        stored = store_volume(folder / "mask.zarr", mask, chunk=(1, *mask.shape[1:]))
        changes["mask"] = VolumeReference(stored)
    return dataclasses.replace(task, **changes)


def stored(folder: Path) -> np.ndarray:
    return open_volume(str(folder / "out.zarr")).read(WHOLE)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_block_is_predicted_where_any_of_its_sections_is_inside(
    tmp_path: Path, dtype: type[np.generic]
) -> None:
    mask = np.zeros(SHAPE, dtype)
    mask[2, 5:20, 7:30] = -1 if dtype is np.int8 else 3
    report = task_for(tmp_path, VALUES, mask)(WHOLE)
    expected = probabilities(whole_pass(random_network(NETWORK), VALUES))[1] * (mask != 0)
    assert expected.any()
    assert not report.skipped
    np.testing.assert_allclose(stored(tmp_path), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fine", [True, False])
def test_a_mask_counts_where_it_lies(tmp_path: Path, fine: bool) -> None:
    # It begins 2, 4 and 8 voxels before the volume, and reaches beyond it.
    mask = np.random.default_rng(2).integers(0, 2, (7, 40, 44), dtype=np.uint8)
    size, at = (50.0, 4.0, 4.0), (900.0, 984.0, 968.0)
    full = mask[2:6, 4:36, 8:40]
    if not fine:
        mask = mask[:, :10, :11]
        full = np.kron(mask, np.ones((1, 4, 4), np.uint8))[2:6, 4:36, 8:40]
        size, at = (50.0, 16.0, 16.0), (900.0, 990.0, 974.0)
    task = task_for(tmp_path, VALUES)
    store_volume(tmp_path / "placed.zarr", VALUES, translation=(1000.0, 1000.0, 1000.0))
    path = store_volume(
        tmp_path / "mask.zarr", mask, chunk=(1, 8, 8), voxel_size=size, translation=at
    )
    source = VolumeReference(str(tmp_path / "placed.zarr"))
    dataclasses.replace(task, source=source, mask=VolumeReference(path))(WHOLE)
    expected = probabilities(whole_pass(random_network(NETWORK), VALUES))[1] * full
    assert expected.any()
    np.testing.assert_allclose(stored(tmp_path), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gone", ["em", "mask"])
def test_a_shard_of_an_input_that_is_gone_is_not_taken_for_zeros(tmp_path: Path, gone: str) -> None:
    task = task_for(tmp_path, VALUES, np.ones(SHAPE, np.uint8))
    (tmp_path / f"{gone}.zarr" / "0" / "c" / "2" / "0" / "0").unlink()
    with pytest.raises(UnreadableBlock, match=rf"{gone}\.zarr: .*c/2/0/0: is missing"):
        task(WHOLE)
    assert open_volume(str(tmp_path / "out.zarr")).missing([WHOLE]) == [0]


def test_what_a_window_would_clip_has_to_be_a_number_too(tmp_path: Path) -> None:
    values = VALUES.astype(np.float32)
    values[2, 3, 4] = np.inf
    task = task_for(tmp_path, values, intensity=Intensity(1.5, 1.0, low=0.0, high=3.0))
    with pytest.raises(NonFiniteValues, match="1 "):
        task(WHOLE)
    assert open_volume(str(tmp_path / "out.zarr")).missing([WHOLE]) == [0]


def test_statistics_are_of_numbers_and_of_all_that_was_stored(tmp_path: Path) -> None:
    values = VALUES.astype(np.float32)
    source = VolumeReference(store_volume(tmp_path / "em.zarr", values, chunk=(1, 32, 32)))
    (tmp_path / "em.zarr" / "0" / "c" / "1" / "0" / "0").unlink()
    with pytest.raises(UnreadableBlock, match="c/1/0/0: is missing"):
        GreyTask(source=source, run="gone")(WHOLE)
    values[1, 2, 3] = np.nan
    other = VolumeReference(store_volume(tmp_path / "nan.zarr", values, chunk=(1, 32, 32)))
    with pytest.raises(NonFiniteValues):
        GreyTask(source=other, run="nan")(WHOLE)
