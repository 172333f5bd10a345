"""``--rotations`` and ``--flips``: commands, provenance, resume and refusal."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client

from pipelines import cli
from pipelines.cluster import ClusterOptions
from pipelines.predict import Choices, as_array, run_prediction
from tests.support.oracles import (
    ARCHITECTURES,
    SYMMETRIES,
    grey_values,
    integer_network,
    mean_pass,
    probabilities,
    random_network,
    save_linear,
    save_softmax,
)
from tests.support.runs import files_below, run_tilenet, store_volume
from tilenet.errors import InvalidData, OutputExists, ResumeRefused
from tilenet.geometry import Box
from tilenet.networks import UNetArchitecture
from tilenet.networks.orientations import ORIENTATIONS
from tilenet.volumes import Intensity, VolumeReference, open_volume, replace_attributes

pytestmark = pytest.mark.cluster

SHAPE = (3, 30, 45)
NETWORK = UNetArchitecture.planar(2, 3, dropout=0.0)
SEVEN = Choices(block=(1, 24, 32), rotations=7)
NAMES = [orientation.name for orientation in ORIENTATIONS]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, a model, and a prediction of seven orientations by the command line."""
    folder = tmp_path_factory.mktemp("rotations")
    store_volume(folder / "em.zarr", grey_values(SHAPE, top=256))
    save_softmax(folder / "model.safetensors", random_network(NETWORK), Intensity(127.0, 70.0))
    done = run_tilenet(
        "predict", "em.zarr", "out.zarr", "--model", "model.safetensors",
        "--rotations", "7", "--workers", "1", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "(x 7 orientations)" in done.stderr
    return folder


@pytest.fixture
def copy(case: Path, tmp_path: Path) -> Path:
    shutil.copytree(case, tmp_path / "case")
    return tmp_path / "case"


def predict(folder: Path, client: Client, choices: Choices | None, **more: Any) -> np.ndarray:
    output = more.pop("output", "out.zarr")
    run_prediction(
        VolumeReference(str(folder / "em.zarr")),
        str(folder / output),
        model=str(folder / "model.safetensors"),
        cluster=ClusterOptions(scheduler=client.scheduler.address),
        choices=choices,
        **more,
    ).finish()
    volume = open_volume(str(folder / output))
    return volume.read(Box.of_shape(volume.shape))


def expected(symmetries: list[tuple[bool, int]]) -> np.ndarray:
    grey = Intensity(127.0, 70.0).apply(grey_values(SHAPE, top=256), np.float64)
    mean: np.ndarray = mean_pass(random_network(NETWORK), grey, symmetries, probabilities)[1]
    return mean


def test_the_command_stores_the_mean_of_seven_and_says_so(case: Path) -> None:
    volume = open_volume(str(case / "out.zarr"))
    stored = volume.read(Box.of_shape(volume.shape))
    assert np.abs(stored - 255 * expected(SYMMETRIES[:7])).max() <= 0.5 + 1e-3
    assert volume.attributes["test_time_augmentation"] == {
        "orientations": NAMES[:7],
        "average": "softmax probabilities, summed in this order in float32, divided by 7",
    }


def test_flips_and_eight_differ_and_are_their_means(case: Path, client: Client) -> None:
    flips = [(False, 0), (False, 2), (True, 0), (True, 2)]
    for choices, symmetries in [
        (replace(SEVEN, rotations=None, flips=True), flips),
        (replace(SEVEN, rotations=8), SYMMETRIES),
        (replace(SEVEN, rotations=1), SYMMETRIES[:1]),
    ]:
        choices = replace(choices, dtype="float32")
        stored = predict(case, client, choices, output=f"{len(symmetries)}.zarr")
        np.testing.assert_allclose(stored, expected(symmetries), rtol=0, atol=1e-5)
    assert open_volume(str(case / "1.zarr")).attributes["test_time_augmentation"] == "none"


def test_linear_scores_are_averaged_bit_for_bit_and_lazily(tmp_path: Path, client: Client) -> None:
    network, values = integer_network(NETWORK), grey_values(SHAPE)
    store_volume(tmp_path / "em.zarr", values)
    save_linear(tmp_path / "model.safetensors", network)
    choices = replace(SEVEN, precision="float64")
    stored = predict(tmp_path, client, choices)
    wanted = mean_pass(network, values, SYMMETRIES[:7]).astype(np.float32)
    np.testing.assert_array_equal(stored, wanted)
    told = open_volume(str(tmp_path / "out.zarr")).attributes["test_time_augmentation"]
    assert told["average"] == "linear scores, summed in this order in float64, divided by 7"
    model, source = str(tmp_path / "model.safetensors"), str(tmp_path / "em.zarr")
    with dask.config.set(scheduler="synchronous"):
        lazy = as_array(source, model, choices=choices)
        np.testing.assert_array_equal(lazy[:, 1:, 20:].compute(), wanted[:, 1:, 20:])


# -- going on ----------------------------------------------------------------------------------


def test_a_resume_without_the_option_averages_as_it_was_begun(copy: Path, client: Client) -> None:
    before = files_below(copy / "out.zarr")
    shards = [p for p in (copy / "out.zarr" / "0" / "c").rglob("*") if p.is_file()]
    for shard in shards:
        shard.unlink()
    predict(copy, client, None)
    assert files_below(copy / "out.zarr") == before


@pytest.mark.parametrize(
    ("choices", "now"),
    [
        (Choices(rotations=8), ", ".join(NAMES)),
        (Choices(flips=True), "identity, turn 180, flip x, flip y"),
        (Choices(rotations=1), "none"),
    ],
)
def test_a_resume_with_other_orientations_is_refused(
    copy: Path, client: Client, choices: Choices, now: str
) -> None:
    before = files_below(copy / "out.zarr")
    with pytest.raises(ResumeRefused, match="test_time_augmentation: stored 'identity, ") as caught:
        predict(copy, client, choices)
    assert caught.value.differences["test_time_augmentation"] == (", ".join(NAMES[:7]), now)
    assert files_below(copy / "out.zarr") == before


def test_a_prediction_begun_without_is_not_continued_with(copy: Path, client: Client) -> None:
    plain = Choices(block=(1, 24, 32))
    predict(copy, client, plain, output="plain.zarr", region=((0, 1), (0, 30), (0, 45)))
    with pytest.raises(ResumeRefused, match="test_time_augmentation: stored 'none', now 'identity"):
        predict(copy, client, SEVEN, output="plain.zarr")
    predict(copy, client, plain, output="plain.zarr")
    predict(copy, client, Choices(rotations=1), output="plain.zarr")


def test_a_provenance_that_states_none_or_another_is_not_guessed(
    copy: Path, client: Client
) -> None:
    stated = dict(open_volume(str(copy / "out.zarr")).attributes)
    told = {**stated, "test_time_augmentation": {"orientations": ["turn 45"]}}
    replace_attributes(str(copy / "out.zarr"), told)
    with pytest.raises(InvalidData, match=r"turn 45.* not known to this version"):
        predict(copy, client, None)
    del told["test_time_augmentation"]
    replace_attributes(str(copy / "out.zarr"), told)
    with pytest.raises(OutputExists, match="incomplete"):
        predict(copy, client, None)


# -- the plan, and what is refused -------------------------------------------------------------


def plan(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> str:
    source, model = str(folder / "em.zarr"), str(folder / "model.safetensors")
    common = ["plan", source, "--model", model, "--workers", "1", "--no-calibration"]
    assert cli.run([*common, *options]) == 0
    return capsys.readouterr().out


def test_the_plan_counts_every_orientation(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans = {}
    for options in ([], ["--rotations", "7"], ["--rotations", "8"], ["--flips"]):
        told = json.loads(plan(capsys, case, "--json", *options))
        plans[len(told["orientations"])] = told
    assert sorted(plans) == [1, 4, 7, 8]
    assert plans[7]["orientations"] == NAMES[:7]
    assert plans[1]["orientations"] == ["identity"]
    assert plans[8]["operations"] * 7 == plans[7]["operations"] * 8
    assert plans[8]["overhead"] == pytest.approx(plans[7]["overhead"] * 8 / 7)
    assert plans[7]["tile"][1] == plans[7]["tile"][2]


def test_the_printed_plan_says_how_many(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "(x 8 orientations)" in plan(capsys, case, "--rotations", "8")
    assert "orientations" not in plan(capsys, case)


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> tuple[int, str]:
    source, model = str(folder / "em.zarr"), str(folder / "model.safetensors")
    output = str(folder / "bad.zarr")
    code = cli.run(["predict", source, output, "--model", model, "--workers", "1", *options])
    assert not (folder / "bad.zarr").exists()
    return code, capsys.readouterr().err


def test_rotations_of_another_number_are_wrong_usage(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = refused(capsys, case, "--rotations", "4")
    assert code == 2
    assert "'4' is not one of '1', '7', '8'" in err
    with pytest.raises(InvalidData, match="Rotations: 4"):
        Choices(rotations=4)


def test_flips_with_rotations_are_refused(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = refused(capsys, case, "--rotations", "7", "--flips")
    assert code == 1
    assert "Flips: asked for together with 7 rotations" in err


def test_a_network_that_is_not_square_is_refused_with_the_cure(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = random_network(ARCHITECTURES["pool of three"])
    save_softmax(copy / "model.safetensors", network)
    code, err = refused(capsys, copy, "--rotations", "7")
    assert code == 1
    assert "kernels are [3, 3, 3] along y and [3, 5, 3] along x" in err
    assert "--flips" in err


def test_voxels_that_are_not_square_are_not_turned_by_quarters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    em = store_volume(tmp_path / "em.zarr", grey_values(SHAPE), voxel_size=(50.0, 4.0, 8.0))
    model = save_softmax(tmp_path / "model.safetensors", random_network(NETWORK))
    plan = ["plan", em, "--model", model, "--no-calibration"]
    assert cli.run([*plan, "--rotations", "7"]) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert "voxels of 4 nm along y and 8 nm along x" in message
    assert "--flips" in message
    assert cli.run([*plan, "--flips"]) == 0
    assert cli.run([*plan, "--rotations", "7", "--ignore-voxel-size"]) == 0
