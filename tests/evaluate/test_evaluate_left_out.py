"""``tilenet evaluate``: what is left out, classes, objects, and what is said of a truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipelines import cli
from tests.evaluate.test_evaluate import evaluate, value
from tests.support import metric_oracles as oracle
from tests.support.runs import store_volume
from tilenet.geometry import ZYX
from tilenet.metrics import (
    adapted_rand_error,
    isbi_figures,
    seg_score,
    segments,
    variation_of_information,
)
from tilenet.synthetic import synthetic_em
from tilenet.volumes import fingerprint, identify, open_volume, replace_attributes

Array = npt.NDArray[Any]
SHAPE = (3, 48, 56)
CHUNKS: list[ZYX] = [(2, 32, 24), (3, 48, 56)]

Store = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    def stored(name: str, values: Array, **more: Any) -> str:
        return store_volume(tmp_path / f"{name}.zarr", values, **more)

    return stored


def case(seed: int = 4) -> tuple[Array, Array, Array]:
    """True instances, found ones, and probabilities of them."""
    em = synthetic_em(SHAPE, seed=seed)
    noise = np.random.default_rng(seed).normal(0, 0.25, SHAPE)
    grey = np.rint(255 * np.clip(0.1 + 0.8 * (em.cells > 0) + noise, 0, 1)).astype(np.uint8)
    found = np.stack([segments(section > 140) for section in grey]).astype(np.uint16)
    return np.asarray(em.instances).astype(np.uint16), found, grey


def unlabelled(truth: Array) -> Array:
    """Part of the truth that nobody has labelled."""
    where = np.zeros(truth.shape, bool)
    where[:, 5:30, 10:25] = where[1, 40:, :] = True
    return where


FIGURES = ("--segmentation", "--figures", "seg,volume,objects,objects2d,classes")


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("boundary", [None, 2])
def test_what_is_left_out_counts_in_no_figure_of_instances(
    store: Store, capsys: pytest.CaptureFixture[str], chunk: ZYX, boundary: int | None
) -> None:
    truth, found, _ = case()
    nothing = unlabelled(truth)
    given = np.where(nothing, 65535, truth)
    out = nothing
    if boundary is not None:
        out = out | np.stack([oracle.near_boundary(section, boundary) for section in given])
    more = () if boundary is None else ("--boundary", str(boundary))
    record = evaluate(
        capsys, store("found", found, chunk=chunk), store("truth", given, chunk=(1, 24, 56)),
        *FIGURES, "--ignore", "65535", *more,
    )  # fmt: skip
    a, b = np.where(out, 0, truth), np.where(out, 0, found)
    kept = a[~out], b[~out]
    rand = adapted_rand_error(kept[0][None], kept[1][None])
    vi = variation_of_information(kept[0][None], kept[1][None])
    assert value(record, "adapted_rand_error") == pytest.approx(rand.error, abs=1e-15)
    assert value(record, "vi_split") == pytest.approx(vi.split)
    assert value(record, "vi_merge") == pytest.approx(vi.merge)
    assert value(record, "seg") == pytest.approx(seg_score(a, b))
    for name, parts in (
        ("objects", [slice(None)]),
        ("objects2d", [slice(i, i + 1) for i in range(3)]),
    ):
        counts = np.sum([oracle.objects(a[p], b[p], Fraction(1, 2)) for p in parts], axis=0)
        said = record["instances"][name]
        assert (said["matched"], said["wrong"], said["true"]) == (
            *counts[:2],
            counts[0] + counts[2],
        )
    one = next(score for score in record["classes"] if score["value"] == 0)
    assert one["true"] == ((a == 0) & ~out).sum()


def test_what_is_predicted_of_ignored_voxels_changes_no_figure(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    chunk = CHUNKS[0]
    truth, _, grey = case()
    given = np.where(unlabelled(truth), -1, truth.astype(np.int32))
    true = store("truth", given, chunk=chunk)
    figures = ("--ignore", "-1", "--figures", "isbi,seg,objects2d,classes", "--threshold", "0.5")
    noise = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    dark, other = (np.where(unlabelled(truth), v, grey).astype(np.uint8) for v in (0, noise))
    record = evaluate(capsys, store("dark", dark, chunk=chunk), true, *figures)
    assert (
        evaluate(capsys, store("other", other, chunk=chunk), true, *figures)["figures"]
        == (record["figures"])
    )
    known = isbi_figures(np.where(given < 0, 0, given), dark / np.float32(255))
    assert value(record, "rand_error") == known.rand
    assert value(record, "pixel_error") == known.pixel
    wrong = known.warping_curve.error * truth.size
    assert value(record, "warping_error") == pytest.approx(wrong / (given >= 0).sum())
    inside, above = given[given >= 0] > 0, (dark / np.float32(255))[given >= 0] > 0.5
    dice = 2 * (inside & above).sum() / (inside.sum() + above.sum())
    assert value(record, "dice_1") == dice


def test_a_border_is_left_out_by_the_centres_of_objects(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, found, _ = case()
    inside = np.s_[:, 3:, 4:50]
    part = ("--segmentation", "--border", "9", "--region", "z=0:3,y=3:,x=4:50")
    record = evaluate(capsys, store("found", found), store("truth", truth), *part)
    assert {"seg", "objects2d_f1"} <= set(record["figures"])
    a, b = truth[inside], found[inside]
    counts = np.sum(
        [oracle.objects(a[i : i + 1], b[i : i + 1], Fraction(1, 2), 9) for i in range(3)],
        axis=0,
    )
    whole = [oracle.objects(a[i : i + 1], b[i : i + 1], Fraction(1, 2)) for i in range(3)]
    assert counts[0] < np.sum(whole, axis=0)[0]
    said = record["instances"]["objects2d"]
    assert (said["matched"], said["wrong"], said["true"]) == (*counts[:2], counts[0] + counts[2])
    assert record["instances"]["seg"]["true"] == said["true"]
    assert record["left_out"] == {"border": 9}


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_class_of_the_highest_channel_is_compared(
    store: Store, capsys: pytest.CaptureFixture[str], chunk: ZYX
) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 256, (3, *SHAPE), np.uint8)
    truth = rng.integers(0, 4, SHAPE).astype(np.uint8)  # 3 is no class of the prediction's
    path = store("classes", values, chunk=chunk)
    channels = [{"name": n, "label": v} for n, v in (("cleft", 2), ("ground", 0), ("mito", 1))]
    said = {"kind": "volume", "output": {"activation": "softmax", "channels": channels}}
    replace_attributes(path, said)
    true = store("truth", truth)
    assert cli.run(["evaluate", path, true, "--figures", "classes"]) == 0
    out, err = capsys.readouterr()
    assert "Dice, class 2 (cleft)" in out
    assert "It holds 3, and no channel stands for that." in err
    record = evaluate(capsys, path, true, "--figures", "classes")
    proposed = np.array([2, 0, 1])[values.argmax(axis=0)]
    for label in range(4):
        a, b = truth == label, proposed == label
        assert value(record, f"dice_{label}") == 2 * (a & b).sum() / (a.sum() + b.sum())
        assert value(record, f"iou_{label}") == (a & b).sum() / (a | b).sum()
    # One channel against one class.
    record = evaluate(
        capsys, path, true, "--channel", "2", "--truth-class", "1", "--figures", "isbi,classes"
    )
    a, b = truth == 1, values[2] / np.float32(255) > 0.5
    assert value(record, "dice_1") == 2 * (a & b).sum() / (a.sum() + b.sum())
    assert value(record, "pixel_error") == isbi_figures(a, values[2] / np.float32(255)).pixel


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ignore", "-1"), "--ignore -1: cannot occur"),
        (("--ignore", "65536"), "holds uint16, 0 to 65535"),
        (("--truth-class", "70000"), "--truth-class 70000: cannot occur"),
        (("--truth-class", "999"), "has no voxel of class 999"),
        (("--segmentation", "--truth-class", "1"), "--truth-class: is for the probability"),
        (("--truth-class", "1", "--threshold", "0.5"), "--truth-class: makes a mask"),
        (("--border", "3"), "--border: is for whole objects, and isbi compare voxels"),
        (("--segmentation", "--figures", "volume", "--border", "3"), "and volume compare voxels"),
        (("--figures", "objects"), "--figures objects: compares instances in 3-D"),
        (("--figures", "objects2d"), "Give both --figures seg and --threshold"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    store: Store, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    truth, found, grey = case()
    prediction = store("p", found if "--segmentation" in options else grey)
    assert cli.run(["evaluate", prediction, store("truth", truth), *options]) == 1
    assert said in capsys.readouterr().err


def test_a_negative_value_that_no_sample_saw_is_refused_with_its_cure(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, found, _ = case()
    given = truth.astype(np.int32)
    given[2, -1, -1] = -1
    assert cli.run(["evaluate", store("f", found), store("t", given), "--segmentation"]) == 1
    assert "--ignore -1 leaves such voxels out" in capsys.readouterr().err


def test_doubts_of_a_truth_are_said(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    truth, found, grey = case()
    given = np.where(unlabelled(truth), 65535, truth)
    command = ["evaluate", store("f", found), store("t", given), "--segmentation"]
    assert cli.run(command) == 0
    assert "leave it out with --ignore 65535" in capsys.readouterr().err
    assert cli.run([*command, "--ignore", "65535"]) == 0
    assert "Warning" not in capsys.readouterr().err
    assert cli.run([*command, "--ignore", "4000"]) == 0
    assert "No voxel is 4000 (--ignore)" in capsys.readouterr().err
    guess = store("g", grey)
    replace_attributes(guess, {"kind": "prediction"})
    assert cli.run(["evaluate", store("p", grey), guess]) == 0
    assert "g.zarr: This truth is a prediction that tilenet made." in capsys.readouterr().err
    made = store("m", truth)
    replace_attributes(made, {"kind": "instances", "input": identify(open_volume(guess))})
    assert cli.run(["evaluate", guess, made]) == 0
    assert "m.zarr: This truth was made of the prediction itself." in capsys.readouterr().err
    labelled = f"{guess}.labelled.zarr"
    assert cli.run(["label", guess, labelled, "--per-section"]) == 0
    assert cli.run(["evaluate", store("q", grey.clip(9)), labelled]) == 0
    err = capsys.readouterr().err
    assert "This truth was made of a prediction that tilenet made." in err
    assert cli.run(["evaluate", guess, guess]) == 0
    assert "Prediction and truth are the same volume." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("region", "said"),
    [
        (None, "The model was trained on z=0:2,y=0:48,x=0:56 of this volume"),
        ("z=1:3", "The model was trained on z=1:2,y=0:48,x=0:56"),
        ("z=2:3", None),
    ],
)
def test_voxels_that_the_model_was_trained_on_are_said(
    store: Store, capsys: pytest.CaptureFixture[str], region: str | None, said: str | None
) -> None:
    truth, _, grey = case()
    path, true, raw = store("p", grey), store("t", truth), open_volume(store("raw", grey))
    found = f"{path}.labelled.zarr"
    trained = {"labels": "0", "region": "z=0:2,y=0:48,x=0:56"}
    for known in ({"raw": fingerprint(raw)}, {"labels": fingerprint(open_volume(true))}, {}):
        attributes = {"kind": "prediction", "input": identify(raw)}
        replace_attributes(path, {**attributes, "trained_on": [{"raw": "0"} | trained | known]})
        part = () if region is None else ("--region", region)
        assert cli.run(["evaluate", path, true, "--figures", "classes", *part]) == 0
        if "labels" in known:  # the box is of other raw data
            assert "was trained on this truth, beside other raw" in capsys.readouterr().err
            continue
        err = capsys.readouterr().err
        assert (said in err) if said and known else ("trained" not in err)
        # What was labelled from it flatters as much.
        assert cli.run(["label", path, found, "--per-section", "--overwrite"]) == 0
        capsys.readouterr()
        assert cli.run(["evaluate", found, true, "--segmentation", *part]) == 0
        err = capsys.readouterr().err
        assert (said in err) if said and known else ("trained" not in err)


FOUND = ("--figures", "seg,objects2d,classes")


@pytest.mark.parametrize("invert", [False, True])
def test_stored_values_are_cut_as_label_cuts_them(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path, invert: bool
) -> None:
    truth, _, grey = case()
    more = ("--invert",) * invert
    scores, true = 255 - grey if invert else grey, store("t", truth)
    for values, option, shown in (
        (scores, ("--threshold", "0.3"), "0.3"),
        (scores, ("--raw-threshold", "77"), "stored 77"),
        (scores.astype(np.float32) * 40 - 3000, ("--raw-threshold", "1.5"), "stored 1.5"),
    ):
        path = store(f"p{shown}", values)
        record = evaluate(capsys, path, true, *FOUND, *option, *more)
        name = "raw_threshold" if shown.startswith("stored") else "threshold"
        assert {f[name] for f in record["figures"].values()} == {float(option[1])}
        assert "class" in record["truth"]
        assert cli.run(["evaluate", path, true, *FOUND, *option, *more]) == 0
        out, err = capsys.readouterr()
        assert f"({option[0]} {option[1]})" in err
        assert all(line.endswith(shown) for line in out.splitlines()[1:])
        output = str(tmp_path / f"labelled{shown}.zarr")
        command = ["label", path, output, "--per-section", *option, *more]
        assert cli.run(command) == 0
        capsys.readouterr()
        same = evaluate(capsys, output, true, "--segmentation", "--figures", "seg,objects2d")
        for figure in ("seg", "objects2d_f1"):
            assert value(same, figure) == value(record, figure)


def test_json_keeps_what_it_had(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    truth, found, _ = case()
    record = evaluate(capsys, store("f", found), store("t", truth), "--segmentation")
    assert list(record["figures"]) == [
        "seg", "adapted_rand_error", "adapted_rand_precision", "adapted_rand_recall",
        "vi", "vi_split", "vi_merge", "seg_3d",
    ]  # fmt: skip
    assert json.dumps(record["left_out"]) == "{}"
