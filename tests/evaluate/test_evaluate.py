"""``tilenet evaluate``, end to end: its figures are those of the arrays."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from distributed import Client

from pipelines import cli
from pipelines.cluster import ClusterOptions
from pipelines.evaluate import Judgement, check_comparison
from pipelines.evaluate import command as module
from tests.support.runs import store_volume
from tests.whole.test_imports import modules_after
from tilenet.errors import NotEnoughMemory
from tilenet.geometry import Box
from tilenet.metrics import (
    adapted_rand_error,
    isbi_figures,
    seg_score,
    segments,
    variation_of_information,
)
from tilenet.synthetic import synthetic_em
from tilenet.volumes import VolumeReference, probabilities

Array = npt.NDArray[Any]
SHAPE = (5, 64, 72)


@dataclasses.dataclass(frozen=True)
class Case:
    folder: Path
    labels: Array  # instances, by section numbered through
    grey: Array  # 255 p
    found: Array  # instances

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.zarr")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Synthetic cells, a noisy prediction of them, and instances made of that."""
    folder = tmp_path_factory.mktemp("evaluate")
    em = synthetic_em(SHAPE, seed=11)
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.25, SHAPE)
    grey = np.rint(255 * np.clip(0.1 + 0.8 * (em.cells > 0) + noise, 0, 1)).astype(np.uint8)
    found = np.stack([segments(section > 140) for section in grey]).astype(np.uint16)
    volumes: dict[str, Array] = {
        "instances": em.instances,
        "cells": em.cells,
        "grey": grey,
        "found": found,
        "inverse": 255 - grey,
        "floats": (grey / np.float32(255)).astype(np.float32),
    }
    for name, values in volumes.items():
        store_volume(folder / f"{name}.zarr", values, chunk=(2, 32, 32))
    return Case(folder, em.instances, grey, found)


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """Run the command, and read its JSON."""
    code = cli.run(["evaluate", *map(str, arguments), "--json", "-"])
    out, err = capsys.readouterr()
    assert code == 0, err
    values: dict[str, Any] = json.loads(out)
    return values


def value(record: dict[str, Any], name: str) -> float:
    return float(record["figures"][name]["value"])


def test_probabilities_give_the_five_figures(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    record = evaluate(capsys, case.path("grey"), case.path("cells"))
    expected = isbi_figures(case.labels, case.grey / np.float32(255))
    assert value(record, "warping_error") == expected.warping
    assert value(record, "rand_error") == expected.rand
    assert value(record, "pixel_error") == expected.pixel
    assert value(record, "v_rand_thinned") == pytest.approx(expected.v_rand_thinned, abs=1e-15)
    assert value(record, "v_info_thinned") == pytest.approx(expected.v_info_thinned, abs=1e-15)
    assert record["figures"]["warping_error"]["better"] == "lower"
    assert record["figures"]["v_rand_thinned"]["better"] == "higher"
    assert record["figures"]["rand_error"]["threshold"] == expected.rand_curve.best_threshold
    assert record["curves"]["pixel_error"]["f_score"] == list(expected.pixel_curve.f_score)
    assert record["region"] == "z=0:5,y=0:64,x=0:72"


def test_floats_and_an_inverted_prediction_give_the_same(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = evaluate(capsys, case.path("grey"), case.path("cells"))
    floats = evaluate(capsys, case.path("floats"), case.path("cells"))
    inverse = evaluate(capsys, case.path("inverse"), case.path("cells"), "--invert")
    assert floats["figures"] == inverse["figures"] == plain["figures"]
    assert inverse["prediction"]["inverted"]


def test_a_region_is_judged_alone(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    part = ("--region", "z=1:4,y=3:60,x=10:72")
    record = evaluate(capsys, case.path("grey"), case.path("cells"), *part)
    inside = np.s_[1:4, 3:60, 10:72]
    expected = isbi_figures(case.labels[inside], case.grey[inside] / np.float32(255))
    assert value(record, "warping_error") == expected.warping
    assert value(record, "rand_error") == expected.rand


def test_a_channel_is_judged(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = store_volume(tmp_path / "both.zarr", np.stack([255 - case.grey, case.grey]))
    record = evaluate(capsys, both, case.path("cells"), "--channel", "1")
    plain = evaluate(capsys, case.path("grey"), case.path("cells"))
    assert record["figures"] == plain["figures"]


def test_a_threshold_makes_instances_for_seg(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    record = evaluate(
        capsys, case.path("grey"), case.path("instances"), "--threshold", str(140 / 255)
    )
    scores = probabilities(case.grey).astype(np.float64)
    found = np.stack([segments(section > 140 / 255) for section in scores])
    assert value(record, "seg") == pytest.approx(seg_score(case.labels, found))
    assert record["figures"]["seg"]["threshold"] == 140 / 255
    assert "pixel_error" in record["figures"]


@pytest.mark.parametrize("region", [None, "z=1:5,y=5:64,x=0:50"])
def test_instances_are_judged_by_section_and_in_3d(
    case: Case, capsys: pytest.CaptureFixture[str], region: str | None
) -> None:
    part = () if region is None else ("--region", region)
    record = evaluate(capsys, case.path("found"), case.path("instances"), "--segmentation", *part)
    inside = np.s_[:] if region is None else np.s_[1:5, 5:64, 0:50]
    labels, found = case.labels[inside], case.found[inside]
    rand, vi = adapted_rand_error(labels, found), variation_of_information(labels, found)
    assert value(record, "seg") == pytest.approx(seg_score(labels, found))
    assert value(record, "adapted_rand_error") == pytest.approx(rand.error)
    assert value(record, "vi_split") == pytest.approx(vi.split)
    assert value(record, "vi_merge") == pytest.approx(vi.merge)
    assert record["figures"]["vi"]["unit"] == "bits"
    assert record["instances"]["seg"]["true"] == sum(
        len(np.unique(section[section > 0])) for section in labels
    )


def test_only_what_is_asked_for_is_computed(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    record = evaluate(
        capsys, case.path("found"), case.path("instances"), "--segmentation", "--figures", "seg"
    )
    assert list(record["figures"]) == ["seg"]


def test_the_table_says_what_is_error_and_what_is_score(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_path, plot = tmp_path / "figures.json", tmp_path / "figures.png"
    outputs = ("--json", str(json_path), "--plot", str(plot))
    code = cli.run(["evaluate", case.path("grey"), case.path("cells"), *outputs])
    out, err = capsys.readouterr()
    assert code == 0, err
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert "error, lower is better" in lines["warping error"]
    assert "score, higher is better" in lines["V_Rand, thinned"]
    assert "uint8, p = value / 255" in err
    assert json.loads(json_path.read_text())["command"] == "evaluate"
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_touching_instances_are_noted(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, :4], labels[0, 4:] = 1, 2
    truth = store_volume(tmp_path / "touching.zarr", labels)
    guess = store_volume(tmp_path / "guess.zarr", np.full((1, 8, 8), 255, np.uint8))
    assert cli.run(["evaluate", guess, truth]) == 0
    assert "8 pairs of neighbouring pixels have different labels" in capsys.readouterr().err


@pytest.mark.cluster
@pytest.mark.parametrize("segmentation", [False, True])
def test_a_cluster_gives_the_figures_of_the_loop(
    case: Case, client: Client, monkeypatch: pytest.MonkeyPatch, segmentation: bool
) -> None:
    wanted = Judgement(segmentation=segmentation)
    comparison = check_comparison(
        VolumeReference(case.path("found" if segmentation else "grey")),
        VolumeReference(case.path("instances")),
        wanted,
    )
    alone = module.run_evaluation(comparison, ClusterOptions())
    monkeypatch.setattr(module, "FOLD", 2)  # several rounds
    joined = ClusterOptions(scheduler=client.scheduler.address)
    assert module.run_evaluation(comparison, joined) == alone


def test_a_section_that_does_not_fit_into_memory_is_refused(case: Case) -> None:
    comparison = check_comparison(
        VolumeReference(case.path("grey")), VolumeReference(case.path("cells")), Judgement()
    )
    with pytest.raises(NotEnoughMemory, match="whole sections of 64 x 72"):
        module.run_evaluation(comparison, ClusterOptions(memory=2**20))


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
def test_sections_cover_the_region_once_and_end_at_chunks(depth: int) -> None:
    region = Box((3, 1, 2), (11, 5, 6))
    boxes = list(region.cut(0, depth))
    assert [z for box in boxes for z in range(box.start[0], box.stop[0])] == list(range(3, 11))
    assert all(box.stop[0] % depth == 0 or box.stop[0] == 11 for box in boxes)
    assert {(box.start[1:], box.stop[1:]) for box in boxes} == {((1, 2), (5, 6))}


@pytest.mark.data
@pytest.mark.parametrize("name", ["noisy_blur", "shifted_binary"])
def test_the_command_gives_the_official_values(
    tilenet_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tilenet_data / "isbi-metrics" / name
    golden = json.loads((folder / "values.json").read_text())["summary"]
    for part in ("labels", "proposal"):
        store_volume(tmp_path / f"{part}.zarr", tifffile.imread(folder / f"{part}.tif"))
    record = evaluate(capsys, tmp_path / "proposal.zarr", tmp_path / "labels.zarr")
    for ours, theirs in {
        "warping_error": "warping_error",
        "rand_error": "rand_error_fgr",
        "pixel_error": "pixel_error",
        "v_rand_thinned": "vrand_thin",
        "v_info_thinned": "vinfo_thin",
    }.items():
        assert value(record, ours) == pytest.approx(golden[theirs], rel=0, abs=1e-12)


def test_the_command_loads_neither_torch_nor_matplotlib() -> None:
    assert not modules_after("import pipelines.evaluate.command") & {"torch", "matplotlib", "numba"}
