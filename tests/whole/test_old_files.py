"""What older versions wrote (tests/old) is loaded, continued and verified by today's code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from pipelines import cli
from tests.old.make import BLOCKS, LAYOUT, PREDICTIONS, TRAINING, predict
from tests.support.runs import files_below
from tilenet.geometry import Box
from tilenet.inference import RateCache, load_model, read_header
from tilenet.inference.predictor import numeric_facts
from tilenet.inference.recompute_task import difference
from tilenet.networks import ARITHMETIC
from tilenet.volumes import VolumeReference, open_volume, replace_attributes

pytestmark = pytest.mark.cluster

OLD = Path(__file__).parents[1] / "old" / "0.1.0"

#: What verify is told, of each output beside predictions.
SOURCES = {
    "volume.zarr": "em.npy", "instances.zarr": "cells.zarr", "weights.zarr": "instances.zarr",
}  # fmt: skip

BEGUN = [name for name, options in PREDICTIONS.items() if "--region" in options]


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, where commands run."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def run(client: Client, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command on the tests' own workers: exit code, stdout and stderr."""

    def called(*arguments: str) -> tuple[int, str, str]:
        there = () if arguments[0] == "train" else ("--scheduler", client.scheduler.address)
        code = cli.run([*arguments, *there])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return called


Run = Callable[..., tuple[int, str, str]]


def warnings(err: str) -> list[str]:
    return re.findall(".*by an older tilenet.*", err)


def made_here(output: str) -> None:
    """Let an output say that this device and these libraries made it, whichever they are."""
    said = json.loads(json.dumps(dict(open_volume(output).attributes)))
    here = numeric_facts("cpu")
    said["numeric_plan"] |= {"device": here["device"], "torch": here["torch"]}
    replace_attributes(output, said)


def going_on(output: str) -> list[str]:
    """The command that made a begun prediction, for the whole of it."""
    return [word for word in predict(output) if word not in ("--region", "z=0:2")]


def verify(run: Run, output: str, *more: str) -> dict[str, Any]:
    """Verify a prediction in all its blocks."""
    model, *options = PREDICTIONS[output]
    mask = ("--mask", "mask.zarr") if "--mask" in options else ()
    code, out, err = run(
        "verify", output, "--model", model, "--source", "volume.zarr", *mask, "--recompute", "1.0",
        "--json", *more,
    )  # fmt: skip
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_models_are_loaded() -> None:
    planar, sigmoid = (load_model(OLD / f"{name}.safetensors") for name in ("planar", "sigmoid"))
    assert (planar.header.activation, planar.architecture.is_planar) == ("softmax", True)
    assert planar.header.training["steps"] == 60
    assert (sigmoid.header.activation, sigmoid.architecture.is_planar) == ("sigmoid", False)
    assert sigmoid.header.stored_channels == ("z", "y", "x")


@pytest.mark.parametrize("output", SOURCES)
def test_outputs_of_other_commands_pass(old: Path, run: Run, output: str) -> None:
    code, out, err = run("verify", output, "--source", SOURCES[output], "--json")
    assert (code, json.loads(out)["flaws"]) == (0, []), err


def test_every_volume_is_described(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(old.glob("*.zarr")):
        assert cli.run(["info", str(path), "--json"]) == 0
        assert "shape (z, y, x)" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("output", PREDICTIONS)
def test_a_prediction_is_verified_within_the_tolerance_wherever_it_was_made(
    old: Path, run: Run, output: str
) -> None:
    before = files_below(old / output)
    region = ("--region", "z=0:2") if output in BEGUN else ()
    found = verify(run, output, *region, "--delete-bad", "--delete-different")
    assert (found["flaws"], found["deleted"]) == ([], [])
    assert found["recomputed"] == found["blocks"] > 1
    assert "it does not state arithmetic and digest, as older versions did not" in found["notes"][0]
    assert files_below(old / output) == before


@pytest.mark.parametrize("output", BEGUN)
def test_a_begun_prediction_goes_on_with_one_warning(old: Path, run: Run, output: str) -> None:
    made_here(output)
    before = files_below(old / output)
    code, _, err = run(*going_on(output))
    assert code == 0, err
    (warning,) = warnings(err)
    assert f"{output} was begun by an older tilenet" in warning
    assert "does not state arithmetic and digest" in warning
    after = files_below(old / output)
    assert before.items() <= after.items(), "nothing that was stored is written again"
    assert len(after) > len(before)
    found = verify(run, output)
    assert (found["flaws"], found["recomputed"]) == ([], 8)


def test_the_rest_equals_a_prediction_of_today(old: Path, run: Run) -> None:
    made_here("begun.zarr")
    whole = ("predict", "volume.zarr", "today.zarr", "--model", "planar.safetensors", *BLOCKS)
    assert run(*whole)[0] == 0
    assert run(*going_on("begun.zarr"))[0] == 0
    box = Box((2, 0, 0), (4, 40, 44))
    today, begun, old_whole = (
        open_volume(f"{name}.zarr").read(box) for name in ("today", "begun", "whole")
    )
    np.testing.assert_array_equal(begun, today)
    apart = difference(old_whole, today, 1e-5)
    assert apart is None or apart.tolerable


def test_on_another_device_a_begun_prediction_is_refused(old: Path, run: Run) -> None:
    said = json.loads(json.dumps(dict(open_volume("begun.zarr").attributes)))
    said["numeric_plan"] |= {"device": "cpu of another kind"}
    replace_attributes("begun.zarr", said)
    code, _, err = run(*going_on("begun.zarr"))
    assert code == 1
    assert "numeric_plan.device: stored 'cpu of another kind', now" in err
    assert "digest" not in err


@pytest.mark.parametrize(
    ("output", "command"),
    [
        ("instances.zarr", ("label", "cells.zarr", "instances.zarr", "--by-value", *LAYOUT)),
        ("weights.zarr", ("weights", "instances.zarr", "weights.zarr", *LAYOUT)),
        ("volume.zarr", ("ingest", "em.npy", "volume.zarr", "--voxel-size", "50,4,4", *LAYOUT)),
    ],
)
def test_what_other_outputs_lack_is_made_again(
    old: Path, run: Run, output: str, command: tuple[str, ...]
) -> None:
    values = open_volume(output).read(Box.of_shape((4, 40, 44)))
    (old / output / "0/c/1/0/1").unlink()
    code, _, err = run(*command)
    assert code == 0, err
    # What is ingested is copied: no arithmetic is done.
    assert len(warnings(err)) == (0 if output == "volume.zarr" else 1)
    again = open_volume(output).read(Box.of_shape((4, 40, 44)))
    np.testing.assert_allclose(again, values, rtol=1e-6)


def test_a_training_goes_on_from_its_checkpoint(old: Path, run: Run) -> None:
    code, _, err = run("train", *TRAINING, "--output", "stopped.safetensors")
    assert code == 0, err
    assert "Going on after step" in err
    (warning,) = warnings(err)
    assert "stopped.safetensors.checkpoint was begun by an older tilenet" in warning
    assert read_header("stopped.safetensors").training["steps"] == 400
    assert not (old / "stopped.safetensors.checkpoint").exists()
    load_model("stopped.safetensors")


def test_measured_rates_are_read(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILENET_CACHE", str(old))
    cache = RateCache.load()
    assert cache.problem is None
    (entry,) = cache.entries
    assert entry["rates"]["measured"].startswith("AMD EPYC, torch 2.13.0")
    assert cache.path == old / "calibration.json"


def test_what_is_made_today_states_what_older_versions_did_not(old: Path, run: Run) -> None:
    assert run("predict", "volume.zarr", "new.zarr", "--model", "planar.safetensors")[0] == 0
    plan = VolumeReference("new.zarr").open().attributes["numeric_plan"]
    assert plan["arithmetic"] == ARITHMETIC
    assert {name: plan[name] for name in numeric_facts("cpu")} == numeric_facts("cpu")
