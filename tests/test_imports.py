"""What importing costs."""

from __future__ import annotations

import subprocess
import sys

import pytest


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh Python has loaded after running some code."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_import_tilenet_loads_neither_torch_nor_dask_nor_zarr() -> None:
    assert not modules_after("import tilenet") & {"torch", "dask", "distributed", "zarr", "numpy"}


@pytest.mark.parametrize("module", ["architecture", "tiling", "plan", "geometry", "errors"])
def test_the_pure_core_loads_the_standard_library_only(module: str) -> None:
    loaded = {name.split(".")[0] for name in modules_after(f"import tilenet.{module}")}
    assert not loaded & {"numpy", "scipy", "torch", "zarr", "dask"}


def test_every_public_name_loads() -> None:
    import tilenet

    for name in tilenet.__all__:
        assert getattr(tilenet, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tilenet.nothing  # noqa: B018


def test_the_plan_and_info_commands_need_no_torch() -> None:
    loaded = modules_after("import pipelines.describe, pipelines.plan, pipelines.cli")
    assert "torch" not in loaded


def test_a_plan_that_measures_nothing_needs_no_torch() -> None:
    arguments = ["plan", "--shape", "20,600,600", "--no-calibration"]
    loaded = modules_after(f"from pipelines.cli import run\nassert run({arguments}) == 0")
    assert "pipelines.plan" in loaded
    assert "torch" not in loaded
