"""The commands, end to end and on bad input, by the words of their messages."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr
from PIL import Image

from pipelines import cli
from tests.support.runs import files_below, run_tilenet, store_volume
from tilenet.geometry import Box
from tilenet.inference import read_header
from tilenet.metrics import isbi_figures
from tilenet.synthetic import synthetic_em
from tilenet.volumes import open_volume


def pixel_error(truth: npt.NDArray[Any], proposal: npt.NDArray[Any]) -> float:
    return isbi_figures(truth, proposal, figures=["pixel"]).pixel


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run a command in this process: exit code, stdout and stderr."""
    code = cli.run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TIFFs of synthetic EM and its cells, ingested, and a model trained for a few steps."""
    folder = tmp_path_factory.mktemp("commands")
    em = synthetic_em((4, 160, 160), seed=4)
    tifffile.imwrite(folder / "em.tif", em.raw, photometric="minisblack")
    tifffile.imwrite(folder / "cells.tif", em.cells, photometric="minisblack")
    tifffile.imwrite(folder / "bodies.tif", em.instances, photometric="minisblack")
    for name in ("em", "cells", "bodies"):
        done = run_tilenet(
            "ingest", f"{name}.tif", f"{name}.zarr", "--voxel-size", "50,4,4", cwd=folder
        )
        assert done.returncode == 0, done.stderr
    done = run_tilenet(
        "train", "em.zarr", "cells.zarr", "--output", "model.safetensors", "--steps", "40",
        "--threads", "1", "--base-channels", "8", "--depth", "2", "--patch", "1,100,100",
        "--names", "membrane,interior", "--learning-rate", "0.03", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "weights after 40 of 40 steps" in done.stdout
    return folder


@pytest.mark.cluster
def test_ingest_stores_what_the_tiff_holds(case: Path) -> None:
    volume = open_volume(str(case / "em.zarr"))
    stored = volume.read(Box.of_shape(volume.shape))
    np.testing.assert_array_equal(stored, tifffile.imread(case / "em.tif"))
    assert volume.voxel_size == (50.0, 4.0, 4.0)
    assert volume.array.shards is not None


@pytest.mark.cluster
def test_ingest_echoes_the_voxel_size_and_goes_on_where_it_stopped(case: Path) -> None:
    arguments = ("ingest", case / "em.tif", case / "again.zarr", "--shard", "2,64,64")
    chunk = ("--chunk", "1,32,32")
    first = run_tilenet(*arguments, *chunk, "--voxel-size", "z=50,x=4,y=8")
    assert first.returncode == 0, first.stderr
    assert "voxels of z 50, y 8, x 4 nm" in first.stderr
    lost = case / "again.zarr" / "0" / "c" / "1" / "1" / "1"
    before = lost.read_bytes()
    lost.unlink()
    second = run_tilenet(*arguments, *chunk, "--voxel-size", "50,8,4")
    assert second.returncode == 0, second.stderr
    assert "1 of them now" in second.stdout
    assert lost.read_bytes() == before
    other = run_tilenet(*arguments, *chunk, "--voxel-size", "40,8,4")
    assert other.returncode == 1
    assert "voxel_size" in other.stderr


@pytest.mark.cluster
def test_train_predict_and_the_model_beat_a_guess(case: Path) -> None:
    done = run_tilenet(
        "predict", "em.zarr", "prediction.zarr", "--model", "model.safetensors", cwd=case
    )
    assert done.returncode == 0, done.stderr
    assert "Dashboard: http://127.0.0.1" in done.stderr
    assert "blocks stored" in done.stdout
    prediction = open_volume(str(case / "prediction.zarr"))
    proposal = prediction.read(Box.of_shape(prediction.shape)) / 255.0
    truth = tifffile.imread(case / "cells.tif")
    assert pixel_error(truth, proposal) < 0.9 * pixel_error(truth, np.ones(truth.shape))


@pytest.mark.cluster
def test_training_is_repeatable_and_its_record_is_in_the_file(case: Path, tmp_path: Path) -> None:
    arguments = (
        "train", case / "em.zarr", case / "bodies.zarr", "--binary", "--steps", "3",
        "--threads", "1", "--base-channels", "4", "--depth", "2", "--patch", "1,52,52",
        "--seed", "7",
    )  # fmt: skip
    for name in ("a", "b"):
        done = run_tilenet(*arguments, "--output", tmp_path / f"{name}.safetensors")
        assert done.returncode == 0, done.stderr
    first = (tmp_path / "a.safetensors").read_bytes()
    assert first == (tmp_path / "b.safetensors").read_bytes()
    header = read_header(tmp_path / "a.safetensors")
    assert header.training["steps"] == 3
    assert header.training["seed"] == 7
    assert header.voxel_size == (50.0, 4.0, 4.0)
    raw = tifffile.imread(case / "em.tif")
    assert header.intensity.mean == pytest.approx(raw.mean())
    assert header.intensity.std == pytest.approx(raw.std())


@pytest.mark.cluster
def test_a_volumetric_network_trains_and_predicts(case: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    done = run_tilenet(
        "train", case / "em.zarr", case / "cells.zarr", "--network", "volumetric", "--depth", "1",
        "--base-channels", "2", "--patch", "4,24,24", "--steps", "2", "--output", model,
        "--threads", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run_tilenet("predict", case / "em.zarr", tmp_path / "out.zarr", "--model", model)
    assert done.returncode == 0, done.stderr


@pytest.mark.cluster
@pytest.mark.data
def test_the_tour_on_isbi_2012(tilenet_data: Path, tmp_path: Path) -> None:
    for name, source in (("em", "train-volume"), ("cells", "train-labels")):
        tiff = tilenet_data / "isbi2012" / f"{source}.tif"
        done = run_tilenet("ingest", tiff, f"{name}.zarr", "--voxel-size", "50,4,4", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    steps = (
        (
            "train", "em.zarr", "cells.zarr", "--output", "membrane.safetensors",
            "--steps", "40", "--threads", "1",
        ),
        ("info", "membrane.safetensors"),
        ("info", "em.zarr"),
        ("plan", "em.zarr", "--model", "membrane.safetensors", "--no-calibration"),
        (
            "predict", "em.zarr", "prediction.zarr", "--model", "membrane.safetensors",
            "--region", "z=0:2,y=0:512,x=0:512",
        ),
    )  # fmt: skip
    for step in steps:
        done = run_tilenet(*step, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    truth = tifffile.imread(tilenet_data / "isbi2012" / "train-labels.tif")[:2]
    volume = open_volume(str(tmp_path / "prediction.zarr"))
    proposal = volume.read(Box((0, 0, 0), (2, 512, 512))) / 255.0
    assert pixel_error(truth, proposal) < pixel_error(truth, np.ones(truth.shape))


@pytest.mark.cluster
def test_the_demonstration_ends_with_a_picture_and_figures(tmp_path: Path) -> None:
    done = run_tilenet(
        "demo",
        "demo",
        "--steps",
        "2",
        "--sections",
        "2",
        "--side",
        "96",
        "--threads",
        "1",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for words in ("pixel error", "Rand error", "voxel/s", "demo/prediction.zarr"):
        assert words in done.stdout
    with Image.open(tmp_path / "demo" / "sections.png") as picture:
        assert picture.size == (3 * 96 + 8, 96 + 16)


def test_plan_says_what_it_costs_and_needs_no_worker(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "plan", case / "em.zarr", "--model", case / "model.safetensors", "--no-calibration"
    )  # fmt: skip
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    for words in ("blocks", "tiles", "operations", "memory", "workers"):
        assert words in out
    code, out, _ = run(capsys, *arguments, "--json", "--block", "2,64,64")
    plan = json.loads(out)
    assert (plan["block"], plan["blocks"]) == ([2, 64, 64], 2 * 3 * 3)


def test_info_describes_volumes_and_models(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "info", case / "em.zarr")
    assert code == 0
    assert "50.0, 4.0, 4.0" in out
    code, out, _ = run(capsys, "info", case / "model.safetensors")
    assert code == 0
    for words in ("2-D U-Net", "interior (label 255)", "halo", "steps: 40"):
        assert words in out
    code, out, _ = run(capsys, "info", case / "model.safetensors", "--json")
    assert json.loads(out)["alignment (z, y, x)"] == [1, 4, 4]


def bad_inputs(folder: Path) -> list[tuple[str, tuple[str | Path, ...]]]:
    """Words of the message, and the command that brings it up."""
    em, cells, model = folder / "em.zarr", folder / "cells.zarr", folder / "model.safetensors"
    new = folder / "new.zarr"
    predict = ("predict", em, new, "--model", model)
    ingest = ("ingest", folder / "em.tif", new)
    applied, ignored = (new, "--model", model), "--ignore-voxel-size"
    train = ("train", em, cells, "--output", folder / "new.safetensors")
    store_volume(folder / "small.zarr", np.zeros((4, 80, 80), np.uint8))
    store_volume(folder / "flat.zarr", np.zeros((4, 160, 160), np.uint8))
    store_volume(folder / "real.zarr", np.full((4, 160, 160), 0.5, np.float32))
    store_volume(folder / "coarse.zarr", np.zeros((4, 80, 80), np.uint8), voxel_size=(50, 8, 8))
    store_volume(folder / "two.zarr", np.zeros((2, 4, 80, 80), np.uint8))
    line = folder / "line.zarr"
    zarr.create_array(line, data=np.zeros(80, np.uint8))
    shutil.copytree(em, folder / "half.zarr")
    (folder / "half.zarr" / "0" / "c" / "0" / "0" / "0").unlink()
    (folder / "text.tif").write_text("not an image")
    (folder / "text.safetensors").write_text("not a model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    closed = folder / "closed"  # must not be entered: see close()
    return [
        ("em.zarr: cannot be accessed: Permission", ("predict", closed / "em.zarr", *applied)),
        ("em.zarr: cannot be accessed: Permission", ("ingest", closed / "em.zarr", new)),
        ("em: cannot be accessed: Permission", ("ingest", closed / "em", new)),
        ("cannot be accessed: Permission", (*predict[:2], closed / "o.zarr", *predict[3:])),
        ("cannot be read: Permission", (*predict[:3], "--model", closed / "m.safetensors")),
        ("cannot be accessed: Permission", ("info", closed / "em.zarr")),
        ("1 axes (shape (80,)), but a volume has 2 to 5", ("predict", line, *applied)),
        ("1 axes (shape (80,)), but a volume has 2 to 5", ("ingest", line, new)),
        ("does not exist", ("predict", folder / "none.zarr", *applied)),
        ("is not a Zarr", ("predict", folder / "em.tif", *applied)),
        ("does not exist", ("ingest", folder / "none.tif", new)),
        ("text.tif", ("ingest", folder / "text.tif", new)),
        ("whose provenance is incomplete", ("ingest", folder / "cells.tif", folder / "small.zarr")),
        ("inside one another", ("ingest", em, em / "copy.zarr")),
        ("are not stored yet", ("ingest", folder / "half.zarr", new)),
        ("are not stored yet", ("ingest", folder / "half.zarr" / "0", new)),
        ("Codec 'nothing'", (*ingest, "--codec", "nothing")),
        ("whole chunks", (*ingest, "--shard", "4,50,64", "--chunk", "4,32,32")),
        ("not a file", ("predict", em, new, "--model", folder / "no.safetensors")),
        ("not a safetensors", ("predict", em, new, "--model", folder / "text.safetensors")),
        ("not a safetensors file", ("info", folder / "text.safetensors")),
        ("has no level '7'", (*predict, "--level", "7")),
        ("axes are named", (*predict, "--axes", "yx")),
        ("leaves the volume", (*predict, "--region", "z=0:2,y=0:512,x=0:160")),
        ("empty", (*predict, "--region", "0:0,0:10,0:10")),
        ("alignment", (*predict, "--block", "1,30,32")),
        ("whole shards", (*predict, "--block", "2,64,64", "--shard", "2,48,64")),
        ("takes 1 channels, but", ("predict", folder / "two.zarr", *applied, ignored)),
        ("has no channel 5", ("predict", folder / "two.zarr", *applied, "--channel", "5")),
        ("50 x 8 x 8 nm", ("predict", folder / "coarse.zarr", *applied)),
        ("MiB are allowed", (*predict, "--memory", "64MB")),
        ("--slots, or take a smaller --shard.", (*ingest, "--memory", "64MB")),
        ("is not a rule", (*predict, "--intensity", "bright")),
        ("inside one another", ("predict", em, em / "p.zarr", "--model", model)),
        ("is not a prediction", ("predict", em, cells, "--model", model)),
        ("Mask", (*predict, "--mask", folder / "two.zarr", "--ignore-voxel-size")),
        ("no CUDA device", (*predict, "--device", "cuda")),
        ("does not answer", (*predict, "--scheduler", nobody)),
        ("have the shape (4, 80, 80)", ("train", em, folder / "small.zarr", *train[3:])),
        ("hold the value 0 only", ("train", em, folder / "flat.zarr", *train[3:])),
        ("hold the value 0.5, and a class", ("train", em, folder / "real.zarr", *train[3:])),
        ("instances, not classes", ("train", em, folder / "bodies.zarr", *train[3:])),
        ("not legal for this network", (*train, "--patch", "1,100,101")),
        ("1 names, but the labels have 2", (*train, "--names", "membrane")),
        ("does not exist", ("train", em, cells, "--output", folder / "no" / "m.safetensors")),
        ("exists and is a file", ("train", em, cells, "--output", model)),
    ]  # fmt: skip


def close(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody enter a folder; permission bits would not stop root."""
    real = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if not isinstance(path, int) and str(folder) in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)


@pytest.mark.cluster
def test_every_bad_input_gets_its_message_and_changes_nothing(
    case: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cluster.joined.CONNECT_SECONDS", 2)
    rows = bad_inputs(case)
    close(case / "closed", monkeypatch)
    before = files_below(case)
    wrong = []
    for words, arguments in rows:
        code, out, err = run(capsys, *arguments)
        if code != 1 or words not in err or out or files_below(case) != before:
            wrong.append((arguments, words, code, out, err))
    assert not wrong


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("Missing argument", ("predict",)),
        ("No such option", ("predict", "a", "b", "--model", "m", "--colour")),
        ("No such command", ("segment",)),
        ("not three values", ("ingest", "a", "b", "--voxel-size", "4,4")),
        ("not a positive size", ("ingest", "a", "b", "--voxel-size", "50,0,4")),
        ("not three values", ("ingest", "a", "b", "--voxel-size", "z=50,y=4,y=4")),
        ("not a range", ("predict", "a", "b", "--model", "m", "--region", "0:1,0:2,3")),
        ("not three values", ("predict", "a", "b", "--model", "m", "--region", "z=0:1,z=0:2")),
        ("not three values", ("predict", "a", "b", "--model", "m", "--region", "c=0:1")),
        ("some of z", ("predict", "a", "b", "--model", "m", "--region", "0:1")),
        ("not three values", ("train", "a", "b", "--validation", "z=0:1")),
        ("not a size", ("predict", "a", "b", "--model", "m", "--memory", "lots")),
    ],
)
def test_wrong_usage_exits_with_2(
    capsys: pytest.CaptureFixture[str], words: str, arguments: tuple[str, ...]
) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert words in err


def test_a_traceback_is_shown_only_with_debug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "info", tmp_path / "none.zarr")
    assert code == 1
    assert cli.run(["--debug", "info", str(tmp_path / "none.zarr")]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = click.testing.CliRunner().invoke(cli.tilenet, [command, "--help"])
    assert result.exit_code == 0
    assert command in result.output
