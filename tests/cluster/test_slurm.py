"""Workers in jobs of a real SLURM: results, replacements, refusals, and nothing left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client

from pipelines.cluster import ClusterOptions, open_client, task_resources
from pipelines.cluster.jobs import ABSENT_SECONDS
from pipelines.cluster.options import Batch
from pipelines.engine import Limits, Outcome, RunOptions, run_on_cluster
from pipelines.watching import open_watch
from tests.support.acts import Faulty
from tests.support.certificates import make
from tests.support.faults import Case
from tests.support.jobs import slurm_batch
from tests.support.oracles import random_network, save_softmax
from tests.support.runs import Silent, environment, run_tilenet, store_volume, tilenet_command
from tests.support.slurm import Slow, jobs, missing, settings, slurm, wait_until
from tilenet.errors import JobsFailed, JobsNotStarted, WorkersUnfit
from tilenet.geometry import BlockGrid, Box
from tilenet.networks import UNetArchitecture
from tilenet.synthetic import synthetic_em
from tilenet.volumes import open_volume

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(missing() is not None, reason=f"no SLURM: {missing()}"),
]

LOCAL = ("--workers", "1", "--memory", "3GB")
BLOCKS = ("--model", "model.safetensors", "--block", "1,64,64", "--json")

#: Jobs as a user describes them; the network is loopback, and everything is small.
PROFILE = """\
kind = "slurm"
walltime = "00:10:00"
memory = "2GB"
interface = "lo"
min_jobs = 2
"""


def on_loopback(lifetime: int = 500, **keys: Any) -> Batch:
    """Jobs whose workers speak over this machine's own interface."""
    return slurm_batch(lifetime, interface="lo", **keys)


JOBS = ClusterOptions(batch=on_loopback(), slots=2, memory=10**9)

PARTITION = ("scontrol", "update", "PartitionName=main")

#: Commands in the background; what a failed test leaves of them is killed.
STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(scope="module", autouse=True)
def queue() -> Iterator[Path]:
    """SLURM of one node."""
    with slurm() as folder:
        yield folder


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: Path) -> Iterator[None]:
    """After every test no job is in the queue, and no worker runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])  # for workers of this process
    yield
    for process in STARTED:
        process.kill()
        process.communicate()
    STARTED.clear()
    wait_until(lambda: not jobs(), 15)
    wait_until(lambda: not job_workers(), 15)


def job_workers() -> list[int]:
    """Processes that SLURM's jobs have started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "distributed.cli.dask_worker" in process.cmdline():
                found.append(process.pid)
    return found


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, a model, profiles, and a prediction by processes of this machine."""
    folder = tmp_path_factory.mktemp("slurm")
    store_volume(folder / "em.zarr", synthetic_em((8, 192, 192), seed=3).raw, chunk=(2, 64, 64))
    network = random_network(UNetArchitecture.planar(32, 3, dropout=0.0))
    save_softmax(folder / "model.safetensors", network)
    (folder / "hpc.toml").write_text(PROFILE)
    done = run_tilenet("predict", "em.zarr", "good.zarr", *BLOCKS, *LOCAL, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def start(folder: Path, output: str, *arguments: str, first: str = "") -> subprocess.Popen[str]:
    """Begin a prediction that stores a few blocks, and then waits until its gate is opened."""
    command = tilenet_command("predict", "em.zarr", output, *BLOCKS, *arguments)
    code = command.index("-c") + 1
    command[code] = first + command[code]
    process = subprocess.Popen(
        command, cwd=folder, env={**environment(), **Case(folder).gate(output, 4)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    STARTED.append(process)
    return process


def wait_for_blocks(process: subprocess.Popen[str], output: Path, count: int = 4) -> None:
    def there() -> bool:
        assert process.poll() is None, process.communicate()
        return stored(output) >= count

    wait_until(there, 120)


def stored(output: Path) -> int:
    shards = (output / "0" / "c").rglob("*")
    return sum(path.is_file() and path.suffix != ".partial" for path in shards)


def same(folder: Path, output: str) -> bool:
    first, second = open_volume(str(folder / "good.zarr")), open_volume(str(folder / output))
    whole = Box.of_shape(first.shape)
    return np.array_equal(first.read(whole), second.read(whole))


def test_two_jobs_give_the_local_result_though_one_is_cancelled_in_the_middle(case: Path) -> None:
    process = start(case, "out.zarr", "--cluster", "hpc.toml")
    wait_for_blocks(process, case / "out.zarr")
    first, second = jobs("RUNNING")
    subprocess.run(["scancel", first], check=True)
    Case(case).open_gate("out.zarr")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert (summary["computed"], summary["failed"]) == (72, [])
    assert same(case, "out.zarr")
    # The cancelled one was noticed, and not the other. SLURM calls it COMPLETING while it ends.
    assert re.search(f"Job {first} ended: (CANCELLED|COMPLETING)", err), err
    assert f"Job {second} ended" not in err


def test_a_stopped_command_cancels_its_jobs_and_goes_on_elsewhere(case: Path) -> None:
    name = "stopped.zarr"
    process = start(case, name, "--cluster", "hpc.toml", "--min-jobs", "1")
    wait_for_blocks(process, case / name)
    os.killpg(process.pid, signal.SIGINT)  # by Ctrl-C, which what it has started gets too
    Case(case).open_gate(name)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert json.loads(out)["stopped_by"] == signal.SIGINT
    assert not jobs("PENDING,RUNNING")
    assert 0 < stored(case / name) < 72
    again = run_tilenet("predict", "em.zarr", name, *BLOCKS, *LOCAL, cwd=case)
    assert again.returncode == 0, again.stderr
    assert same(case, name)


@pytest.mark.long
def test_the_jobs_of_a_killed_command_end_by_themselves_and_it_goes_on(case: Path) -> None:
    name, soon = "killed.zarr", "import pipelines.cluster.job_script as b; b.DEATH_SECONDS = 20; "
    # The second job waits for the node until the first has ended.
    two = ("--cluster", "hpc.toml", "--directive=--exclusive")
    process = start(case, name, *two, first=soon)
    wait_for_blocks(process, case / name)
    assert (len(jobs("RUNNING")), len(jobs("PENDING"))) == (1, 1)
    (first,) = jobs("RUNNING")
    process.kill()
    process.communicate()
    # Though its blocks never end.
    wait_until(lambda: first not in jobs())
    before = stored(case / name)
    again = run_tilenet("predict", "em.zarr", name, *BLOCKS, *LOCAL, cwd=case)
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert (summary["done_before"], summary["computed"]) == (before, 72 - before)
    assert same(case, name)
    wait_until(lambda: not jobs(), 120)


def test_a_job_that_does_not_start_is_reported_with_the_reason_of_the_queue(case: Path) -> None:
    held = ("--cluster", "hpc.toml", "--directive=--hold", "--start-timeout", "4s")
    late = ("--lifetime", "10min")
    done = run_tilenet("predict", "em.zarr", "held.zarr", *BLOCKS, *held, *late, cwd=case)
    assert done.returncode == 1, done.stderr
    assert "Warning: a job is killed 0:00:00 after its workers take no further" in done.stderr
    # A line meanwhile, and an error at the end; nothing is begun.
    line = r"Waiting for workers, 0:00:\d\d of at most 0:00:04: job \d+: "
    assert re.search(line, done.stderr), done.stderr
    assert "No slurm job gave a worker within 0:00:04" in done.stderr
    assert done.stderr.count("PENDING (JobHeldUser)") >= 2
    assert not (case / "held.zarr").exists()
    assert not jobs("PENDING,RUNNING")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait_for_jobs(case: Path, number: signal.Signals) -> None:
    process = start(case, "held.zarr", "--cluster", "hpc.toml", "--directive=--hold")
    wait_until(lambda: len(jobs("PENDING")) == 2)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    assert not jobs("PENDING,RUNNING")
    assert not (case / "held.zarr").exists()


def test_jobs_that_fail_one_after_another_are_not_submitted_for_ever(tmp_path: Path) -> None:
    broken = on_loopback(setup=("echo no such module >&2", "exit 3"))
    started = open_client(dataclasses.replace(JOBS, batch=broken))
    with pytest.raises(JobsFailed, match="3 slurm jobs in a row ended") as caught, started:
        pass
    assert "no such module" in str(caught.value)
    assert "FAILED (NonZeroExitCode)" in str(caught.value)
    assert len(list((tmp_path / "tilenet-logs").iterdir())) == 3


def test_a_job_that_runs_without_a_worker_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cluster.jobs.ABSENT_SECONDS", 1.0)
    monkeypatch.setattr("pipelines.cluster.jobs.MAX_FAILED", 1)
    hanging = on_loopback(setup=("sleep 300",))
    started = open_client(dataclasses.replace(JOBS, batch=hanging))
    with pytest.raises(JobsFailed, match="RUNNING, but without a worker"), started:
        pass


def test_a_queue_that_is_not_there_is_refused_in_the_words_of_slurm(case: Path) -> None:
    there = ("--cluster", "hpc.toml", "--queue", "nowhere")
    done = run_tilenet("predict", "em.zarr", "no.zarr", *BLOCKS, *there, cwd=case)
    assert done.returncode == 1
    assert "Error: sbatch failed: " in done.stderr
    assert "invalid partition" in done.stderr
    assert not (case / "no.zarr").exists()


def run_slowly(
    client: Client, notes: Path, blocks: int, seconds: float, limits: Limits | None = None,
    gate: Path | None = None,
) -> list[list[str]]:  # fmt: skip
    """Run blocks, none of which ends before there is a file; give block and job of each begin."""
    grid = BlockGrid((blocks, 1, 1), (1, 1, 1))
    task, reporter = Slow(str(notes), seconds, str(gate or "")), Silent()
    options = RunOptions(name="slow", reporter=reporter, limits=limits or Limits())
    outcome = run_on_cluster(task, grid, options, client=client)
    assert outcome.computed == blocks, outcome.failed
    return begun_in(notes)


def begun_in(notes: Path) -> list[list[str]]:
    return [line.split()[:2] for line in notes.read_text().splitlines()] if notes.exists() else []


def open_when_jobs(count: int, folder: Path) -> None:
    """Let blocks end as soon as so many jobs have begun one."""
    wait_until(lambda: len({job for _, job in begun_in(folder / "notes")}) >= count, 120)
    (folder / "gate").touch()


def test_workers_whose_time_ends_are_replaced_and_no_block_is_computed_twice(
    tmp_path: Path,
) -> None:
    short = on_loopback(walltime="60s", lifetime=12)
    with open_client(dataclasses.replace(JOBS, batch=short, slots=2)) as client:
        begun = run_slowly(client, tmp_path / "notes", 28, 0.5)
        events = [event for told in client.get_events().values() for event in told]
    assert Counter(block for block, _ in begun) == {str(i): 1 for i in range(28)}
    replaced = list(dict.fromkeys(job for _, job in begun))[:-1]
    assert replaced
    # From when it took no further block, a worker had those of its slots to finish, and no other.
    ends = sorted(when for when, told in events if told.get("status") == "paused")
    assert len(ends) >= len(replaced)
    ended = [line.split() for line in (tmp_path / "notes.ended").read_text().splitlines()]
    for job, end in zip(replaced, ends, strict=False):
        assert sum(its == job and float(when) > end for _, its, when in ended) <= 2


def test_the_job_of_a_worker_that_hangs_is_cancelled_and_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_client(dataclasses.replace(JOBS, slots=1)) as client, ThreadPoolExecutor(1) as pool:
        (first,) = jobs("RUNNING")
        pid = next(iter(client.run(os.getpid).values()))
        stopped = pool.submit(stop_when, tmp_path, pid)
        limits = Limits(block=8.0)
        begun = run_slowly(client, tmp_path / "notes", 12, 0.1, limits, tmp_path / "gate")
        stopped.result()
        assert first not in jobs("RUNNING")
    counts = Counter(block for block, _ in begun)
    assert len(counts) == 12
    # Begun again: what the stopped one computed, and what it had not handed over.
    assert sum(counts.values()) <= 14
    assert len({job for _, job in begun}) == 2
    assert f"Job {first} ended: cancelled, because its worker hung" in capsys.readouterr().err


def test_jobs_whose_workers_are_bad_are_replaced_and_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.engine.unfit.UNFIT_JOBS_IN_A_ROW", 2)
    bad = on_loopback(setup=("export TILENET_TEST_FAULT=kind",))
    outcome = Outcome()
    options = RunOptions(name="bad", reporter=Silent(), outcome=outcome)
    with open_client(dataclasses.replace(JOBS, batch=bad, slots=1)) as client:
        (first,) = jobs("RUNNING")
        with pytest.raises(WorkersUnfit, match="2 workers were sent away and no other is left"):
            run_on_cluster(
                Faulty(str(tmp_path)), BlockGrid((12, 1, 1), (1, 1, 1)), options, client=client
            )
    assert (outcome.computed, outcome.failed) == (0, [])
    assert not jobs("RUNNING")
    why = "cancelled, because its worker could compute no block"
    assert f"Job {first} ended: {why}" in capsys.readouterr().err


def stop_when(folder: Path, pid: int) -> None:
    wait_until((folder / "notes").exists)
    os.kill(pid, signal.SIGSTOP)
    (folder / "gate").touch()


def test_a_job_that_is_killed_at_its_walltime_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = on_loopback(walltime="60s", lifetime=600)
    started = open_client(dataclasses.replace(JOBS, batch=late, slots=1))
    with started as client, ThreadPoolExecutor(1) as pool:
        (first,) = jobs("RUNNING")
        # A walltime is a minute at least; SLURM looks twice a minute at whether it is over.
        soon = ["scontrol", "update", f"JobId={first}", "EndTime=now+1"]
        subprocess.run(soon, check=True, timeout=60)
        opened = pool.submit(open_when_jobs, 2, tmp_path)
        begun = run_slowly(client, tmp_path / "notes", 4, 0.1, gate=tmp_path / "gate")
        opened.result()
    assert Counter(block for block, _ in begun) == {"0": 2, "1": 1, "2": 1, "3": 1}
    assert len({job for _, job in begun}) == 2
    assert f"Job {first} ended: TIMEOUT (TimeLimit)" in capsys.readouterr().err


def test_a_job_that_is_preempted_and_queued_again_has_its_time_to_come_up_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queued = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + queued[0], sleep=time.sleep)
    monkeypatch.setattr("pipelines.cluster.jobs.time", clock)
    # The queue is asked while the job runs and its worker has not come up.
    monkeypatch.setattr("pipelines.cluster.jobs.LOOK_SECONDS", 0.1)
    monkeypatch.setattr("pipelines.cluster.jobs.QUEUE_SECONDS", (0.1, 0.1))

    def preempt(job: str) -> None:
        wait_until((tmp_path / "notes").exists)
        subprocess.run(["scontrol", "requeuehold", job], check=True, timeout=60)
        wait_until(lambda: job in jobs("PENDING"))
        queued[0] = 1.5 * ABSENT_SECONDS
        subprocess.run(["scontrol", "release", job], check=True, timeout=60)
        (tmp_path / "gate").touch()

    with (
        open_client(dataclasses.replace(JOBS, slots=1)) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        (job,) = jobs("RUNNING")
        preempted = pool.submit(preempt, job)
        begun = run_slowly(client, tmp_path / "notes", 4, 0.1, gate=tmp_path / "gate")
        preempted.result()
    assert Counter(block for block, _ in begun) == {"0": 2, "1": 1, "2": 1, "3": 1}
    # Another may have helped: one whose worker ends is replaced before it has ended.
    assert " ended: " not in capsys.readouterr().err


def test_no_more_jobs_are_submitted_when_one_after_another_fails_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.cluster.jobs.PAUSE_SECONDS", 0.1)
    said: list[str] = []

    def open_gate() -> None:
        def gone_on() -> bool:
            said.append(capsys.readouterr().err)
            return "The other jobs go on" in "".join(said)

        wait_until(gone_on, 120)
        (tmp_path / "gate").touch()

    # The first one works, and no other.
    first = ("[ -e first ] && exit 3", "touch first")
    broken = on_loopback(setup=first, max_jobs=2)
    started = open_client(dataclasses.replace(JOBS, batch=broken, slots=1))
    with started as client, ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_gate)
        begun = run_slowly(client, tmp_path / "notes", 6, 0.1, gate=tmp_path / "gate")
        opened.result()
    assert len({job for _, job in begun}) == 1
    assert len(list((tmp_path / "tilenet-logs").iterdir())) == 1 + 3
    text = "".join(said)
    assert text.count("3 slurm jobs in a row ended before they were of use, so no more are") == 1


def test_a_queue_that_closes_in_the_middle_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    impatient = on_loopback(start_timeout="10s")  # a job takes its time to come up
    started = open_client(dataclasses.replace(JOBS, batch=impatient, slots=1))

    def close_queue() -> None:
        wait_until((tmp_path / "notes").exists)
        subprocess.run([*PARTITION, "State=DOWN"], check=True)
        subprocess.run(["scancel", *jobs("RUNNING")], check=True)

    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(close_queue)
        try:
            with pytest.raises(JobsNotStarted) as caught, started as client:
                run_slowly(client, tmp_path / "notes", 10, 0.1, gate=tmp_path / "gate")
        finally:
            closed.result()
            subprocess.run([*PARTITION, "State=UP"], check=True)
    assert "PENDING (PartitionDown)" in str(caught.value)


def test_as_many_jobs_as_there_is_work_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cluster.jobs.IDLE_SECONDS", 2.0)
    elastic = on_loopback(max_jobs=2)
    started = open_client(dataclasses.replace(JOBS, batch=elastic, slots=1))
    with started as client, ThreadPoolExecutor(1) as pool:
        assert len(jobs("PENDING,RUNNING")) == 1
        opened = pool.submit(open_when_jobs, 2, tmp_path)
        begun = run_slowly(client, tmp_path / "notes", 10, 0.1, gate=tmp_path / "gate")
        opened.result()
        assert len({job for _, job in begun}) == 2
        wait_until(lambda: len(jobs("PENDING,RUNNING")) == 1, 30)
        assert run_slowly(client, tmp_path / "more", 2, 0.1)  # the one that is left works


def test_workers_in_jobs_are_given_what_local_ones_are_and_one_gpu_each(tmp_path: Path) -> None:
    batch = on_loopback(gpus_per_job=2, cores=2)
    tls = make(tmp_path, "cluster")
    there = dataclasses.replace(JOBS, batch=batch, slots=3, threads=2, memory=10**9, tls=tls)
    with open_client(there) as client:
        client.wait_for_workers(2, timeout=60)
        found = list(client.run(settings).values())
        devices = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        assert task_resources(client) == {"GPU": 1}
        assert all(address.startswith("tls://") for address in devices)
        with open_watch("predict", "out.zarr", client) as watch:
            with urllib.request.urlopen(watch.address, timeout=60) as page:
                assert b"<title>tilenet</title>" in page.read()
            port = urllib.parse.urlsplit(watch.address).port
        bound = [c.laddr for c in psutil.Process().net_connections() if c.status == "LISTEN"]
        assert {address.ip for address in bound if address.port == port} == {"127.0.0.1"}
        pages = client.run(lambda dask_worker: dask_worker.http_server.address)
        assert set(pages.values()) == {"127.0.0.1"}
    # SLURM gives a job the numbers of its GPUs, and each worker sees one of them.
    assert sorted(devices.values()) == ["0", "1"]
    local = ClusterOptions(workers=1, slots=3, threads=2, memory=10**9)
    with open_client(local) as client:
        expected = next(iter(client.run(settings).values()))
    assert found == [expected] * 2


@pytest.mark.long
def test_an_array_of_jobs_shares_a_prediction_out(case: Path) -> None:
    arguments = ("em.zarr", "array.zarr", *BLOCKS, *LOCAL)
    command = shlex.join(tilenet_command("predict", *arguments, "--part", "auto"))
    # The numbers of an array need neither begin at 1 nor be next to one another.
    array = ("--array=3-5:2", "--output=array-%a.log", f"--wrap={command}")
    subprocess.run(["sbatch", *array], cwd=case, env=environment(), check=True, timeout=60)
    wait_until(lambda: not jobs(), 120)
    logs = [(case / f"array-{n}.log").read_text() for n in (3, 5)]
    assert all('"computed": 36' in log for log in logs), logs
    last = run_tilenet("predict", *arguments, cwd=case)
    assert (last.returncode, json.loads(last.stdout)["done_before"]) == (0, 72), last.stderr
    assert same(case, "array.zarr")


def test_the_script_that_is_shown_is_one_that_slurm_takes(case: Path) -> None:
    shown = run_tilenet("cluster", "show", "--cluster", "hpc.toml", "--queue", "main", cwd=case)
    assert shown.returncode == 0, shown.stderr
    assert "#SBATCH -p main" in shown.stdout
    checked = subprocess.run(
        ["sbatch", "--test-only"], input=shown.stdout, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
