"""Tests that would skip fail where everything has to be there, as in continuous integration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import environment

#: Skips as they occur in these tests: by a mark, in a fixture, for want of a device.
TESTS = """\
import pytest

@pytest.fixture
def certificates():
    pytest.skip("openssl is not installed")

def test_fixture(certificates): ...

@pytest.mark.skipif(True, reason="no SLURM")
def test_mark(): ...

@pytest.mark.skipif(True, reason="no CUDA device is here")
def test_device(): ...

@pytest.mark.xfail(reason="known", strict=True)
def test_known():
    raise ValueError

def test_nothing_lacks(): ...
"""


@pytest.mark.parametrize(
    ("required", "code", "summary"),
    [
        ("", 0, "1 passed, 3 skipped, 1 xfailed"),
        ("all", 1, "1 passed, 1 skipped, 1 xfailed, 2 err"),
    ],
)
def test_what_is_missing_skips_or_fails(
    tmp_path: Path, required: str, code: int, summary: str
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]")
    (tmp_path / "test_some.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"],
        cwd=tmp_path, env={**environment(), "TILENET_REQUIRE": required, "PYTEST_ADDOPTS": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert summary in done.stdout
    for reason in ("openssl is not installed", "no SLURM"):
        assert (f"TILENET_REQUIRE is set: {reason}" in done.stdout) == bool(required)
