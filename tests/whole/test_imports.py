"""What importing costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.oracles import random_network, save_softmax
from tests.support.runs import environment, store_volume
from tilenet.networks import UNetArchitecture


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh Python has loaded after running some code."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    return set(result.stdout.split())


def test_import_tilenet_loads_neither_torch_nor_dask_nor_zarr() -> None:
    assert not modules_after("import tilenet") & {"torch", "dask", "distributed", "zarr", "numpy"}


@pytest.mark.parametrize(
    "module",
    ["networks.unet_architecture", "networks.tiles", "planning.choose", "geometry.box", "errors"],
)
def test_the_pure_core_loads_the_standard_library_only(module: str) -> None:
    loaded = {name.split(".")[0] for name in modules_after(f"import tilenet.{module}")}
    assert not loaded & {"numpy", "scipy", "torch", "zarr", "dask"}


def test_every_public_name_loads() -> None:
    import tilenet

    for name in tilenet.__all__:
        assert getattr(tilenet, name).__name__ == name
    with pytest.raises(AttributeError, match="attribute nothing"):
        getattr(tilenet, "nothing")  # noqa: B009


def test_the_plan_and_info_commands_need_no_torch() -> None:
    loaded = modules_after("import pipelines.info, pipelines.predict.plan_command, pipelines.cli")
    assert "torch" not in loaded


def test_a_plan_that_measures_nothing_needs_no_torch() -> None:
    arguments = ["plan", "--shape", "20,600,600", "--no-calibration"]
    loaded = modules_after(f"from pipelines.cli import run\nassert run({arguments}) == 0")
    assert "pipelines.predict.plan_command" in loaded
    assert "torch" not in loaded


@pytest.mark.cluster
def test_a_command_that_waits_for_workers_loads_neither_torch_nor_dask_array(
    tmp_path: Path,
) -> None:
    # Each would take seconds at the start of every run; only workers compute.
    network = random_network(UNetArchitecture.planar(2, 1, dropout=0.0))
    save_softmax(tmp_path / "model.safetensors", network)
    store_volume(tmp_path / "em.zarr", np.zeros((2, 64, 64), np.uint8), chunk=(1, 64, 64))
    arguments = ["predict", str(tmp_path / "em.zarr"), str(tmp_path / "out.zarr")]
    arguments += ["--model", str(tmp_path / "model.safetensors"), "--workers", "1"]
    loaded = modules_after(f"from pipelines.cli import run\nassert run({arguments}) == 0")
    assert "distributed" in loaded
    assert not loaded & {"torch", "dask.array"}
