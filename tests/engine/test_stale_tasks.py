"""Tasks that outlive the command that sent them store nothing in what lies at the path by then."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.oracles import random_network, save_softmax
from tests.support.runs import predict_task, store_volume
from tilenet.errors import InvalidData, ModelMismatch, UnreadableVolume
from tilenet.formats import IngestTask, open_source
from tilenet.geometry import Box
from tilenet.labels import ClassCounts, LabelRule, LabelTask, WeightRule, WeightTask
from tilenet.networks import UNetArchitecture
from tilenet.volumes import (
    NewVolume,
    OutputReference,
    VolumeReference,
    create_volume,
    open_volume,
    refuse_if_different,
    replace_attributes,
    write_join,
)

BLOCK = (1, 32, 32)
FIRST, SECOND = Box((0, 0, 0), BLOCK), Box((1, 0, 0), (2, 32, 32))
NEW = NewVolume(
    shape=(2, 32, 32), dtype="uint8", chunk=BLOCK, shard=BLOCK, voxel_size=None, attributes={}
)
MAKERS: dict[str, Callable[[Path], Any]] = {}


def maker(function: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Note a function that makes a task of one kind."""
    MAKERS[function.__name__] = function
    return function


def reference(folder: Path, dtype: str = "uint8") -> OutputReference:
    """Create the output of a task."""
    output = str(folder / "out.zarr")
    return OutputReference(output, create_volume(output, dataclasses.replace(NEW, dtype=dtype)))


@pytest.fixture
def case(tmp_path: Path) -> Path:
    values = np.zeros(NEW.shape, np.uint8)
    values[:, 4:9, 4:9], values[:, 20:25, 4:9] = 1, 2
    store_volume(tmp_path / "in.zarr", values, chunk=BLOCK)
    return tmp_path


@maker
def ingest(folder: Path) -> IngestTask:
    source = open_source(str(folder / "in.zarr"))
    return IngestTask(source=source, output=reference(folder), run=str(folder))


@maker
def predict(folder: Path) -> Any:
    model = folder / "model.safetensors"
    save_softmax(model, random_network(UNetArchitecture.planar(2, 1, dropout=0.0)))
    return predict_task(
        str(folder / "in.zarr"), str(model), folder / "out.zarr",
        block=BLOCK, tile=BLOCK, dtype="uint8", precision="float32",
    )  # fmt: skip


@maker
def weights(folder: Path) -> WeightTask:
    return WeightTask(
        source=VolumeReference(str(folder / "in.zarr")),
        output=reference(folder, "float32"),
        rule=WeightRule(per_section=True),
        counts=ClassCounts(background=1, foreground=1),
        run=str(folder),
    )


@maker
def label(folder: Path) -> LabelTask:
    output = reference(folder, "uint32")
    write_join(output.location, np.array([1, 2, 1, 2], np.uint32), np.array([0, 2, 4]))
    return LabelTask(
        source=VolumeReference(str(folder / "in.zarr")), output=output, block=BLOCK,
        rule=LabelRule(connectivity=4, threshold=0.0), run=str(folder),
    )  # fmt: skip


@pytest.mark.parametrize("kind", MAKERS)
def test_a_task_stores_nothing_in_an_output_that_replaced_its_own(case: Path, kind: str) -> None:
    task = MAKERS[kind](case)
    task(FIRST)
    output = open_volume(str(case / "out.zarr"))
    assert output.missing([FIRST, SECOND]) == [1]
    like = dataclasses.replace(NEW, dtype=str(output.dtype))
    create_volume(output.location, like, overwrite=True)
    with pytest.raises(InvalidData, match=r"out\.zarr: was replaced after"):
        task(SECOND)
    assert open_volume(output.location).missing([FIRST, SECOND]) == [0, 1]


@pytest.mark.parametrize("kind", MAKERS)
def test_a_task_makes_no_output_anew_that_was_removed(case: Path, kind: str) -> None:
    task = MAKERS[kind](case)
    task(FIRST)
    shutil.rmtree(case / "out.zarr")
    with pytest.raises(UnreadableVolume, match=r"out\.zarr: is not there for "):
        task(SECOND)
    assert not (case / "out.zarr").exists()


def test_a_task_of_a_dead_command_may_finish_in_the_output_it_was_for(case: Path) -> None:
    task = ingest(case)
    attributes = {**open_volume(task.output.location).attributes, "noted": "at a resume"}
    del attributes["creation"]
    replace_attributes(task.output.location, attributes)
    task(FIRST)
    assert open_volume(task.output.location).missing([FIRST]) == []


def test_the_creation_is_no_condition_of_a_resume() -> None:
    refuse_if_different("out.zarr", {"kind": "volume", "creation": "a"}, {"kind": "volume"})


def test_a_worker_in_another_folder_means_the_same_volumes(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(case)
    source, output = VolumeReference("in.zarr"), OutputReference("out.zarr", None)
    sent = pickle.dumps((source, output))
    monkeypatch.chdir(tmp_path)
    there, written = pickle.loads(sent)
    assert there.open().shape == open_volume(str(case / "in.zarr")).shape
    assert written.location == str(case / "out.zarr")
    for url in ("s3://bucket/em.zarr", "file:///em.zarr"):
        assert pickle.loads(pickle.dumps(VolumeReference(url))).location == url


def test_a_task_computes_nothing_with_a_model_file_that_was_changed(case: Path) -> None:
    task = predict(case)
    # A legal model of the same network, with other weights.
    network = random_network(UNetArchitecture.planar(2, 1, dropout=0.0), seed=1)
    save_softmax(case / "model.safetensors", network)
    with pytest.raises(ModelMismatch, match=r"model\.safetensors: was changed after the run began"):
        task(FIRST)
    assert open_volume(task.output.location).missing([FIRST]) == [0]


def test_a_task_computes_nothing_for_an_output_that_was_replaced_before_it_came(case: Path) -> None:
    task = predict(case)
    create_volume(task.output.location, NEW, overwrite=True)
    (case / "model.safetensors").unlink()  # it is not even looked for
    with pytest.raises(InvalidData, match=r"out\.zarr: was replaced after"):
        task(FIRST)
