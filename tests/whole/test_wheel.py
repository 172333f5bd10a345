"""The wheel holds all that is needed, in an environment that holds nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

#: Packages that the wheel needs, of the versions that the other tests use.
CONSTRAINTS = PROJECT / "constraints.txt"


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_wheel_in_an_empty_environment_shows_the_demo(tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, PROJECT)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    sources = [path for name in ("tilenet", "pipelines") for path in (PROJECT / name).rglob("*")]
    needed = {
        str(path.relative_to(PROJECT))
        for path in sources
        if path.suffix in (".py", ".pyi", ".toml", ".html")
    }
    assert needed <= set(names)
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python, tilenet = (tmp_path / "venv" / "bin" / name for name in ("python", "tilenet"))
    install = (python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS)
    run(*install, "torch")
    run(*install, wheel)
    run(tilenet, "demo", tmp_path / "demo", "--steps", "3")
    facts = json.loads(run(tilenet, "info", tmp_path / "demo" / "prediction.zarr", "--json"))
    assert facts["provenance"]["kind"] == "prediction"
