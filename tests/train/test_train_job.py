"""Labels, weights and held-out boxes that cannot be meant are refused before any work."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.train import TrainingOptions
from pipelines.train.job import TrainingJob, prepare
from tests.support.runs import run_tilenet, store_volume
from tilenet.errors import InvalidData
from tilenet.synthetic import synthetic_em
from tilenet.volumes import VolumeReference

TINY = {"network.base_channels": 2, "network.depth": 1, "optimization.patch": (1, 20, 20)}


@pytest.fixture(scope="module")
def em(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Synthetic EM."""
    raw = synthetic_em((6, 64, 72), seed=3).raw
    return store_volume(tmp_path_factory.mktemp("training") / "em.zarr", raw)


def cells() -> npt.NDArray[np.uint8]:
    return (synthetic_em((6, 64, 72), seed=3).cells > 0).astype(np.uint8)


def job(em: str, labels: str, changes: dict[str, Any] | None = None, **more: Any) -> TrainingJob:
    output = str(Path(labels).parent / "m.safetensors")
    options = TrainingOptions(output=output, changes={**TINY, **(changes or {})}, **more)
    return prepare(VolumeReference(em), VolumeReference(labels), options)


# --- label values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "value"), [("int32", -1), ("int64", -7), ("uint64", 2**64 - 1), ("uint64", 2**63)]
)
def test_a_value_that_cannot_be_a_class_is_refused_or_ignored(
    em: str, tmp_path: Path, dtype: str, value: int
) -> None:
    values = cells().astype(dtype)
    values[2, 10:20, 10:20] = value
    labels = store_volume(tmp_path / "labels.zarr", values)
    with pytest.raises(InvalidData, match=f"hold the value {value}; .* say --ignore {value}"):
        job(em, labels)
    counts = job(em, labels, {"targets.ignore": value}).statistics.counts
    assert list(counts) == [0, 1]
    assert sum(counts.values()) == values.size - 100


def test_instances_may_have_any_number(em: str, tmp_path: Path) -> None:
    values = cells().astype(np.uint64) * np.uint64(2**64 - 1)
    labels = store_volume(tmp_path / "labels.zarr", values)
    counts = job(em, labels, {"targets.binary": True}).statistics.counts
    assert counts == {0: int((values == 0).sum()), 1: int((values != 0).sum())}


def test_labels_of_several_channels_are_not_called_of_a_wrong_type(em: str, tmp_path: Path) -> None:
    labels = store_volume(tmp_path / "labels.zarr", np.stack([cells()] * 2))
    with pytest.raises(InvalidData, match="have 2 channels, and a voxel has one label"):
        job(em, labels)


def test_a_class_of_hardly_a_voxel_is_named(em: str, tmp_path: Path) -> None:
    values = np.full((6, 64, 72), 5, np.uint16)  # dense instances
    values[:, :, 36:] = 6
    values[0, 0, :9] = 0
    labels = store_volume(tmp_path / "labels.zarr", values)
    assert job(em, labels, {"targets.binary": True}).statistics.rare == [0]
    assert job(em, labels, {"targets.binary": True, "targets.gap": 2}).statistics.rare == []
    done = run_tilenet(
        "train", em, labels, "--binary", "--base-channels", "2", "--depth", "1", "--patch",
        "1,20,20", "--steps", "1", "--threads", "1", "--output", tmp_path / "m.safetensors",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Only 9 of 27648 voxels are of class 0; where instances touch, --gap" in done.stderr


# --- the held-out box ------------------------------------------------------------------------


def test_a_class_that_only_the_held_out_box_has_is_found_before_any_work(
    em: str, tmp_path: Path
) -> None:
    values = cells()
    values[5, 60:, 70:] = 9
    labels = store_volume(tmp_path / "labels.zarr", values)
    held_out = {"validation.region": ((4, 6), (0, 64), (0, 72))}
    with pytest.raises(InvalidData, match=r"hold the values \[9\], which the training region has"):
        job(em, labels, held_out)
    assert job(em, labels, {**held_out, "targets.ignore": 9}).statistics.values == [0, 1]


def test_a_held_out_box_without_a_label_is_refused(em: str, tmp_path: Path) -> None:
    values = cells()
    values[4:] = 9
    labels = store_volume(tmp_path / "labels.zarr", values)
    held_out = {"validation.region": ((4, 6), (0, 64), (0, 72)), "targets.ignore": 9}
    with pytest.raises(InvalidData, match=r"held-out box z=4:6.*hold ignored voxels only"):
        job(em, labels, held_out)
    values[5, 40, 50] = 1
    labels = store_volume(tmp_path / "more.zarr", values)
    assert job(em, labels, held_out).held_out is not None


def test_the_held_out_volume_is_not_trained_on_by_another_name(em: str, tmp_path: Path) -> None:
    labels = store_volume(tmp_path / "labels.zarr", cells())
    held_out = {"validation.region": ((4, 6), (0, 64), (0, 72))}
    copy, other = (str(tmp_path / f"{name}.zarr") for name in ("copy", "other"))
    shutil.copytree(em, copy)
    for again in (em, f"{em}/0", f"{em}/../em.zarr", copy):
        with pytest.raises(InvalidData, match="is the first volume again"):
            job(em, labels, held_out, also=[f"{again},{labels}"])
        assert len(job(em, labels, also=[f"{again},{labels}"]).volumes) == 2
    store_volume(Path(other), synthetic_em((6, 64, 72), seed=4).raw)
    assert len(job(em, labels, held_out, also=[f"{other},{labels}"]).volumes) == 2


def test_volumes_that_are_only_stored_alike_are_two(
    em: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilenet.training.statistics.fingerprint", lambda volume: "alike")
    labels = store_volume(tmp_path / "labels.zarr", cells())
    other = store_volume(tmp_path / "other.zarr", synthetic_em((6, 64, 72), seed=4).raw)
    held_out = {"validation.region": ((4, 6), (0, 64), (0, 72))}
    assert len(job(em, labels, held_out, also=[f"{other},{labels}"]).volumes) == 2


# --- weight maps -----------------------------------------------------------------------------


def with_one(value: float) -> npt.NDArray[np.float32]:
    weights = np.ones((6, 64, 72), np.float32)
    weights[3, 40, 50] = value
    return weights


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (with_one(np.nan), "in z=0:6,y=0:64,x=0:64: hold NaN or infinite"),
        (with_one(np.inf), "hold NaN or infinite"),
        (with_one(-2), "hold negative values, down to -2"),
        (0 * with_one(0), "are 0 wherever a voxel has a class"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(
    em: str, tmp_path: Path, weights: npt.NDArray[np.float32], words: str
) -> None:
    labels = store_volume(tmp_path / "labels.zarr", cells())
    path = store_volume(tmp_path / "weights.zarr", weights)
    with pytest.raises(InvalidData, match=words):
        job(em, labels, weight_map=path)


def test_weights_of_ignored_voxels_alone_are_no_weights(em: str, tmp_path: Path) -> None:
    values = cells()
    values[:, :, 40:] = 7
    labels = store_volume(tmp_path / "labels.zarr", values)
    path = store_volume(tmp_path / "weights.zarr", (values == 7).astype(np.float32))
    with pytest.raises(InvalidData, match="are 0 wherever a voxel has a class"):
        job(em, labels, {"targets.ignore": 7}, weight_map=path)


def test_weights_that_are_0_in_places_are_taken(em: str, tmp_path: Path) -> None:
    labels = store_volume(tmp_path / "labels.zarr", cells())
    path = store_volume(tmp_path / "weights.zarr", with_one(0) * cells())
    assert job(em, labels, weight_map=path).statistics.values == [0, 1]


@pytest.mark.parametrize("kind", ["prediction", "instances"])
def test_what_says_that_it_is_no_weight_map_is_none(em: str, tmp_path: Path, kind: str) -> None:
    labels = store_volume(tmp_path / "labels.zarr", cells())
    path = store_volume(tmp_path / "weights.zarr", with_one(1), kind=kind)
    with pytest.raises(InvalidData, match=f"says that it holds '{kind}', not 'weights'"):
        job(em, labels, weight_map=path)
