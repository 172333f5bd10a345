"""Fixtures that every test may use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from distributed import Client
from hypothesis import HealthCheck, settings

from pipelines.cluster import ClusterOptions, open_client

# One thread: tiny tensors gain nothing from more, and lose much on a busy machine.
torch.set_num_threads(1)

# Deterministic examples and no deadline: a shared two-core machine has slow moments.
settings.register_profile(
    "tilenet", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tilenet")


#: Files of few and long tests, the longest first: begun last, one would keep a core waiting.
LONGEST = (
    "test_faults", "test_memory", "test_train_command", "test_cli", "test_slurm",
    "test_faults_storage", "test_exactness", "test_object_storage", "test_scheduler",
    "test_label_faults", "test_limits", "test_verify", "test_fuzz",
)  # fmt: skip


#: How the reasons begin for which a test may skip even where TILENET_REQUIRE is set: a device or
#: data, which no package brings.
MAY_SKIP = ("no CUDA device", "there is a GPU", "this CPU has", "TILENET_DATA is not set")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the longest files first, and keep the order within each."""
    rank = {name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, and say so, what needs a device that is not here."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device is here")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where all is required, as in continuous integration, let no test skip unseen."""
    report = yield
    if report.skipped and os.environ.get("TILENET_REQUIRE") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(MAY_SKIP):
            report.outcome = "failed"
            report.longrepr = f"skipped, where TILENET_REQUIRE is set: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _own_cache() -> Iterator[None]:
    """No test, nor a command that one runs, plans by rates that the user measured."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILENET_CACHE", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def _any_dashboard() -> Iterator[None]:
    """Several test processes that look for a free port at the same time may find the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.cluster.local.DASHBOARD", "127.0.0.1:0")
        yield


@pytest.fixture(scope="session")
def tilenet_data() -> Path:
    """The folder of real images, or a skip that says how to get them."""
    folder = os.environ.get("TILENET_DATA")
    if not folder:
        pytest.skip("TILENET_DATA is not set: no real images to test on")
    path = Path(folder).resolve()
    if not path.is_dir():
        pytest.fail(f"TILENET_DATA={folder} is not a folder")
    return path


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """A real Dask cluster on this machine: two worker processes of two slots each."""
    # Any port: several processes that look for a free one at the same time may find the same.
    options = ClusterOptions(workers=2, slots=2, memory=3 * 2**30, dashboard="127.0.0.1:0")
    with open_client(options) as started:
        yield started
