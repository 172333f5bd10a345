"""Schedulers that run already: by file, encrypted, and with workers that do not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.cluster import ClusterOptions, open_client, resolve
from pipelines.cluster.tls import Tls
from tests.cluster.test_scheduler import Processes
from tests.support.certificates import make
from tests.support.runs import run_tilenet
from tilenet._version import __version__
from tilenet.errors import InvalidData

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return make(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture(scope="module")
def encrypted(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A scheduler and a worker that talk to nobody without a certificate."""
    files = ("--tls-ca-file", tls.ca, "--tls-cert", tls.cert, "--tls-key", tls.key)
    folder = tmp_path_factory.mktemp("dask")
    with Processes(folder, "--protocol", "tls", *files) as started:
        started.worker("encrypted")
        yield started


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cluster.joined.CONNECT_SECONDS", 20)


def test_a_scheduler_is_found_by_its_file_and_joined_with_certificates(
    encrypted: Processes, tls: Tls
) -> None:
    by_file = ClusterOptions(scheduler=str(encrypted.folder / "scheduler.json"), tls=tls)
    assert resolve(by_file).memory == 4 * 10**9
    with open_client(by_file) as client:
        assert client.scheduler.address == encrypted.address
        assert client.scheduler.address.startswith("tls://")
        assert client.submit(sum, [1, 2]).result() == 3


def test_an_encrypted_scheduler_refuses_others(
    encrypted: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cluster.joined.CONNECT_SECONDS", 3)
    options = ClusterOptions(scheduler=encrypted.address)
    with pytest.raises(InvalidData, match="wants certificates"):
        resolve(options)
    with pytest.raises(InvalidData, match="refuses the TLS connection: self-signed certificate"):
        resolve(dataclasses.replace(options, tls=make(tmp_path, "others")))
    plain = encrypted.address.replace("tls://", "tcp://")
    with pytest.raises(InvalidData, match=r"does not answer within 3 s\..* begins with tls://"):
        resolve(ClusterOptions(scheduler=plain))
    mixed = ClusterOptions(scheduler=plain, tls=make(tmp_path, "others"))
    with pytest.raises(InvalidData, match="addresses that begin with tls://"):
        resolve(mixed)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        ("{}", "does not hold the address"),
        ("[3]", "does not hold the address"),
        ("address = 3", "does not hold the address"),
    ],
)
def test_a_scheduler_file_that_is_none_is_refused(
    tmp_path: Path, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "scheduler.json").write_text(content)
    with pytest.raises(InvalidData, match=words):
        resolve(ClusterOptions(scheduler=str(tmp_path / "scheduler.json")))


@pytest.mark.parametrize("scheduler", ["http://host:8786", "model.safetensors", "host", "tcp://"])
def test_what_is_no_address_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    monkeypatch.setattr("pipelines.cluster.joined.Client", None)
    with pytest.raises(InvalidData, match="is neither a file nor an address"):
        resolve(ClusterOptions(scheduler=scheduler))


def foreign(folder: Path, version: str | None) -> str:
    """A folder for PYTHONPATH: in it tilenet is of another version, or nowhere."""
    folder.mkdir()
    if version is None:
        blocked = "sys.modules['tilenet'] = sys.modules['pipelines'] = None"
        (folder / "sitecustomize.py").write_text(f"import sys\n{blocked}\n")
        return str(folder)
    for name in ("tilenet", "pipelines"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"__version__ = {version!r}\n")
    return str(folder)


@pytest.mark.parametrize(
    ("version", "words"),
    [(None, "lacks tilenet"), ("0.0.9", f"has tilenet 0.0.9, and this is {__version__}")],
)
def test_a_worker_without_this_tilenet_is_named_before_anything_is_begun(
    tmp_path: Path, version: str | None, words: str
) -> None:
    path = foreign(tmp_path / "other", version)
    np.save(tmp_path / "em.npy", np.zeros((8, 64, 64), np.uint8))
    with Processes(tmp_path) as started:
        started.worker("other", PYTHONPATH=path)
        there = ("--scheduler", started.address)
        done = run_tilenet("ingest", tmp_path / "em.npy", tmp_path / "out.zarr", *there)
    assert done.returncode == 1
    assert "Error: Worker tcp://127.0.0.1:" in done.stderr
    assert words in done.stderr
    assert not (tmp_path / "out.zarr").exists()
