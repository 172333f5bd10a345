"""Labels of few voxels: patches lie where they are, and what teaches nothing is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.train.findings import warnings
from pipelines.train.progress import TrainingReporter, cure_of
from tests.support.runs import run_tilenet, store_volume
from tests.train.test_train_job import cells, em, job
from tilenet.errors import InvalidData
from tilenet.inference import read_header
from tilenet.training import Patches, Step

__all__ = ["em"]

UNIFORM = {"sampling.positions": "uniform", "targets.ignore": 9}


def sparse(where: str) -> npt.NDArray[np.uint8]:
    """Labels of one square, of one corner, or of every fourth section; else ignored."""
    boxes: dict[str, Any] = {
        "square": np.s_[2, 30:36, 40:48],
        "corner": np.s_[5, :5, -5:],
        "sections": np.s_[::4, :, :],
    }
    values, kept = cells(), np.zeros((6, 64, 72), bool)
    kept[boxes[where]] = True
    values[5, 0, -5:] = 0  # both classes in the corner
    return np.where(kept, values, 9).astype(np.uint8)


def labelled(drawn: Patches, count: int = 40) -> int:
    return sum(bool(drawn.augmented(drawn.sample(i)).weights.any()) for i in range(count))


@pytest.mark.parametrize("where", ["square", "corner", "sections"])
@pytest.mark.parametrize("rotation", ["any", "none"])
def test_every_patch_of_sparse_labels_holds_some(
    em: str, tmp_path: Path, where: str, rotation: str
) -> None:
    labels = store_volume(tmp_path / "labels.zarr", sparse(where))
    elastic = {"augmentation.elastic_std": (0, 2, 2)}
    changes = {"targets.ignore": 9, "augmentation.rotation": rotation, **elastic}
    prepared = job(em, labels, changes)
    assert prepared.recipe.sampling.positions == "labelled"
    assert labelled(prepared.patches) == 40
    assert labelled(job(em, labels, {**changes, **UNIFORM}).patches) < 30


def test_all_labelled_voxels_are_drawn_alike(em: str, tmp_path: Path) -> None:
    values = np.full((6, 64, 72), 9, np.uint8)
    values[1, 20, 20], values[4, 40, 30:33] = 1, 0
    labels = store_volume(tmp_path / "labels.zarr", values)
    drawn = job(em, labels, {"targets.ignore": 9}).patches
    starts = [drawn._position(np.random.default_rng(i)) for i in range(400)]
    found = {start: starts.count((0, start)) / 400 for _, start in starts}
    assert sorted(found) == [(1, 10, 10), (4, 30, 20), (4, 30, 21), (4, 30, 22)]
    assert all(0.15 < share < 0.35 for share in found.values())


def test_patches_of_uniform_positions_are_what_they_were(em: str, tmp_path: Path) -> None:
    # The position is the first thing drawn, as version 0.1.0 drew it.
    labels = store_volume(tmp_path / "labels.zarr", sparse("square"))
    for changes in ({}, UNIFORM):
        plain = store_volume(tmp_path / "plain.zarr", cells()) if not changes else labels
        drawn = job(em, plain, changes).patches
        for index in range(5):
            rng = np.random.default_rng([0, index])
            assert int(rng.choice(1, p=np.array([1.0]))) == 0
            start = tuple(int(rng.integers(0, n)) for n in (6, 45, 53))
            assert drawn._position(np.random.default_rng([0, index])) == (0, start)


def test_the_model_says_where_patches_lay_and_how_much_is_labelled(em: str, tmp_path: Path) -> None:
    labels = store_volume(tmp_path / "labels.zarr", sparse("square"))
    output = tmp_path / "m.safetensors"
    options = ("--base-channels", "2", "--depth", "1", "--patch", "1,20,20", "--threads", "1")
    done = run_tilenet(
        "train", em, labels, "--ignore", "9", *options, "--steps", "2", "--output", output
    )
    assert done.returncode == 0, done.stderr
    assert "27648 voxels; 0.17% of them are labelled; classes 0 (" in done.stderr
    assert read_header(output).training["recipe"]["sampling"]["positions"] == "labelled"
    # Nothing was learnt: no model, and not the exit code of a success.
    values = np.full((6, 64, 72), 9, np.uint8)
    values[0, 0, :2] = 0, 1
    none = store_volume(tmp_path / "none.zarr", values)
    done = run_tilenet(
        "train", em, none, "--ignore", "9", *options, "--steps", "3", "--positions", "uniform",
        "--output", tmp_path / "none.safetensors",
    )  # fmt: skip
    assert done.returncode != 0
    assert "saw no voxel that counts" in done.stderr
    assert "say --positions labelled" in done.stderr
    assert "loss 0.000" not in done.stderr
    assert not (tmp_path / "none.safetensors").exists()


def test_patches_without_a_label_have_no_loss_and_are_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with TrainingReporter(40, 0, log=None, silent=False) as reporter:
        for done in range(1, 21):
            reporter.step(Step(done, 0.0, 0.1, 0.0, empty=1.0))
        assert reporter.recent_loss is None
        learnt = [reporter.learnt_nothing]
        # Of two patches one counted: the mean of the two losses is half of its loss.
        reporter.step(Step(21, 0.3, 0.1, 0.0, empty=0.5))
        learnt.append(reporter.learnt_nothing)
        assert learnt == [True, False]
        for done in range(22, 41):
            reporter.step(Step(done, 0.4, 0.1, 0.0))
        assert reporter.recent_loss == pytest.approx(0.4)
        reporter.losses, reporter.empty = [0.3, 0.6], [0.5, 0.0]
        reporter.finish()
    said = capsys.readouterr().err
    assert "Warning: 25% of the patches held no voxel that counts" in said
    assert "say --positions labelled" in said
    # Where patches lie so already, another thing has to be done.
    assert "--positions" not in cure_of("labelled")
    assert all("--positions labelled" in cure_of(other) for other in ("uniform", "class"))


# --- the ignored value -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "value", "now"), [("uint8", -1, 255), ("uint16", -1, 65535), ("uint8", 300, 44)]
)
def test_an_ignored_value_that_cannot_occur_is_refused(
    em: str, tmp_path: Path, dtype: str, value: int, now: int
) -> None:
    labels = store_volume(tmp_path / "labels.zarr", cells().astype(dtype))
    words = rf"label {value}: cannot occur in .*labels.zarr, of type {dtype}\..*is {now} now"
    with pytest.raises(InvalidData, match=words):
        job(em, labels, {"targets.ignore": value})
    signed = store_volume(tmp_path / "signed.zarr", cells().astype(np.int8))
    if value == -1:  # another volume can hold it
        job(em, labels, {"targets.ignore": value}, also=[f"{em},{signed}"])


def said(em: str, labels: str, changes: dict[str, Any], **more: Any) -> list[str]:
    return list(warnings(job(em, labels, changes, **more)))


def test_an_ignored_value_that_does_not_occur_is_said(em: str, tmp_path: Path) -> None:
    values = cells()
    values[0] = 255
    labels = store_volume(tmp_path / "labels.zarr", values)
    (warning,) = said(em, labels, {"targets.ignore": 254})
    assert "has the ignored value 254: the classes are 0 (" in warning
    assert "255 (16.67%)" in warning
    (warning,) = said(em, labels, {"targets.ignore": 254, "targets.binary": True})
    assert "has the ignored value 254: they hold 0 to 255" in warning
    assert said(em, labels, {"targets.ignore": 255}) == []


def test_a_volume_of_ignored_voxels_only_is_refused(em: str, tmp_path: Path) -> None:
    labels = store_volume(tmp_path / "labels.zarr", cells())
    none = store_volume(tmp_path / "none.zarr", np.full((6, 64, 72), 9, np.uint8))
    with pytest.raises(InvalidData, match=r"none.zarr: hold ignored voxels only"):
        job(em, labels, {"targets.ignore": 9}, also=[f"{em},{none}"])


def test_a_held_out_box_that_judges_by_something_else_is_said(em: str, tmp_path: Path) -> None:
    values = cells()
    values[4:], values[5, :, :30] = 0, 9
    labels = store_volume(tmp_path / "labels.zarr", values)
    region = {"validation.region": ((4, 6), (0, 64), (0, 72))}
    held_out = {**region, "validation.select": "rand_error"}
    first, second = said(em, labels, {**held_out, "targets.ignore": 9})
    assert "z=4:6,y=0:64,x=0:72 has no voxel of class 1" in first
    assert "holds ignored voxels, so rand_error is not defined, and the loss" in second
