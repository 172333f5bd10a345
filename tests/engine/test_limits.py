"""Limits of a run: blocks that hang or eat memory, workers that die or are too small."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from distributed import Client

from pipelines.cluster import ClusterOptions, open_client, resolve
from pipelines.cluster.replacing import LOCAL_SECONDS
from pipelines.engine import Limits, Outcome, RunOptions, Task, open_runner, run_on_cluster
from pipelines.engine.limits import MIN_HANG_SECONDS
from tests.cluster.test_scheduler import Processes, wait_for
from tests.support.acts import MEMORY, Act
from tests.support.runs import Silent, environment
from tilenet.errors import WorkersDied, WorkersGone, WorkerTooSmall
from tilenet.geometry import BlockGrid

pytestmark = pytest.mark.cluster

BLOCKS = list(BlockGrid((12, 1, 1), (1, 1, 1)))
#: Seconds; a worker that computes nothing for so long hangs, and is not merely starved.
LIMIT = 8.0

OPTIONS = ClusterOptions(workers=2, slots=2, memory=MEMORY)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two workers of two slots and little memory."""
    with open_client(OPTIONS) as started:
        started.run(Act((), ""), BLOCKS[0])  # what it imports takes longer than some limits here
        yield started


def run(client: Client, task: Task, **changes: object) -> tuple[Outcome, list[str]]:
    reporter = Silent()
    options = RunOptions(name="test", reporter=reporter, **changes)  # type: ignore[arg-type]
    return run_on_cluster(task, BLOCKS, options, client=client), reporter.notes


@pytest.mark.parametrize("how", ["hang", "stop"])
def test_a_block_that_hangs_is_given_up_and_the_others_go_on(client: Client, how: str) -> None:
    limits = Limits(block=LIMIT)
    outcome, notes = run(client, Act(BLOCKS[3:4], how), retries=0, limits=limits)
    why = dict(outcome.failed)[BLOCKS[3]]
    assert "did not end on worker tcp://127.0.0.1:" in why
    assert "(--block-timeout 0:00:08); that worker is replaced" in why
    # A block that shared a stopped worker may be given up with it, for nobody can tell them apart.
    assert len(outcome.failed) <= (2 if how == "stop" else 1)
    assert outcome.computed == len(BLOCKS) - len(outcome.failed)
    assert any(f"test-{BLOCKS[3]}: did not end on worker" in note for note in notes)
    client.wait_for_workers(2, timeout=60)


def test_a_block_that_takes_too_much_memory_is_given_up_with_the_figures(client: Client) -> None:
    outcome, notes = run(client, Act(BLOCKS[5:6], "eat"), retries=1)
    why = dict(outcome.failed)[BLOCKS[5]]
    assert "was ended because it took" in why
    assert f"of the {MEMORY / 2**20:,.0f} MiB of memory that it may use. Allow more with" in why
    assert sum("its other blocks are retried elsewhere" in note for note in notes) == 2
    # Itself, and at most one that was beside it both times.
    assert len(outcome.failed) <= 2
    assert outcome.computed == len(BLOCKS) - len(outcome.failed)


def test_a_block_that_kills_its_workers_is_given_up_and_the_others_go_on(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.engine.deaths.DEATHS_PER_BLOCK", 3)
    outcome, _ = run(client, Act(BLOCKS[:1], "die"))
    why = dict(outcome.failed)[BLOCKS[0]]
    assert "3 of its workers died while they computed it, the last tcp://127.0.0.1:" in why
    assert len(outcome.failed) <= 2
    assert outcome.computed == len(BLOCKS) - len(outcome.failed)


def test_workers_that_die_whatever_they_do_are_not_started_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.engine.deaths.DEATHS_IN_A_ROW", 4)
    monkeypatch.setattr("pipelines.engine.deaths.DEATHS_PER_WORKER", 1)
    # A cluster of its own: it may end with a worker less.
    with (
        open_client(OPTIONS) as client,
        pytest.raises(WorkersDied, match="4 workers in a row died or hung") as caught,
    ):
        run(client, Act(tuple(BLOCKS), "die"))
    assert "was killed by signal 9" in str(caught.value)


DYING = """\
import os, sys
if os.path.exists({flag!r}) and "spawn" in " ".join(sys.orig_argv):
    os._exit(3)
"""


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that no worker comes up with."""
    (tmp_path / "sitecustomize.py").write_text(DYING.format(flag=str(tmp_path / "die")))
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    monkeypatch.setenv("PYTHONPATH", path)
    return tmp_path / "die"


def test_a_worker_that_never_comes_up_again_ends_the_run(dying: Path) -> None:
    with open_client(dataclasses.replace(OPTIONS, workers=1)) as client:
        dying.touch()
        start = time.monotonic()
        with pytest.raises(WorkersGone, match="No worker is left") as caught:
            run(client, Act(BLOCKS[:1], "die"), limits=Limits(block=LIMIT))
        assert "exited with status 3" in str(caught.value)
        assert time.monotonic() - start < LOCAL_SECONDS / 2


def test_a_cluster_whose_workers_never_come_up_says_so(dying: Path) -> None:
    dying.touch()
    with pytest.raises(WorkersDied, match="exited with status 3"), open_client(OPTIONS):
        pass


def test_a_worker_with_less_memory_than_the_plan_needs_is_refused() -> None:
    started = open_client(dataclasses.replace(OPTIONS, workers=1), needed=MEMORY + 2**20)
    with pytest.raises(WorkerTooSmall, match="has 668 MiB of memory, and the plan needs 669 MiB"):
        started.__enter__()


def test_a_machine_with_less_memory_than_all_workers_need_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.cluster.door.MEMORY_LIMIT", 10**9)
    started = open_client(OPTIONS, needed=600 * 10**6)
    with pytest.raises(WorkerTooSmall, match="on this machine, one of 2, has 477 MiB of memory"):
        started.__enter__()


def test_a_late_worker_with_too_little_memory_is_sent_away(tmp_path: Path) -> None:
    with Processes(tmp_path) as dask, Client(dask.address) as client:
        dask.worker("large", memory="2GB")
        client.wait_for_workers(1, timeout=60)
        small = dask.worker("small", memory="500MB")
        client.wait_for_workers(2, timeout=60)
        limits = Limits(block=30.0, memory=10**9)
        outcome, notes = run(client, Act((), "", seconds=0.1), limits=limits)
        assert (outcome.computed, outcome.failed) == (len(BLOCKS), [])
        assert "has 477 MiB of memory, and the plan needs 954 MiB of each" in notes[0]
        assert len(client.nthreads()) == 1
        wait_for(lambda: small.poll() is not None)


def test_blocks_sized_by_the_workers_at_the_start_go_to_no_smaller_ones(tmp_path: Path) -> None:
    with Processes(tmp_path) as dask, Client(dask.address) as client:
        dask.worker("large", memory="2GB")
        client.wait_for_workers(1, timeout=60)
        cluster = resolve(ClusterOptions(scheduler=dask.address))
        output = str(tmp_path / "labels.zarr")
        with open_runner(cluster, command="label", output=output) as runner:
            small = dask.worker("small", memory="500MB")
            client.wait_for_workers(2, timeout=60)
            runner.store("Label", Act((), "", seconds=0.1), BLOCKS, range(len(BLOCKS)))
            wait_for(lambda: small.poll() is not None)
        assert (runner.outcome.computed, runner.outcome.failed) == (len(BLOCKS), [])


def test_the_limit_follows_from_the_plan_unless_the_user_says() -> None:
    def block(seconds: float, timeout: float | None = None) -> float:
        return Limits.expecting(seconds, timeout=timeout, memory=0).block

    assert (block(1), block(600), block(600, 30)) == (MIN_HANG_SECONDS, 6000, 30)


@pytest.mark.parametrize(
    ("resources", "words"), [(None, "No worker is left"), ({"GPU": 1.0}, "No worker offers GPU")]
)
def test_a_wait_for_foreign_workers_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: dict[str, float] | None, words: str
) -> None:
    monkeypatch.setattr("pipelines.cluster.replacing.FOREIGN_SECONDS", 2.0)
    reporter = Silent()
    options = RunOptions(
        name="test", reporter=reporter, resources=resources, limits=Limits(block=LIMIT)
    )

    def kill(worker: subprocess.Popen[bytes]) -> None:
        wait_for(lambda: reporter.finished)
        worker.kill()

    with Processes(tmp_path) as dask, Client(dask.address) as client, ThreadPoolExecutor(1) as pool:
        if resources:
            dask.worker("other")
        offers = ("--resources", "GPU=1") if resources else ()
        only = dask.dask(
            "worker", dask.address, "--nthreads", "1", "--no-nanny", "--no-dashboard", *offers
        )  # fmt: skip
        client.wait_for_workers(2 if resources else 1, timeout=60)
        killed = pool.submit(kill, only)
        with pytest.raises(WorkersGone, match=f"{words}, and none came within"):
            run_on_cluster(Act((), "", seconds=2.0), BLOCKS, options, client=client)
        killed.result()


ENDING = """\
import atexit, multiprocessing, sys, time
from pipelines.cluster.nannies import end_workers
from tests.support.acts import stay
if __name__ == "__main__":
    atexit.register(end_workers)
    name = "Dask Worker process (from Nanny)"
    start = multiprocessing.get_context("spawn").Process
    child = start(target=stay, name=name, daemon=True)
    child.start()
    time.sleep(3)  # by then it ignores the signal
    print(child.pid)
"""


def test_a_worker_that_was_given_up_does_not_outlive_its_nanny(tmp_path: Path) -> None:
    (tmp_path / "ending.py").write_text(ENDING)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "ending.py")],
        env=environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert not psutil.pid_exists(int(done.stdout))
