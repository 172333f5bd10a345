"""What a worker opens and loads is remembered, and forgotten in time."""

from __future__ import annotations

import dataclasses
import gc
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.oracles import random_network, save_softmax
from tests.support.runs import predict_task, store_volume
from tilenet.geometry import ZYX, BlockGrid, Box
from tilenet.inference import Predictor, PredictTask
from tilenet.inference.predict_task import NETWORKS
from tilenet.networks import UNetArchitecture
from tilenet.volumes import Intensity, Volume, VolumeReference, open_volume, reopen_for_writing

BLOCK: ZYX = (1, 32, 32)
SHAPE: ZYX = (4, 32, 32)


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the tasks of this process open which volume."""
    counted: Counter[str] = Counter()

    def opened(location: str, **choices: Any) -> Volume:
        counted[Path(location).name] += 1
        return open_volume(location, **choices)

    def opened_for_writing(location: str) -> Volume:
        counted[Path(location).name] += 1
        return reopen_for_writing(location)

    monkeypatch.setattr("tilenet.volumes.references.open_volume", opened)
    monkeypatch.setattr("tilenet.volumes.references.reopen_for_writing", opened_for_writing)
    return counted


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("once") / "model.safetensors"
    save_softmax(path, random_network(UNetArchitecture.planar(2, 1, dropout=0.0)))
    return str(path)


def masked(folder: Path, name: str, model: str) -> PredictTask:
    """A prediction under a mask, with an input and an output of its own."""
    values = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    source = store_volume(folder / f"{name}.in", values, chunk=BLOCK)
    mask = store_volume(folder / f"{name}.mask", np.ones(SHAPE, np.uint8), chunk=BLOCK)
    task = predict_task(
        source, model, folder / f"{name}.out", block=BLOCK, tile=BLOCK, dtype="uint8"
    )
    return dataclasses.replace(task, mask=VolumeReference(mask))


def test_masked_runs_on_one_worker_open_every_volume_once(
    tmp_path: Path, model: str, openings: Counter[str]
) -> None:
    runs = [masked(tmp_path, name, model) for name in "ab"]
    for box in BlockGrid(SHAPE, BLOCK):
        for run in runs:
            run(box)
    names = [f"{name}.{kind}" for name in "ab" for kind in ("in", "mask", "out")]
    assert openings == Counter(dict.fromkeys(names, 1))


def test_another_run_opens_what_lies_there_anew(
    tmp_path: Path, model: str, openings: Counter[str]
) -> None:
    run = masked(tmp_path, "a", model)
    for _ in range(2):
        dataclasses.replace(run, run=uuid.uuid4().hex)(Box((0, 0, 0), BLOCK))
    assert openings == Counter({"a.in": 2, "a.mask": 2, "a.out": 2})


def test_networks_of_earlier_runs_do_not_pile_up(tmp_path: Path, model: str) -> None:
    run = masked(tmp_path, "a", model)
    # A rule of its own, and so a network of its own, each.
    rules = [Intensity(mean=1000.0 + n) for n in range(NETWORKS + 2)]
    for rule in rules:
        dataclasses.replace(run, intensity=rule)(Box((0, 0, 0), BLOCK))
    gc.collect()
    held = [found for found in gc.get_objects() if type(found) is Predictor]
    kept = [found.intensity for found in held if found.intensity in rules]
    assert sorted(kept, key=lambda rule: rule.mean) == rules[-NETWORKS:]
