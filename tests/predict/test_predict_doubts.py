"""What is doubtful of an input is said at the top of a prediction, and refused with --strict."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipelines import cli
from pipelines.cluster import ClusterOptions
from pipelines.predict import (
    Choices,
    IntensityRule,
    Job,
    check_job,
    mask_identity,
    plan_job,
    provenance,
)
from pipelines.predict.job import new_output
from tests.support.oracles import grey_values, random_network
from tests.support.runs import store_volume
from tilenet.errors import InvalidData
from tilenet.geometry import Box
from tilenet.inference import ModelHeader, save_model
from tilenet.networks import UNetArchitecture
from tilenet.volumes import Intensity, VolumeReference, create_volume, identify, open_volume

SHAPE = (2, 32, 32)

SIZE = (50.0, 4.0, 4.0)

UNSTATED = (
    "silent.zarr: No voxel size is stated, and the model was trained on voxels of 50, 4, 4 nm "
    "(z, y, x)."
)

NETWORK = UNetArchitecture.planar(2, 1, dropout=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes that state their voxels, or do not, a mask, and a model that states them."""
    path = tmp_path_factory.mktemp("doubts")
    store_volume(path / "em.zarr", grey_values(SHAPE), voxel_size=SIZE)
    store_volume(path / "silent.zarr", grey_values(SHAPE), voxel_size=None)
    at = (100.0, 40.0, 40.0)
    store_volume(path / "mask.zarr", np.ones(SHAPE, np.uint8), voxel_size=SIZE, translation=at)
    header = ModelHeader(architecture=NETWORK, intensity=Intensity(1.5, 1.0), voxel_size=SIZE)
    network = random_network(NETWORK)
    save_model(path / "model.safetensors", network, header)
    silent = dataclasses.replace(header, voxel_size=None)
    save_model(path / "unsized.safetensors", network, silent)
    return path


def job(folder: Path, source: str, model: str = "model", **more: Any) -> Job:
    mask = VolumeReference(str(folder / "mask.zarr")) if more.pop("mask", False) else None
    reference = VolumeReference(str(folder / f"{source}.zarr"))
    model = str(folder / f"{model}.safetensors")
    return check_job(reference, model, mask=mask, choices=Choices(**more))


def test_a_voxel_size_that_is_not_stated_where_the_model_has_one_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(folder, "silent")
    assert capsys.readouterr().err == f"Warning: {folder}/{UNSTATED}\n"
    with pytest.raises(InvalidData) as refused:
        job(folder, "silent", strict=True)
    assert UNSTATED in str(refused.value)
    assert "leave out --strict" in str(refused.value)


def test_nothing_is_said_where_nothing_is_doubtful_or_voxel_sizes_are_ignored(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(folder, "em", strict=True)
    job(folder, "silent", ignore_voxel_size=True, strict=True)
    job(folder, "silent", model="unsized", strict=True)
    job(folder, "em", mask=False, strict=True)
    assert not capsys.readouterr().err


def test_what_is_doubtful_of_a_mask_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(folder, "em", mask=True)
    assert "mask.zarr: It is taken to begin where the volume does" in capsys.readouterr().err
    with pytest.raises(InvalidData, match="taken to begin where the volume does"):
        job(folder, "em", mask=True, strict=True)


def test_what_is_doubtful_of_the_stored_input_is_refused_when_strict(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    array = zarr.create_array(
        str(folder / "sparse.zarr"), shape=SHAPE, chunks=(1, 4, 4), dtype="uint8", zarr_format=2
    )
    array[0, :4, :4] = 1
    job(folder, "sparse", ignore_voxel_size=True)
    (note,) = capsys.readouterr().err.splitlines()
    with pytest.raises(InvalidData) as refused:
        job(folder, "sparse", ignore_voxel_size=True, strict=True)
    assert str(refused.value).startswith(note.removeprefix("Warning: "))


def test_a_unit_that_is_not_understood_is_refused_when_strict(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store_volume(folder / "furlongs.zarr", grey_values(SHAPE), voxel_size=SIZE)
    group = zarr.open_group(path, mode="r+")
    stated: Any = group.attrs.asdict()
    for axis in stated["ome"]["multiscales"][0]["axes"]:
        axis["unit"] = "furlong"
    group.attrs.put(stated)
    job(folder, "furlongs")
    said = capsys.readouterr().err
    assert "furlong" in said.splitlines()[0]
    assert "No voxel size is stated, and the model was trained on" in said
    with pytest.raises(InvalidData, match=r"furlong.*--strict"):
        job(folder, "furlongs", strict=True)


@pytest.mark.parametrize("command", ["predict", "plan"])
def test_both_commands_refuse_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    output = folder / "out.zarr"
    arguments = [str(folder / "silent.zarr"), *([str(output)] if command == "predict" else [])]
    model = str(folder / "model.safetensors")
    assert cli.run([command, *arguments, "--model", model, "--strict"]) == 1
    assert UNSTATED in capsys.readouterr().err
    assert not output.exists()


def test_grey_values_unlike_those_trained_on_are_refused_when_strict(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(folder / "em.zarr"), str(folder / "out.zarr"), "--intensity", "1000,1"]
    model = str(folder / "model.safetensors")
    assert cli.run(["predict", *arguments, "--model", model, "--strict"]) == 1
    assert "grey values have mean" in capsys.readouterr().err
    assert not (folder / "out.zarr").exists()


def test_a_prediction_states_where_its_mask_lies(folder: Path) -> None:
    placed = store_volume(
        folder / "placed.zarr", grey_values((1, 30, 30)), voxel_size=SIZE,
        translation=(100.0, 44.0, 48.0),
    )  # fmt: skip
    mask, volume = VolumeReference(str(folder / "mask.zarr")).open(), VolumeReference(placed).open()
    assert mask_identity(volume, mask) == {**identify(mask), "offset": [0, -1, -2]}
    assert mask_identity(mask, mask) == identify(mask)


@pytest.mark.parametrize("at", [None, (0.0, 0.0, 0.0), (100.0, 44.0, 48.0)])
def test_a_prediction_lies_where_its_input_does(
    folder: Path, tmp_path: Path, at: tuple[float, float, float] | None
) -> None:
    path = store_volume(tmp_path / "em.zarr", grey_values(SHAPE), voxel_size=SIZE, translation=at)
    found = dataclasses.replace(job(folder, "em"), volume=VolumeReference(path).open())
    plan = plan_job(found, Box.of_shape(SHAPE), ClusterOptions(workers=1, memory=2**30))
    grey = IntensityRule("model").stated(found.header.intensity)
    record = provenance(found, plan, intensity=grey, facts={}, dtype="uint8")
    create_volume(str(tmp_path / "out.zarr"), new_output(found, plan, "uint8", record))
    assert open_volume(str(tmp_path / "out.zarr")).translation == at
