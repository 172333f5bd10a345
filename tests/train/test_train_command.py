"""``tilenet train`` as people run it: interrupted, killed, spread over processes, diverging."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.support.runs import environment, run_tilenet, store_volume, tilenet_command
from tilenet.inference import load_model, read_header
from tilenet.synthetic import synthetic_em

pytestmark = pytest.mark.cluster

RECIPE = """
[network]
base_channels = 2
depth = 1
[optimization]
steps = 200
patch = [1, 20, 20]
checkpoint_every = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic EM, its cells, a recipe, and the model of an undisturbed training."""
    path = tmp_path_factory.mktemp("train")
    em = synthetic_em((6, 64, 72), seed=3)
    store_volume(path / "em.zarr", em.raw)
    store_volume(path / "cells.zarr", em.cells)
    (path / "recipe.toml").write_text(RECIPE)
    done = run_tilenet(*train("whole.safetensors"), cwd=path)
    assert done.returncode == 0, done.stderr
    assert "weights after 200 of 200 steps" in done.stdout
    assert not (path / "whole.safetensors.checkpoint").exists()
    return path


def train(output: str, *more: str) -> tuple[str, ...]:
    # One thread: two that wait for one another on a busy machine take many times as long.
    return (
        "train", "em.zarr", "cells.zarr", "--config", "recipe.toml", "--threads", "1",
        "--output", output, *more,
    )  # fmt: skip


def interrupt(folder: Path, output: str, number: signal.Signals) -> int:
    process = subprocess.Popen(
        tilenet_command(*train(output)),
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while not (folder / f"{output}.checkpoint").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert "Run the same command again to go on" in err
    return process.returncode


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_after_an_interruption_the_weights_are_the_same_bits(
    folder: Path, number: signal.Signals, code: int
) -> None:
    output = f"{number.name}.safetensors"
    assert interrupt(folder, output, number) == code
    assert not (folder / output).exists()
    again = run_tilenet(*train(output), cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "Going on after step" in again.stderr
    ours, theirs = load_file(folder / output), load_file(folder / "whole.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_another_recipe_does_not_go_on(folder: Path) -> None:
    assert interrupt(folder, "other.safetensors", signal.SIGTERM) == 143
    before = (folder / "other.safetensors.checkpoint").read_bytes()
    refused = run_tilenet(*train("other.safetensors", "--seed", "5"), cwd=folder)
    assert refused.returncode == 1
    assert "recipe.optimization.seed: stored 0, now 5" in refused.stderr
    assert (folder / "other.safetensors.checkpoint").read_bytes() == before
    (folder / "other.safetensors.checkpoint").write_bytes(before[:1000])
    refused = run_tilenet(*train("other.safetensors"), cwd=folder)
    assert refused.returncode == 1
    assert "is not a checkpoint of this tilenet, or is truncated" in refused.stderr
    anew = run_tilenet(
        *train("other.safetensors", "--overwrite", "--seed", "5", "--steps", "2"), cwd=folder
    )
    assert anew.returncode == 0, anew.stderr
    assert not (folder / "other.safetensors.checkpoint").exists()


def test_two_processes_are_one_with_twice_the_batch(folder: Path) -> None:
    options = ("--steps", "8", "--learning-rate", "0.001")
    single = run_tilenet(*train("single.safetensors", *options, "--batch", "2"), cwd=folder)
    assert single.returncode == 0, single.stderr
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", "29617", "--no-python",
        *tilenet_command(*train("pair.safetensors", *options)),
    ]  # fmt: skip
    # torchrun's own modules warn; ours are held to no warnings by the command line within.
    pair = subprocess.run(
        command,
        cwd=folder,
        env={**environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert pair.returncode == 0, pair.stderr
    ours, theirs = (load_file(folder / f"{name}.safetensors") for name in ("pair", "single"))
    for name, weights in theirs.items():
        assert torch.allclose(ours[name], weights, atol=1e-5), name
    losses = [read_header(folder / f"{n}.safetensors").training["loss"] for n in ("pair", "single")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_best_model_on_the_held_out_box_is_kept_and_logged(folder: Path) -> None:
    done = run_tilenet(
        *train("best.safetensors", "--steps", "9", "--validation", "4:6,0:64,0:72"),
        "--every", "3", "--log", "log", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    values = [line for line in done.stderr.splitlines() if line.startswith("Validation after")]
    assert [line.split()[2] for line in values] == ["3", "6", "9"]
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in values]
    best = 3 * (1 + int(np.argmin(losses)))
    header = read_header(folder / "best.safetensors")
    assert header.training["validation"]["step"] == header.training["steps"] == best
    assert f"best of 9 steps, after {best}" in done.stdout
    assert list((folder / "log").glob("events.out.tfevents.*"))


def test_a_training_that_diverges_says_so_and_keeps_the_last_good_model(folder: Path) -> None:
    done = run_tilenet(
        *train("wild.safetensors", "--learning-rate", "1e8", "--steps", "40"), cwd=folder
    )
    assert done.returncode == 1
    assert "Training diverged at step" in done.stderr
    assert "Lower --learning-rate" in done.stderr
    assert "Traceback" not in done.stderr
    kept = "holds the model after" in done.stderr
    assert kept == (folder / "wild.safetensors").exists()
    assert kept != ("no model is written" in done.stderr)
    if kept:
        network = load_model(str(folder / "wild.safetensors")).network
        assert torch.isfinite(network(torch.zeros(1, 1, 1, 60, 60))).all()


def test_the_preview_shows_patches_and_trains_nothing(folder: Path) -> None:
    done = run_tilenet(*train("none.safetensors", "--preview", "preview"), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not (folder / "none.safetensors").exists()
    with Image.open(folder / "preview" / "patches.png") as picture:
        values = np.asarray(picture)
    assert values.shape[1] > 3 * 20
    assert values.std() > 30


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("no recipe of ours", {"--config": "isbi"}),
        ("recipe.toml is a file, not a folder", {"--preview": "recipe.toml"}),
        ("recipe.toml is a file, not a folder", {"--log": "recipe.toml/within"}),
    ],
)
def test_bad_options(folder: Path, words: str, options: dict[str, Any]) -> None:
    flat = [text for pair in options.items() for text in pair]
    done = run_tilenet(*train("bad.safetensors"), *flat, cwd=folder)
    assert done.returncode == 1
    assert words in done.stderr
    assert not (folder / "bad.safetensors").exists()


def test_a_missing_key_is_found_before_any_work(folder: Path) -> None:
    (folder / "typo.toml").write_text(RECIPE.replace("depth", "dept"))
    done = run_tilenet(
        "train", "em.zarr", "cells.zarr", "--config", "typo.toml", "--output", "x.safetensors",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 1
    assert "network.dept: unknown key; did you mean depth" in done.stderr
    assert not (folder / "x.safetensors").exists()
