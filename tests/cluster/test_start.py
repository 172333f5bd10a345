"""Workers of this machine that die before they have come up."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from distributed import Client

from pipelines.cluster import ClusterOptions, open_client
from tests.support.jobs import slurm_batch
from tests.support.runs import environment
from tilenet.errors import InvalidData, WorkersDied

pytestmark = pytest.mark.cluster

ONE = ClusterOptions(workers=1, slots=1, memory=2**30, dashboard="127.0.0.1:0")

# Every Python that begins as a worker and finds a file takes it, and dies.
DYING = """\
import glob, os, signal, sys
if "spawn_main" in " ".join(sys.orig_argv):
    for path in glob.glob(os.environ["TILENET_TEST_DEATHS"] + "/death-*"):
        os.unlink(path)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def deaths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder: as many worker processes die at once as it holds files."""
    folder = tmp_path / "deaths"
    folder.mkdir()
    (tmp_path / "sitecustomize.py").write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]]))
    monkeypatch.setenv("TILENET_TEST_DEATHS", str(folder))
    return folder


def test_one_that_dies_is_started_again(deaths: Path) -> None:
    (deaths / "death-1").touch()
    with open_client(ONE) as client:
        assert alive(client) == 1
    assert not list(deaths.iterdir())


def test_one_that_dies_again_and_again_is_given_up(deaths: Path) -> None:
    for n in range(20):
        (deaths / f"death-{n}").touch()
    with pytest.raises(WorkersDied, match="3 workers in a row"), open_client(ONE):
        pass
    assert list(deaths.iterdir())


def test_a_network_interface_that_is_not_there_is_refused() -> None:
    batch = slurm_batch(interface="ib99")
    jobs = dataclasses.replace(ONE, batch=batch)
    with pytest.raises(InvalidData, match=r"interface ib99: is no .*; it has .*lo"):
        open_client(jobs).__enter__()


def alive(client: Client) -> int:
    return len(client.run(os.getpid))
