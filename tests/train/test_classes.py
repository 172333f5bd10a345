"""Which label values are classes, instances and background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.train.findings import warnings
from tests.support.runs import run_tilenet, store_volume
from tests.train.test_train_job import cells, em, job
from tilenet.errors import InvalidData, InvalidRecipe
from tilenet.synthetic import synthetic_em

__all__ = ["em"]

NO_CLEFT = 2**64 - 1


def bands(count: int) -> npt.NDArray[np.uint8]:
    return (np.arange(72) // (72 // count) * np.ones((6, 64, 1))).astype(np.uint8)


def test_more_than_eight_classes_are_said_by_number_or_names(em: str, tmp_path: Path) -> None:
    labels = store_volume(tmp_path / "labels.zarr", bands(12))
    with pytest.raises(InvalidData, match=r"more than 8 values: instances, not classes.*--classes"):
        job(em, labels)
    prepared = job(em, labels, {"targets.classes": 12})
    assert prepared.statistics.values == list(range(12))
    assert prepared.architecture.out_channels == len(prepared.outputs) == 12
    names = tuple("abcdefghijkl")
    outputs = job(em, labels, {"targets.names": names}).outputs
    found = [(output.name, output.label) for output in outputs]
    assert found == list(zip(names, range(12), strict=True))
    with pytest.raises(InvalidData, match="hold more than the 11 values"):
        job(em, labels, {"targets.classes": 11})
    with pytest.raises(InvalidData, match=r"hold 12 values, .* but 13 .*--classes 12"):
        job(em, labels, {"targets.classes": 13})
    with pytest.raises(InvalidRecipe, match="binary = true makes 2"):
        job(em, labels, {"targets.classes": 13, "targets.binary": True})
    with pytest.raises(InvalidRecipe, match="names has 12"):
        job(em, labels, {"targets.classes": 13, "targets.names": names})


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_floats_that_are_whole_are_labels(em: str, tmp_path: Path, dtype: str) -> None:
    labels = store_volume(tmp_path / "labels.zarr", (2 * cells()).astype(dtype))
    whole = store_volume(tmp_path / "whole.zarr", 2 * cells())
    ours, theirs = (job(em, path) for path in (labels, whole))
    assert ours.statistics.counts == theirs.statistics.counts
    for index in range(3):
        one, other = (j.patches.augmented(j.patches.sample(index)) for j in (ours, theirs))
        assert np.array_equal(one.classes, other.classes)


@pytest.mark.parametrize(("value", "words"), [(0.25, "0.25"), (np.nan, "nan"), (np.inf, "inf")])
def test_floats_that_are_not_whole_are_refused(
    em: str, tmp_path: Path, value: float, words: str
) -> None:
    values = cells().astype(np.float32)
    values[3, 40, 50] = value
    labels = store_volume(tmp_path / "labels.zarr", values)
    with pytest.raises(InvalidData, match=f"hold the value {words}, and a class .*probabilities"):
        job(em, labels, {"targets.binary": True})


def test_floats_too_may_hold_an_ignored_value(em: str, tmp_path: Path) -> None:
    values = cells().astype(np.float32)
    values[:, :, 40:] = -1
    labels = store_volume(tmp_path / "labels.zarr", values)
    counts = job(em, labels, {"targets.ignore": -1}).statistics.counts
    assert sum(counts.values()) == 6 * 64 * 40


def test_dense_instances_are_told_of_the_gap(em: str, tmp_path: Path) -> None:
    values = np.full((6, 64, 72), 5, np.uint16)
    values[:, :, 36:] = 6
    labels = store_volume(tmp_path / "labels.zarr", values)
    with pytest.raises(InvalidData, match=r"instances only: no voxel .* background, 0\..*--gap 2"):
        job(em, labels, {"targets.binary": True})
    counts = job(em, labels, {"targets.binary": True, "targets.gap": 2}).statistics.counts
    assert counts == {0: 6 * 64 * 2, 1: 6 * 64 * 70}


@pytest.mark.parametrize("background", [NO_CLEFT, 7])
@pytest.mark.parametrize("gap", [0, 2])
def test_the_background_may_have_any_value(
    em: str, tmp_path: Path, background: int, gap: int
) -> None:
    # Instance 0 is one as any other is, and stays apart from its neighbour.
    bodies = synthetic_em((6, 64, 72), seed=3).instances.astype(np.uint64)
    plain = store_volume(tmp_path / "plain.zarr", bodies)
    first = int(bodies[bodies > 0][0])
    other = np.where(bodies == 0, np.uint64(background), bodies)
    other[bodies == background] = 1000  # was the number of an instance
    other[bodies == first] = 0
    labels = store_volume(tmp_path / "labels.zarr", other)
    changes = {"targets.binary": True, "targets.gap": gap}
    expected = job(em, plain, changes).statistics.counts
    found = job(em, labels, {**changes, "targets.background": background}).statistics.counts
    assert found == expected
    # An ignored 0 is that instance.
    more = {"targets.background": background, "targets.ignore": 0}
    known = job(em, labels, {**changes, **more}).statistics.counts
    alike = job(em, plain, {**changes, "targets.ignore": first}).statistics.counts
    assert known == alike
    assert sum(known.values()) == bodies.size - int((bodies == first).sum())


def test_a_background_that_cannot_be_is_refused(em: str, tmp_path: Path) -> None:
    labels = store_volume(tmp_path / "labels.zarr", cells())
    binary = {"targets.binary": True}
    with pytest.raises(InvalidData, match=f"Background {NO_CLEFT}: cannot occur .* type uint8"):
        job(em, labels, {**binary, "targets.background": NO_CLEFT})
    with pytest.raises(InvalidData, match=r"no voxel .* is background, 9\..*--background"):
        job(em, labels, {**binary, "targets.background": 9})
    with pytest.raises(InvalidRecipe, match="binary = true belongs to it"):
        job(em, labels, {"targets.background": 1})
    for values in ({"targets.background": 1, "targets.ignore": 1}, {"targets.ignore": 0}):
        with pytest.raises(InvalidRecipe, match="both the background and ignored"):
            job(em, labels, {**binary, **values})
    # 0 is a class as any other.
    with pytest.raises(InvalidData, match="hold the value 1 only"):
        job(em, labels, {"targets.ignore": 0})


def test_a_number_of_classes_is_that_of_all_volumes(em: str, tmp_path: Path) -> None:
    labels = store_volume(tmp_path / "labels.zarr", cells())
    again = store_volume(tmp_path / "again.zarr", 255 * cells())
    pair = {"also": [f"{em},{again}"]}
    with pytest.raises(InvalidData, match=f"Labels {labels} and {again}: hold 3 values"):
        job(em, labels, {"targets.classes": 2}, **pair)
    many = store_volume(tmp_path / "many.zarr", bands(8) + 2)
    with pytest.raises(InvalidData, match=f"Labels {labels} and {many}: hold more than 8 values"):
        job(em, labels, also=[f"{em},{many}"])


def test_the_classes_of_each_volume_are_said_and_a_difference_is_a_warning(
    em: str, tmp_path: Path
) -> None:
    labels = store_volume(tmp_path / "labels.zarr", cells())
    again = store_volume(tmp_path / "again.zarr", 255 * cells())
    first, second = warnings(job(em, labels, also=[f"{em},{again}"]))
    assert first.startswith(f"{labels} has no voxel of class 255, which other volumes have.")
    assert second.startswith(f"{again} has no voxel of class 1, ")
    assert list(warnings(job(em, labels, also=[f"{em},{labels}"]))) == []
    done = run_tilenet(
        "train", em, labels, "--also", f"{em},{again}", "--base-channels", "2", "--depth", "1",
        "--patch", "1,20,20", "--steps", "1", "--threads", "1", "--output",
        tmp_path / "m.safetensors",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    share = cells().mean()
    for path, value in ((labels, 1), (again, 255)):
        line = f"{path}: 27648 voxels; classes 0 ({1 - share:.2%}), {value} ({share:.2%})"
        assert line in done.stderr
    assert f"Warning: {again} has no voxel of class 1" in done.stderr
