"""No worker is left at the moment when the workers are asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from pipelines.cluster import ClusterOptions, ask_workers, task_resources
from pipelines.cluster.door import _capacity, check_workers
from pipelines.engine.worker_agreement import common_facts
from pipelines.predict import Choices, run_prediction
from pipelines.predict.measured_speeds import _everywhere
from tests.cluster.test_scheduler import LONG, Processes, wait_for
from tests.support.oracles import random_network, save_softmax
from tests.support.runs import store_volume
from tilenet.errors import WorkersGone
from tilenet.networks import Execution, UNetArchitecture
from tilenet.volumes import VolumeReference

pytestmark = pytest.mark.cluster

ASKERS: dict[str, Callable[[Client], Any]] = {
    "facts": lambda client: common_facts(client, Execution()),
    "capacity": lambda client: ask_workers(client, _capacity, "cpu"),
    "versions": check_workers,
    "resources": task_resources,
    "rates": lambda client: _everywhere(client, 1, abs, -1),
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A scheduler that nobody works for."""
    with Processes(tmp_path_factory.mktemp("dask")) as started:
        yield started


@pytest.mark.parametrize("asker", ASKERS)
def test_who_asks_workers_says_that_none_is_left_and_what_to_do(
    empty: Processes, monkeypatch: pytest.MonkeyPatch, asker: str
) -> None:
    monkeypatch.setattr("pipelines.cluster.replacing.FOREIGN_SECONDS", 1.0)
    words = r"^No worker is left, and none came within 0:00:01\..* start workers, and run the same"
    with Client(empty.address) as client, pytest.raises(WorkersGone, match=f"(?s){words}"):
        ASKERS[asker](client)


def test_a_worker_that_comes_soon_is_waited_for(empty: Processes) -> None:
    with Client(empty.address) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_workers, client, os.getpid)
        worker = empty.worker("late")
        try:
            assert list(asked.result(timeout=LONG).values()) == [worker.pid]
        finally:
            worker.kill()
            wait_for(lambda: not client.nthreads())


def test_a_prediction_whose_only_worker_leaves_before_it_is_asked_says_so(
    empty: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_volume(tmp_path / "em.zarr", np.zeros((1, 32, 32), np.uint8), chunk=(1, 32, 32))
    model = tmp_path / "model.safetensors"
    save_softmax(model, random_network(UNetArchitecture.planar(2, 1, dropout=0.0)))
    worker = empty.worker("only")

    def left(client: Client, *arguments: Any) -> dict[str, str]:
        # From here on by itself: what is asked is asked of nobody.
        worker.kill()
        wait_for(lambda: not client.scheduler_info()["workers"] and not client.nthreads())
        monkeypatch.setattr("pipelines.cluster.replacing.FOREIGN_SECONDS", 1.0)
        return common_facts(client, *arguments)

    monkeypatch.setattr("pipelines.engine.runner.common_facts", left)
    with pytest.raises(WorkersGone, match="No worker is left, and none came within"):
        run_prediction(
            VolumeReference(str(tmp_path / "em.zarr")), str(tmp_path / "out.zarr"),
            model=str(model), cluster=ClusterOptions(scheduler=empty.address),
            choices=Choices(block=(1, 32, 32)),
        )  # fmt: skip
    assert not (tmp_path / "out.zarr").exists()
