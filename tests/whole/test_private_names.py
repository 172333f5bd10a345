"""Names that libraries do not promise: what is done without them."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bounds import PROJECT
from tests.support.runs import environment
from tilenet.errors import LibraryUnfit
from tilenet.inference import torch_names
from tilenet.volumes.stores import zarr_names

ROOT = PROJECT.parent

WITHOUT = """\
import sys
import zarr, zarr.storage
sys.modules["zarr.core.sync"] = None  # as if there were no such module any more
from tilenet.volumes.stores import zarr_names
assert zarr_names._sync is zarr_names._own_sync
"""

STORE = """\
import numpy as np
from tests.support.runs import store_volume
from tilenet.geometry.box import Box
from tilenet.volumes.volume import open_volume
from pathlib import Path
values = np.arange(4 * 32 * 32, dtype=np.uint16).reshape(4, 32, 32)
volume = open_volume(store_volume(Path(sys.argv[1]), values, chunk=(2, 16, 16)))
assert (volume.read(Box.of_shape(volume.shape)) == values).all()
assert volume.missing([Box.of_shape(volume.shape)]) == []
print("stored and read")
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_volumes_are_stored_and_read_without_zarrs_own_thread(tmp_path: Path) -> None:
    done = run(WITHOUT + STORE, str(tmp_path / "em.zarr"))
    assert done.stdout == "stored and read\n", done.stderr


def test_another_name_of_the_pipeline_is_what_zarr_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    named = zarr_names.python_pipeline()
    monkeypatch.setattr(zarr_names, "_PIPELINE", "zarr.core.elsewhere.Pipeline")
    assert zarr_names.python_pipeline() == named


@pytest.mark.parametrize(
    ("version", "lacking", "words"),
    [
        ("3.0.8", None, "lacks what came later. tilenet works with zarr >= 3.1.6, < 3.2"),
        ("4.0.0", "ObjectStore._list", "zarr 4.0.0 lacks zarr.storage.ObjectStore._list"),
    ],
)  # fmt: skip
def test_a_zarr_that_lacks_what_is_needed_is_named(
    monkeypatch: pytest.MonkeyPatch, version: str, lacking: str | None, words: str
) -> None:
    zarr_names.check_version("3.1.6")
    zarr_names.check_version("4.0.0")  # nobody knows, and nothing is missing
    if lacking is not None:
        monkeypatch.delattr("zarr.storage.ObjectStore._list")
    with pytest.raises(LibraryUnfit) as caught:
        zarr_names.check_version(version)
    assert words in str(caught.value)
    assert "pip install 'zarr>=3.1.6,<3.2'" in str(caught.value)


def test_a_command_says_so_at_its_start() -> None:
    code = "import sys, zarr; zarr.__version__ = '3.0.8'; sys.argv[1:] = ['info', 'em.zarr']\n"
    done = run(code + "from pipelines.cli import main; main()")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: zarr 3.0.8 lacks what came later. tilenet works with")


@pytest.mark.parametrize("change", ["gone", "other arguments", "another result"])
def test_an_operator_that_is_another_by_now_is_not_used(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        pytest.skip("this CPU has no oneDNN")
    known = torch_names.find_operator()
    assert known is not None
    if change == "gone":
        monkeypatch.delattr(torch, "mkldnn_convolution")
    elif change == "other arguments":
        monkeypatch.setattr(torch, "mkldnn_convolution", lambda x, weight: x)
    else:
        monkeypatch.setattr(torch, "mkldnn_convolution", lambda *args: known(*args) + 1)
    assert torch_names.find_operator() is None


def test_without_the_operator_the_public_convolution_computes_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.support.oracles import random_network
    from tilenet.inference import StreamedNetwork
    from tilenet.networks import UNetArchitecture

    network = random_network(UNetArchitecture.planar(4, 1, dropout=0.0))
    x = torch.rand(1, 1, 1, 20, 20)

    def computed() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        with torch.no_grad():
            streamed = StreamedNetwork(network, 0)
            (scores,) = streamed.evaluate(lambda piece: x[0, :, piece], 1, None)
            return np.asarray(scores)

    ours = computed()
    monkeypatch.setattr("tilenet.inference.streaming.onednn_convolution", None)
    np.testing.assert_allclose(computed(), ours, atol=1e-5)


def test_only_the_adapters_use_names_that_are_not_promised() -> None:
    private = ("zarr.core", "torch.mkldnn_", '(torch, "mkldnn', "def _set(", "torch.ops")
    found = {
        path.name
        for folder in ("tilenet", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
        if any(name in path.read_text() for name in private)
    }
    assert found == {"torch_names.py", "zarr_names.py"}


def test_the_versions_that_are_said_are_those_that_are_installed() -> None:
    wanted = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    assert f"zarr>={zarr_names.FIRST},<{zarr_names.BELOW}" in wanted
    installed = zarr_names._numbers(importlib.metadata.version("zarr"))
    assert installed >= zarr_names._numbers(zarr_names.FIRST)
