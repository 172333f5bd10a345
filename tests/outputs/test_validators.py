"""What is written is OME-Zarr by the judgement of two libraries, neither of which wrote it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaozarrs
from ome_zarr_models import open_ome_zarr

from pipelines import cli
from tests.support.oracles import random_network, save_softmax
from tilenet.inference import ModelHeader, OutputChannel, save_model
from tilenet.networks import UNetArchitecture
from tilenet.synthetic import synthetic_em


@pytest.mark.cluster
def test_every_kind_of_output_is_ome_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    em = synthetic_em((2, 64, 64), seed=1)
    np.save("em.npy", em.raw)
    np.save("two.npy", np.stack([em.raw, 255 - em.raw]))
    np.save("cells.npy", em.instances.astype(np.uint16))
    network = random_network(UNetArchitecture.planar(2, 1, dropout=0.0))
    save_softmax(Path("one.safetensors"), network)
    outputs = tuple(OutputChannel(name, activation="sigmoid") for name in ("z", "y"))
    save_model("two.safetensors", network, ModelHeader(network.architecture, outputs=outputs))
    sized = ("--voxel-size", "40,4,4")
    predict = ("--workers", "1", "--ignore-voxel-size")
    commands = {
        "em.zarr": ["ingest", "em.npy", "em.zarr", *sized],
        "part.zarr": ["ingest", "em.npy", "part.zarr", *sized, "--region", "z=1:2"],
        "two.zarr": ["ingest", "two.npy", "two.zarr", "--axes", "czyx"],
        "cells.zarr": ["ingest", "cells.npy", "cells.zarr", *sized],
        "instances.zarr": ["label", "cells.zarr", "instances.zarr", "--by-value"],
        "em.zarr/labels/cells": ["label", "cells.zarr", "em.zarr/labels/cells", "--by-value"],
        "weights.zarr": ["weights", "instances.zarr", "weights.zarr"],
        "one.zarr": ["predict", "em.zarr", "one.zarr", "--model", "one.safetensors", *predict],
        "scores.zarr": [
            "predict", "em.zarr", "scores.zarr", "--model", "two.safetensors", *predict
        ],
    }  # fmt: skip
    for output, arguments in commands.items():
        assert cli.run(arguments) == 0, output
        assert yaozarrs.validate_zarr_store(str(tmp_path / output)).ome_version() == "0.5"
        assert open_ome_zarr(str(tmp_path / output)).ome_zarr_version == "0.5"
    # With its labels now.
    for group in ("em.zarr", "em.zarr/labels"):
        yaozarrs.validate_zarr_store(str(tmp_path / group))
