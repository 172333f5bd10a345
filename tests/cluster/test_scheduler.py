"""A scheduler and workers that run by themselves, as on a cluster: ``--scheduler``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from distributed import Client

from pipelines.cli import tilenet
from pipelines.cluster import ClusterOptions, resolve
from pipelines.cluster.joined import CONNECT_SECONDS
from pipelines.engine.worker_agreement import common_facts
from pipelines.predict import Choices, Job, check_inputs, run_prediction
from tests.support.oracles import random_network, save_softmax
from tests.support.runs import environment, predict_task, run_tilenet, store_volume, tilenet_command
from tilenet.errors import WorkerTooSmall, WorkerUnfit
from tilenet.geometry import BlockGrid, Box
from tilenet.inference import Predictor, PredictTask, worker_kind
from tilenet.inference.worker_facts import check_facts, numeric_facts
from tilenet.networks import Execution, TileGrid, UNetArchitecture
from tilenet.planning import Plan
from tilenet.synthetic import synthetic_em
from tilenet.volumes import NewVolume, VolumeReference, create_volume, open_volume
from tilenet.worker import Clock

pytestmark = pytest.mark.cluster

ARGUMENTS = ("--block", "1,64,64", "--json")
BLOCK = (1, 64, 64)
LONG = 60
T = TypeVar("T")


class Processes(contextlib.ExitStack):
    """``dask scheduler`` and ``dask worker`` processes, ended with the test."""

    def __init__(self, folder: Path, *security: str) -> None:
        super().__init__()
        self.folder, self.security = folder, security
        self.count = 0
        self.scheduler = self.dask(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", str(folder / "scheduler.json"), *security,
        )  # fmt: skip
        self.address = wait_for(self._address)

    def _address(self) -> str:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return str(json.loads((self.folder / "scheduler.json").read_text())["address"])
        return ""

    def dask(self, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        log = self.enter_context((self.folder / f"log-{self.count}.txt").open("wb"))
        self.count += 1
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            env={**environment(), **variables}, stdout=log, stderr=log, cwd=self.folder,
        )  # fmt: skip
        self.callback(process.wait)
        self.callback(process.kill)
        return process

    def worker(
        self, name: str, threads: int = 1, memory: str = "4GB", **variables: str
    ) -> subprocess.Popen[bytes]:
        return self.dask(
            "worker", self.address, "--name", name, "--nthreads", str(threads), "--no-nanny",
            "--memory-limit", memory, "--no-dashboard", *self.security,
            OMP_NUM_THREADS="1", **variables,
        )  # fmt: skip


def wait_for(condition: Callable[[], T]) -> T:
    """Wait until something is true, and give it."""
    deadline = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A scheduler with one worker."""
    with Processes(tmp_path_factory.mktemp("dask")) as started:
        started.worker("first")
        yield started


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume and a model."""
    folder = tmp_path_factory.mktemp("scheduler")
    store_volume(folder / "em.zarr", synthetic_em((2, 128, 128), seed=3).raw, chunk=(2, 64, 64))
    network = random_network(UNetArchitecture.planar(4, 2, dropout=0.0))
    save_softmax(folder / "model.safetensors", network)
    return folder


def values(path: Path) -> np.ndarray[Any, Any]:
    volume = open_volume(str(path))
    return volume.read(Box.of_shape(volume.shape))


def predict_there(folder: Path, output: str, address: str) -> subprocess.CompletedProcess[str]:
    # Absolute paths: the workers run in another folder.
    return run_tilenet(
        "predict", folder / "em.zarr", folder / output, "--model", folder / "model.safetensors",
        *ARGUMENTS, "--scheduler", address,
    )  # fmt: skip


def test_a_prediction_on_a_scheduler_equals_a_local_one(shared: Processes, case: Path) -> None:
    there = predict_there(case, "there.zarr", shared.address)
    assert there.returncode == 0, there.stderr
    local = run_tilenet(
        "predict", "em.zarr", "local.zarr", "--model", "model.safetensors", *ARGUMENTS,
        "--workers", "1", cwd=case,
    )  # fmt: skip
    assert local.returncode == 0, local.stderr
    assert json.loads(there.stdout)["computed"] == json.loads(local.stdout)["computed"] == 8
    np.testing.assert_array_equal(values(case / "there.zarr"), values(case / "local.zarr"))
    for done, name in ((there, "there.zarr"), (local, "local.zarr")):
        # That scheduler has no dashboard, so the command serves the page itself.
        assert "Dashboard: http://127.0.0.1:" in done.stderr
        report = json.loads((case / f"{name}.report.json").read_text())
        assert report["summary"] == json.loads(done.stdout)
        (figures,) = report["passes"]
        assert (figures["blocks"]["done"], figures["blocks"]["total"]) == (8, 8)
        assert figures["seconds"]["compute"] == report["summary"]["seconds"]["compute"] > 0
        assert 0 < figures["busy"] <= 1
        assert (case / report["picture"]).exists()


def test_a_command_joins_a_scheduler_once(
    shared: Processes, case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[str] = []

    def join(address: str, **options: Any) -> Client:
        joined.append(address)
        return Client(address, **options)

    monkeypatch.setattr("pipelines.cluster.joined.Client", join)
    monkeypatch.chdir(case)
    model, there = ("--model", "model.safetensors"), ("--scheduler", shared.address)
    predict = ["predict", "em.zarr", "once.zarr", *model, *ARGUMENTS, *there]
    # The workers are asked twice, then they look at what is stored, then they recompute.
    verify = ["verify", "once.zarr", "--source", "em.zarr", *model, "--recompute", "0.5", *there]
    for arguments in (predict, verify):
        joined.clear()
        done = CliRunner().invoke(tilenet, arguments)
        assert done.exit_code == 0, done.output
        assert joined == [shared.address]


def test_a_worker_of_another_kind_that_comes_later_stores_nothing(
    shared: Processes, case: Path
) -> None:
    with Client(shared.address) as client:
        client.wait_for_workers(1, timeout=LONG)
        facts = common_facts(client, Execution())
        late = shared.worker("late", ATEN_CPU_CAPABILITY="default")
        client.wait_for_workers(2, timeout=LONG)
        try:
            if client.submit(numeric_facts, "cpu", workers="late", pure=False).result() == facts:
                pytest.skip("this CPU has but one capability, so both workers are alike")
            task = predict_task(
                str(case / "em.zarr"), str(case / "model.safetensors"), case / "late.zarr",
                block=BLOCK, tile=BLOCK, dtype="uint8", precision="float32",
            )  # fmt: skip
            task = dataclasses.replace(task, facts=tuple(facts.items()))
            blocks = list(BlockGrid((2, 128, 128), BLOCK))
            # Some blocks where they fail, as the scheduler may send any of them there.
            futures = client.map(task, blocks[:4], workers="late", pure=False)
            futures += client.map(task, blocks[4:], workers="first", pure=False)
            client.gather(futures, errors="skip")
            for future in futures[:4]:
                with pytest.raises(WorkerUnfit, match=r"device is 'cpu .* DEFAULT', not 'cpu "):
                    future.result()
            assert open_volume(task.output.location).missing(blocks) == [0, 1, 2, 3]
        finally:
            late.kill()
            wait_for(lambda: len(client.nthreads()) == 1)


@pytest.mark.parametrize("in_slurm", [False, True])
def test_workers_whose_kernels_differ_are_told_at_the_start(
    shared: Processes, case: Path, in_slurm: bool
) -> None:
    variables: Any = {"ONEDNN_MAX_CPU_ISA": "SSE41", "SLURMD_NODENAME": "b07"}
    variables |= {"SLURM_JOB_ID": "1"} if in_slurm else {}
    with Client(shared.address) as client:
        client.wait_for_workers(1, timeout=LONG)
        other = shared.worker("other", **variables)
        client.wait_for_workers(2, timeout=LONG)
        try:
            kinds = client.run(worker_kind, Execution())
            if len({kind.facts["digest"] for kind in kinds.values()}) == 1:
                facts = common_facts(client, Execution())  # what only explains is named for both
                assert facts["ONEDNN_MAX_CPU_ISA"] == "SSE41 and unset"
                return
            done = predict_there(case, "mixed.zarr", shared.address)
            assert done.returncode == 1
            assert "Workers: are of 2 kinds. 1 on " in done.stderr
            assert "its convolutions give other bits (digest " in done.stderr
            assert "1 on b07: " in done.stderr or "1 on b07 are alike" in done.stderr
            assert "ONEDNN_MAX_CPU_ISA is " in done.stderr
            assert "let workers run on nodes of one kind only" in done.stderr
            assert not (case / "mixed.zarr").exists()
            mine = next(kind for kind in kinds.values() if kind.node != "b07")
            began = tuple(mine.facts.items())
            late = client.submit(check_facts, began, Execution(), workers="other", pure=False)
            with pytest.raises(WorkerUnfit) as refused:
                late.result()
            assert "ONEDNN_MAX_CPU_ISA is 'SSE41', not unset" in str(refused.value)
            assert ("say --directive=--exclude=b07" in str(refused.value)) == in_slurm
        finally:
            other.kill()
            wait_for(lambda: len(client.nthreads()) == 1)


def test_workers_that_differ_are_planned_for_with_care(shared: Processes) -> None:
    with Client(shared.address) as client:
        large = shared.worker("large", threads=8, memory="8GB")
        client.wait_for_workers(2, timeout=LONG)
        try:
            found = resolve(ClusterOptions(scheduler=shared.address))
            # The larger one runs eight blocks at once, and the smaller one has the memory of one.
            assert (found.workers, found.slots, found.memory) == (2, 8, 4 * 10**9)
        finally:
            large.kill()
            wait_for(lambda: len(client.nthreads()) == 1)


def test_a_worker_that_comes_after_the_plan_and_is_too_small_for_it_is_refused(
    shared: Processes, case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, started = case / "small.zarr", []

    def meanwhile(job: Job, plan: Plan, *, measured: bool) -> None:
        # The plan is made by then, and no worker is asked yet.
        check_inputs(job, plan, measured=measured)
        with Client(shared.address) as client:
            started.append(shared.worker("small", memory="400MB"))
            client.wait_for_workers(2, timeout=LONG)

    monkeypatch.setattr("pipelines.predict.command.check_inputs", meanwhile)
    words = r"has 381 MiB of memory, and the plan needs \d+ MiB of each"
    try:
        with pytest.raises(WorkerTooSmall, match=words):
            run_prediction(
                VolumeReference(str(case / "em.zarr")), str(output),
                model=str(case / "model.safetensors"),
                cluster=ClusterOptions(scheduler=shared.address), choices=Choices(block=BLOCK),
            )  # fmt: skip
    finally:
        for small in started:
            small.kill()
        with Client(shared.address) as client:
            wait_for(lambda: len(client.nthreads()) == 1)
    assert not output.exists()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waiting(PredictTask):
    """Computes a block while its client dies."""

    folder: Path

    def _planes(
        self, predictor: Predictor, tiles: TileGrid, dtype: np.dtype[Any], clock: Clock
    ) -> Generator[npt.NDArray[Any], None, None]:
        (self.folder / "begun").touch()
        wait_for((self.folder / "go").exists)
        yield from super()._planes(predictor, tiles, dtype, clock)
        (self.folder / "computed").touch()


def test_a_block_of_a_dead_client_is_not_stored_in_what_replaced_its_output(
    shared: Processes, case: Path, tmp_path: Path
) -> None:
    whole = Box((0, 0, 0), (1, 64, 64))
    task = predict_task(
        str(case / "em.zarr"), str(case / "model.safetensors"), tmp_path / "out.zarr",
        block=BLOCK, tile=BLOCK, dtype="uint8", precision="float32",
    )  # fmt: skip
    fields = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    with Client(shared.address) as client:
        client.wait_for_workers(1, timeout=LONG)
        future = client.submit(Waiting(**fields, folder=tmp_path), whole)
        wait_for((tmp_path / "begun").exists)
        del future
    # Now another command replaces the output.
    stored = open_volume(task.output.location)
    new = NewVolume(
        shape=stored.shape, dtype="uint8", chunk=BLOCK, shard=BLOCK, attributes={"of": "another"}
    )
    create_volume(stored.location, new, overwrite=True)
    (tmp_path / "go").touch()
    wait_for((tmp_path / "computed").exists)
    with Client(shared.address) as client:  # the only thread is free again: the task has ended
        assert client.submit(int, 1, pure=False).result(timeout=LONG) == 1
    assert open_volume(stored.location).missing([whole]) == [0]


def test_a_lost_scheduler_is_said_soon_and_how_to_go_on(case: Path, tmp_path: Path) -> None:
    with Processes(tmp_path) as lost:
        lost.worker("only")
        model = tmp_path / "slow.safetensors"
        save_softmax(model, random_network(UNetArchitecture.planar(32, 3, dropout=0.0)))
        process = subprocess.Popen(
            tilenet_command(
                "predict", case / "em.zarr", tmp_path / "out.zarr", "--model", model,
                "--block", "1,32,32", "--scheduler", lost.address,
            ),
            cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for(lambda: any((tmp_path / "out.zarr" / "0").rglob("c/*/*/*")))
        start = time.monotonic()
        lost.scheduler.kill()
        _, err = process.communicate(timeout=LONG)
        assert process.returncode == 1, err
        assert f"Error: Scheduler {lost.address}: the connection to it was lost. Blocks" in err
        assert "run the same command again" in err
        assert "unexpected" not in err
        assert "Traceback" not in err
        assert time.monotonic() - start < CONNECT_SECONDS / 2
