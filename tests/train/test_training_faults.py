"""Trainings that diverge, are killed at a bad moment, or cannot write: what is left of them."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tilenet.training.loop
from pipelines.stopping import Stop
from pipelines.train import TrainingOptions, run_training
from tests.support.runs import store_volume
from tilenet.errors import InvalidData, NonFiniteValues, TrainingDiverged
from tilenet.geometry import Box
from tilenet.inference import ModelHeader, read_header, save_model
from tilenet.synthetic import synthetic_em
from tilenet.training import (
    CheckpointRecord,
    State,
    Step,
    ValidationResult,
    checkpoint_path,
    read_record,
    save_checkpoint,
)
from tilenet.volumes import VolumeReference, open_volume

TINY = {
    "network.base_channels": 2,
    "network.depth": 1,
    "optimization.patch": (1, 20, 20),
    "optimization.steps": 9,
    "optimization.checkpoint_every": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic EM and its cells."""
    path = tmp_path_factory.mktemp("training")
    em = synthetic_em((6, 64, 72), seed=3)
    store_volume(path / "em.zarr", em.raw)
    store_volume(path / "cells.zarr", em.cells)
    return path


def run(folder: Path, output: Path, changes: dict[str, Any] | None = None, **more: Any) -> int:
    options = TrainingOptions(
        output=str(output), changes={**TINY, **(changes or {})}, threads=1, **more
    )
    em, cells = (VolumeReference(str(folder / f"{name}.zarr")) for name in ("em", "cells"))
    return run_training(em, cells, options, Stop())


def spoil(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Make the weights finite and useless with one update, as a learning rate of 1e30 would."""
    real = tilenet.training.loop.train

    def train(state: Any, *args: Any, **named: Any) -> Generator[Step, None, None]:
        for step in real(state, *args, **named):
            if step.done == at:
                with torch.no_grad():
                    for weights in state.network.parameters():
                        weights.fill_(1e30)
            yield step

    monkeypatch.setattr("tilenet.training.train", train)


# --- folders that cannot be written ----------------------------------------------------------


@pytest.mark.parametrize("name", ["file", "file/within/it"])
def test_a_log_that_cannot_be_a_folder_costs_no_checkpoint(
    folder: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    output = tmp_path / "m.safetensors"
    checkpoint_path(str(output)).write_text("what was reached")
    with pytest.raises(InvalidData, match="file is a file, not a folder"):
        run(folder, output, log=str(tmp_path / name), overwrite=True)
    assert checkpoint_path(str(output)).exists()


def test_a_folder_that_must_not_be_written_is_refused_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not even root can write there, though its permissions say so.
    monkeypatch.setattr("pipelines.train.command.prepare", None)
    with pytest.raises(InvalidData, match="nothing can be written in /proc: "):
        run(folder, Path("/proc/m.safetensors"))


def test_grey_values_that_are_not_finite_are_refused_with_their_place(
    folder: Path, tmp_path: Path
) -> None:
    raw = open_volume(str(folder / "em.zarr")).read(Box((0, 0, 0), (6, 64, 72)))
    broken = raw.astype(np.float32)
    broken[3, 5, 7] = np.nan
    store_volume(tmp_path / "em.zarr", broken)
    (tmp_path / "cells.zarr").symlink_to(folder / "cells.zarr")
    with pytest.raises(NonFiniteValues, match=r"em\.zarr.*1 "):
        run(tmp_path, tmp_path / "m.safetensors")
    # In the held-out box they would spoil every validation.
    with pytest.raises(NonFiniteValues, match=r"em\.zarr.*1 "):
        run(tmp_path, tmp_path / "m.safetensors", {"validation.region": ((3, 6), (0, 64), (0, 72))})


def test_a_checkpoint_is_given_up_only_when_the_log_is_open(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: str) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("pipelines.train.progress.open_log", refuse)
    output = tmp_path / "m.safetensors"
    checkpoint_path(str(output)).write_text("what was reached")
    with pytest.raises(OSError, match="the disk is full"):
        run(folder, output, log=str(tmp_path / "log"), overwrite=True)
    assert checkpoint_path(str(output)).exists()


# --- divergence ------------------------------------------------------------------------------


def test_a_training_that_diverges_leaves_its_last_good_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m.safetensors"
    spoil(monkeypatch, at=5)
    with pytest.raises(TrainingDiverged, match="at step 5"):
        run(folder, output)
    saved = load_file(checkpoint_path(str(output)))
    for name, weights in load_file(output).items():
        assert torch.equal(weights, saved[f"network.{name}"])
        assert weights.abs().max() < 1e3
    assert read_record(checkpoint_path(str(output))).step == 4


@pytest.mark.parametrize("at", [1, 2])
def test_a_training_that_was_never_good_writes_no_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    output = tmp_path / "m.safetensors"
    spoil(monkeypatch, at)
    with pytest.raises(TrainingDiverged, match=f"at step {at}"):
        run(folder, output)
    # The checkpoint of step 2 holds the weights that made the next update fail.
    assert checkpoint_path(str(output)).exists() == (at == 2)
    assert not output.exists()


def test_a_network_that_overflows_is_not_the_best_one(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "m.safetensors"
    spoil(monkeypatch, at=3)
    box = ((4, 6), (0, 64), (0, 72))
    with pytest.raises(TrainingDiverged, match="at step 3"):
        run(folder, output, {"validation.region": box, "validation.every": 3})
    assert "Validation after 3 steps: loss nan" in capsys.readouterr().err
    assert output.exists()
    assert all(weights.abs().max() < 1e3 for weights in load_file(output).values())


# --- kills -----------------------------------------------------------------------------------


def test_a_kill_after_the_best_model_was_written_does_not_lose_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m.safetensors"
    losses = iter([3.0, 1.0, 2.0])  # after 3, 6 and 9 steps
    monkeypatch.setattr(
        "tilenet.training.validate", lambda *args, **more: ValidationResult(next(losses))
    )
    changes = {"validation.region": ((4, 6), (0, 64), (0, 72)), "validation.every": 3}

    def save_and_die(path: Path, state: State, record: CheckpointRecord) -> None:
        if record.best.get("step") == 6:
            raise KeyboardInterrupt
        save_checkpoint(path, state, record)

    with monkeypatch.context() as dying:
        dying.setattr("tilenet.training.save_checkpoint", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run(folder, output, changes)
    assert read_record(checkpoint_path(str(output))).best["step"] == 3
    before = output.read_bytes()
    assert run(folder, output, changes) == 9
    assert read_header(output).training["validation"]["step"] == 6
    assert output.read_bytes() == before


def test_the_model_of_another_training_is_not_taken_for_the_best(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m.safetensors"
    losses = iter([1.0, 4.0, 3.0])
    monkeypatch.setattr(
        "tilenet.training.validate", lambda *args, **more: ValidationResult(next(losses))
    )
    changes = {"validation.region": ((4, 6), (0, 64), (0, 72)), "validation.every": 6}
    assert run(folder, output, {**changes, "optimization.steps": 6, "optimization.seed": 1}) == 6

    def save_and_die(path: Path, state: State, record: CheckpointRecord) -> None:
        save_checkpoint(path, state, record)
        if record.step == 6:
            raise KeyboardInterrupt  # before its own model of step 6

    with monkeypatch.context() as dying:
        dying.setattr("tilenet.training.save_checkpoint", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run(folder, output, changes, overwrite=True)
    assert run(folder, output, changes) == 9
    assert read_header(output).training["steps"] == 9


def test_a_model_whose_record_people_wrote_is_no_best_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m.safetensors"

    def save_and_die(path: Path, state: State, record: CheckpointRecord) -> None:
        save_checkpoint(path, state, record)
        header = ModelHeader(state.network.architecture, training={"validation": "none"})
        save_model(output, state.network, header)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("tilenet.training.save_checkpoint", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run(folder, output)
    assert run(folder, output) == 9
    assert read_header(output).training["steps"] == 9
