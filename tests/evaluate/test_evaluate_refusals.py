"""What ``tilenet evaluate`` refuses, by the words of its messages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipelines import cli
from pipelines.evaluate import voxel_checks as checks
from tests.support.runs import store_volume
from tilenet.geometry import Box, zyx
from tilenet.volumes import NewVolume, create_volume, reopen_for_writing

Array = npt.NDArray[Any]
SHAPE = (3, 24, 24)


def cells() -> Array:
    """Four cells with membranes between them, numbered."""
    labels = np.zeros(SHAPE, np.uint8)
    for number, (y, x) in enumerate(((0, 0), (0, 12), (12, 0), (12, 12)), 1):
        labels[:, y : y + 10, x : x + 10] = number
    return labels


LABELS = cells()
GREY = np.where(LABELS > 0, 230, 20).astype(np.uint8)
MASK = np.where(LABELS > 0, 255, 0).astype(np.uint8)


def refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    prediction: Array | str,
    truth: Array | str,
    *options: str,
) -> str:
    """Run the command, and give the message that refused it."""
    paths = [
        given if isinstance(given, str) else store_volume(tmp_path / f"{name}.zarr", given)
        for name, given in (("prediction", prediction), ("truth", truth))
    ]
    code = cli.run(["evaluate", *paths, *options])
    out, err = capsys.readouterr()
    assert code == 1, out + err
    assert out == ""
    assert "blocks" not in err.split("Error:")[0]  # before any work
    return err


@pytest.mark.parametrize(
    ("prediction", "truth", "options", "said"),
    [
        (GREY[:2], LABELS, (), "have the shape (3, 24, 24), but"),
        (GREY, LABELS / 2, (), "holds float64 values, and labels are integers"),
        (GREY, LABELS / 2, (), "as integers with 'tilenet ingest --dtype uint32'"),
        (GREY, np.stack([LABELS, LABELS]), (), "has 2 channels, and labels have none"),
        (np.stack([GREY, GREY]), LABELS, (), "Choose that of the interior with --channel"),
        (
            255 - GREY,
            LABELS,
            (),
            "1 - p fits the truth's interior (above 0) better, and at no threshold worse",
        ),
        (255 - GREY, LABELS, (), "add --invert"),
        (GREY, LABELS, ("--invert",), "leave out --invert"),
        (GREY, 0 * LABELS, (), "has no label above 0 in z=0:3,y=0:24,x=0:24"),
        (LABELS.astype(np.uint32), LABELS, (), "say so with --segmentation"),
        (MASK // 255, LABELS, (), "uint8 means 255 p"),
        (GREY / 2.0, LABELS, (), "not finite or not within 0 to 1"),
        (np.where(LABELS > 0, np.nan, 0.0), LABELS, (), "not finite or not within 0 to 1"),
        (GREY / 255.0, LABELS, ("--segmentation",), "'tilenet label'"),
        (LABELS, MASK, ("--segmentation",), "no value but 255 above 0, so it is a mask"),
        (LABELS, MASK, ("--segmentation",), "Make instances of it with 'tilenet label'"),
        (GREY, MASK, ("--threshold", "0.5"), "so it is a mask"),
        (GREY, LABELS, ("--figures", "seg"), "Give both --figures seg and --threshold"),
        (GREY, LABELS, ("--figures", "isbi", "--threshold", "0.5"), "or neither"),
        (GREY, LABELS, ("--figures", "volume"), "give those with --segmentation"),
        (LABELS, LABELS, ("--segmentation", "--figures", "isbi"), "over thresholds"),
        (LABELS, LABELS, ("--segmentation", "--invert"), "--invert: is for probabilities"),
        (LABELS, LABELS, ("--segmentation", "--threshold", "0.5"), "--threshold: is for"),
        (LABELS, LABELS, ("--segmentation", "--plot", "a.png"), "there are none of instances"),
        (GREY, LABELS, ("--region", "z=0:9,y=0:24,x=0:24"), "leaves the volume"),
        (GREY, LABELS, ("--json", "nowhere/figures.json"), "its folder does not exist"),
        (GREY, LABELS, ("--plot", "figures.docx"), "End it in .png, .pdf, .svg"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    prediction: Array,
    truth: Array,
    options: tuple[str, ...],
    said: str,
) -> None:
    assert said in refused(tmp_path, capsys, prediction, truth, *options)


def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["evaluate", "a.zarr", "b.zarr", "--figures", "isbi,dice"]) == 2
    assert "['dice'] are none of isbi, seg, volume" in capsys.readouterr().err
    assert cli.run(["evaluate", "a.zarr", "b.zarr", "--threshold", "x"]) == 2


def test_other_voxel_sizes_are_refused_unless_they_are_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = store_volume(tmp_path / "coarse.zarr", LABELS, voxel_size=(50.0, 8.0, 8.0))
    message = refused(tmp_path, capsys, GREY, truth)
    assert "voxels are (50.0, 4.0, 4.0) nm (z, y, x)" in message
    prediction = str(tmp_path / "prediction.zarr")
    assert cli.run(["evaluate", prediction, truth, "--ignore-voxel-size"]) == 0


def test_a_plot_without_matplotlib_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "tilenet[plot]" in refused(tmp_path, capsys, GREY, LABELS, "--plot", "a.png")


def test_a_mask_is_found_out_at_the_end_where_it_could_not_be_seen_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "SCANNED", 1)
    paths = [store_volume(tmp_path / f"{i}.zarr", v) for i, v in enumerate((LABELS, MASK))]
    for figures in ("seg", "volume"):
        assert cli.run(["evaluate", *paths, "--segmentation", "--figures", figures]) == 1
        assert "so it is a mask" in capsys.readouterr().err


def test_a_bad_value_that_no_sample_saw_is_refused_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "SAMPLES", 1)
    broken = GREY / 255.0
    broken[0, 3, 3] = 7
    paths = [store_volume(tmp_path / f"{i}.zarr", v) for i, v in enumerate((broken, LABELS))]
    assert cli.run(["evaluate", *paths]) == 1
    message = capsys.readouterr().err
    assert "z=0:1" in message
    assert "values reach from" in message


# --- what a prediction of ours says of itself ----------------------------------------------------


def prediction_of_ours(
    path: Path, values: Array, channels: list[dict[str, Any]], activation: str = "softmax"
) -> str:
    names = tuple(c["name"] for c in channels) if values.ndim == 4 else None
    new = NewVolume(
        shape=zyx(values.shape[-3:]),
        dtype=str(values.dtype),
        chunk=(1, 24, 24),
        shard=(1, 24, 24),
        channels=names,
        attributes={
            "kind": "prediction",
            "output": {"activation": activation, "channels": channels},
        },
    )
    create_volume(str(path), new)
    stored = reopen_for_writing(str(path))
    for z in range(2):  # the third section is not predicted yet
        box = Box((z, 0, 0), (z + 1, 24, 24))
        stored.write(box, values[..., z : z + 1, :, :])
    return str(path)


TWO = ("--region", "z=0:2,y=0:24,x=0:24")


def test_what_is_not_predicted_yet_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = prediction_of_ours(tmp_path / "p.zarr", GREY, [{"name": "interior", "label": 255}])
    message = refused(tmp_path, capsys, path, LABELS)
    assert "1 of the 3 objects that hold z=0:3,y=0:24,x=0:24 are not stored yet" in message
    assert "z=2:3" in message
    assert cli.run(["evaluate", path, str(tmp_path / "truth.zarr"), *TWO]) == 0
    capsys.readouterr()
    shards = sorted((tmp_path / "truth.zarr" / "0" / "c").rglob("*"))
    next(shard for shard in shards if shard.is_file()).unlink()
    message = refused(tmp_path, capsys, path, str(tmp_path / "truth.zarr"), *TWO)
    assert "truth.zarr: 1 of the" in message


def test_the_background_class_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = [{"name": "membrane", "label": 0}, {"name": "interior", "label": 255}]
    path = prediction_of_ours(tmp_path / "p.zarr", np.stack([255 - GREY, GREY]), channels)
    assert "(membrane, interior)" in refused(tmp_path, capsys, path, LABELS, *TWO)
    truth = str(tmp_path / "truth.zarr")
    message = refused(tmp_path, capsys, path, truth, *TWO, "--channel", "0")
    assert "probability of 'membrane', which stands for label 0" in message
    assert cli.run(["evaluate", path, truth, *TWO, "--channel", "1"]) == 0
    assert cli.run(["evaluate", path, truth, *TWO, "--channel", "0", "--invert"]) == 0


def test_one_of_several_classes_is_not_compared_with_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = [{"name": name, "label": n} for n, name in enumerate(("none", "cell", "organelle"))]
    path = prediction_of_ours(tmp_path / "p.zarr", np.stack([255 - GREY, GREY, GREY]), channels)
    classes = np.where(LABELS > 2, 2, LABELS.clip(0, 1))
    message = refused(tmp_path, capsys, path, classes, *TWO, "--channel", "1")
    assert "holds the classes 1, 2" in message


@pytest.mark.parametrize("figures", ["isbi", "classes", "isbi,classes"])
def test_of_two_classes_above_0_the_one_that_was_predicted_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], figures: str
) -> None:
    truth = np.where(LABELS > 0, 2, 1).astype(np.uint8)
    path = prediction_of_ours(tmp_path / "p.zarr", GREY, [{"name": "cell", "label": 2}])
    command = (*TWO, "--figures", figures)
    message = refused(tmp_path, capsys, path, truth, *command)
    assert "holds the classes 1, 2" in message
    assert "--truth-class which of them was predicted; its label is 2" in message
    true = str(tmp_path / "truth.zarr")
    assert cli.run(["evaluate", path, true, *command, "--truth-class", "2"]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--threshold", "1.5"), "is no probability that another may exceed"),
        (("--threshold", "1.5"), "give --raw-threshold 1.5"),
        (("--threshold", "0.5", "--raw-threshold", "3"), "contradicts --threshold"),
        (("--figures", "classes"), "hold several values beside 0"),
        (("--figures", "isbi", "--raw-threshold", "127"), "or neither"),
        (("--segmentation", "--raw-threshold", "1"), "--raw-threshold: is for probabilities"),
    ],
)
def test_thresholds_that_cannot_be_meant_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    prediction = LABELS if "--segmentation" in options else GREY
    assert said in refused(tmp_path, capsys, prediction, LABELS, *options)


def test_a_mask_that_no_sample_saw_to_be_none_is_refused_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "SAMPLES", 1)
    mask = (LABELS > 0) * np.uint8(255)
    paths = [store_volume(tmp_path / f"{i}.zarr", v) for i, v in enumerate((mask, LABELS))]
    assert cli.run(["evaluate", *paths, "--figures", "classes"]) == 0
    assert "stored 0" in capsys.readouterr().out
    mask[0, 3, 3] = 7
    paths[0] = store_volume(tmp_path / "other.zarr", mask)
    assert cli.run(["evaluate", *paths, "--figures", "classes"]) == 1
    assert "hold several values beside 0 (7 and 255" in capsys.readouterr().err


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -0.5])
def test_no_voxel_of_one_class_is_beyond_probabilities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(checks, "SAMPLES", 1)
    broken = GREY / 255.0
    broken[0, 3, 3] = value
    prediction = store_volume(tmp_path / "p.zarr", broken)
    truth = store_volume(tmp_path / "t.zarr", LABELS.astype(np.int32))
    command = ["evaluate", prediction, truth, "--figures", "classes", "--threshold", "0.5"]
    assert cli.run(command) == 1
    message = capsys.readouterr().err
    assert "z=0:" in message
    assert "NaN" in message or "values reach from" in message
    unlabelled = LABELS.astype(np.int32)
    unlabelled[0, 3, 3] = -1
    truth = store_volume(tmp_path / "u.zarr", unlabelled)
    command = ["evaluate", prediction, truth, *command[3:], "--ignore", "-1"]
    assert cli.run(command) == 0


def test_scores_without_bounds_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = [{"name": "distance", "label": None}]
    path = prediction_of_ours(
        tmp_path / "p.zarr", GREY.astype(np.float32), channels, activation="linear"
    )
    assert "scores without bounds" in refused(tmp_path, capsys, path, LABELS, *TWO)


def test_probabilities_of_ours_become_instances_at_a_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = prediction_of_ours(tmp_path / "p.zarr", GREY, [{"name": "interior", "label": 255}])
    truth = store_volume(tmp_path / "truth.zarr", LABELS)
    command = ["evaluate", path, truth, *TWO, "--figures", "seg"]
    assert cli.run(command) == 0
    shown = capsys.readouterr().out
    assert cli.run([*command, "--threshold", "0.5"]) == 0
    assert shown == capsys.readouterr().out
    assert "0.5" in shown


def test_probabilities_of_ours_are_no_instances(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = prediction_of_ours(tmp_path / "p.zarr", GREY, [{"name": "interior", "label": 255}])
    message = refused(tmp_path, capsys, path, LABELS, *TWO, "--segmentation")
    assert "holds probabilities, and --segmentation means instances" in message
