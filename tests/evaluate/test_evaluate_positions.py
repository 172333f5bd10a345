"""A prediction and a truth of different boxes are compared where both are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import cli
from tests.support.runs import store_volume
from tilenet.geometry import Box
from tilenet.metrics import segments
from tilenet.synthetic import synthetic_em

SHAPE = (5, 64, 72)

#: Where the truth lies in the prediction, which it leaves at the low end of z and the high of x.
THERE = Box((-2, 10, 20), (4, 50, 80))

OVERLAP = Box((0, 10, 20), (4, 50, 72))

#: Where the prediction lies, nanometres.
ORIGIN = (5000.0, 800.0, 400.0)

PLACED = (4900.0, 840.0, 480.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prediction and instances of it, a larger truth's crop, and both cut by hand."""
    path = tmp_path_factory.mktemp("positions")
    em = synthetic_em((7, 64, 80), seed=11)
    noise = np.random.default_rng(5).normal(0, 0.25, SHAPE)
    inside = em.cells[2:, :, :72] > 0
    grey = np.rint(255 * np.clip(0.1 + 0.8 * inside + noise, 0, 1)).astype(np.uint8)
    found = np.stack([segments(section > 140) for section in grey]).astype(np.uint16)
    true = em.instances[:6, 10:50, 20:80]
    cut = OVERLAP.slices
    for name, values, at in (
        ("grey", grey, ORIGIN),
        ("found", found, ORIGIN),
        ("true", true, PLACED),
        ("mute", true, None),
        ("elsewhere", true, (0.0, 0.0, 0.0)),
        ("between", true, (4900.0, 842.0, 480.0)),
        ("cut_grey", grey[cut], None),
        ("cut_found", found[cut], None),
        ("cut_true", em.instances[2:, :, :72][cut], None),
    ):
        store_volume(path / f"{name}.zarr", values, chunk=(2, 32, 32), translation=at)
    store_volume(path / "unsized.zarr", em.instances[2:, :, :72], voxel_size=None)
    return path


def evaluate(
    capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str
) -> tuple[dict[str, Any], str]:
    names = (str(folder / f"{name}.zarr") for name in arguments[:2])
    code = cli.run(["evaluate", *names, *arguments[2:], "--json", "-"])
    out, err = capsys.readouterr()
    return (json.loads(out) if code == 0 else {}), err


@pytest.mark.parametrize(("prediction", "options"), [("grey", ()), ("found", ("--segmentation",))])
@pytest.mark.parametrize(
    ("truth", "offset"), [("true", ()), ("mute", ("--label-offset", "-2,10,20"))]
)
def test_figures_are_those_of_volumes_that_were_cut_by_hand(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    prediction: str,
    options: tuple[str, ...],
    truth: str,
    offset: tuple[str, ...],
) -> None:
    by_hand, _ = evaluate(capsys, folder, f"cut_{prediction}", "cut_true", *options)
    placed, said = evaluate(capsys, folder, prediction, truth, *options, *offset)
    assert placed["figures"] == by_hand["figures"]
    assert placed["instances"] == by_hand["instances"]
    assert placed["region"] == str(OVERLAP)
    assert placed["truth"]["offset"] == list(THERE.start)
    assert f"lies at {THERE} of {folder / prediction}.zarr: judged is {OVERLAP}." in said


def test_a_region_is_in_voxels_of_the_prediction(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = Box((1, 12, 30), (3, 50, 70))
    inside = part.relative_to(OVERLAP.start)
    by_hand, _ = evaluate(capsys, folder, "cut_grey", "cut_true", "--region", str(inside))
    placed, said = evaluate(capsys, folder, "grey", "true", "--region", str(part))
    assert placed["figures"] == by_hand["figures"]
    assert "judged is" not in said


@pytest.mark.parametrize(
    ("truth", "options", "words"),
    [
        ("elsewhere", (), "do not overlap"),
        ("between", (), "are not whole voxels of (50.0, 4.0, 4.0) nm apart"),
        ("mute", (), "--label-offset Z,Y,X"),
        ("true", ("--region", "z=4:5"), "lies outside of the truth"),
    ],
)
def test_volumes_that_do_not_meet_are_refused(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    truth: str,
    options: tuple[str, ...],
    words: str,
) -> None:
    record, said = evaluate(capsys, folder, "grey", truth, *options)
    assert not record
    assert words in said


def test_a_voxel_size_that_one_states_and_the_other_does_not_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "unsized.zarr: No voxel size is stated, and"
    assert text in evaluate(capsys, folder, "grey", "unsized")[1]
    assert text not in evaluate(capsys, folder, "grey", "unsized", "--ignore-voxel-size")[1]
