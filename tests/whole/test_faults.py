"""Processes that die, hang or are stopped in the middle of a real command: nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import psutil
import pytest
from distributed import Client

from pipelines.cluster.scheduler_rpc import RPC_SECONDS
from tests.cluster.test_scheduler import Processes
from tests.support.faults import BLOCKS, GATE, Case, case, end, wait_for, workers_of
from tests.support.runs import environment, in_terminal, interrupt, kill, workers_paused

__all__ = ["case"]

pytestmark = pytest.mark.cluster

ALONE = ("--workers", "1")

#: Of the two workers that a run has otherwise.
SLOTS = 4


def test_a_killed_worker_costs_nothing_but_time(case: Case) -> None:
    process = case.start("worker.zarr")
    case.settle("worker.zarr", SLOTS)
    workers_of(process)[0].kill()
    code, err, summary = end(process)
    assert (code, summary["computed"], summary["failed"]) == (0, BLOCKS, []), err
    assert 0 < case.repeated("worker.zarr") <= SLOTS / 2, "no more than it computed"
    assert not case.half_written("worker.zarr")
    case.go_on("worker.zarr", "SIGKILL of a worker", *ALONE, said=(code, err))


def test_a_worker_that_hangs_is_killed_and_its_blocks_go_elsewhere(case: Case) -> None:
    process = case.start("hung.zarr", "--block-timeout", "15s")
    case.settle("hung.zarr", SLOTS)
    stopped = workers_of(process)[0]
    stopped.suspend()
    code, err, summary = end(process, 240)
    assert (code, summary["computed"], summary["failed"]) == (0, BLOCKS, []), err
    assert "did not end on worker tcp://127.0.0.1:" in err
    assert "(--block-timeout 0:00:15); that worker is replaced" in err
    assert not psutil.pid_exists(stopped.pid)
    assert 0 < summary["retried"] <= case.repeated("hung.zarr") <= SLOTS / 2
    assert "is tried again" not in err, "said already"
    case.go_on("hung.zarr", "SIGSTOP of a worker", *ALONE, said=(code, err))


def test_a_killed_client_is_continued_by_the_same_command(case: Case) -> None:
    process = case.start("client.zarr")
    with workers_paused(process):
        case.open_gate("client.zarr")
        kill(process)
    assert 0 < case.stored("client.zarr") < BLOCKS
    said = (process.returncode, "")
    case.go_on("client.zarr", "SIGKILL of the client", said=said)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_says_how_to_go_on(case: Case, number: int, code: int) -> None:
    output = f"stopped{code}.zarr"
    process = case.start(output)
    interrupt(process, number)
    found, err, summary = end(process)
    assert found == code, err
    assert "Run the same command again to go on" in err
    assert summary["stopped_by"] == number
    # A block that began while the others were cancelled may be stored without being counted.
    assert summary["computed"] <= case.stored(output) < BLOCKS
    case.go_on(output, signal.Signals(number).name + " to the client", *ALONE, said=(code, err))


def test_a_killed_scheduler_is_continued_on_another(case: Case) -> None:
    there = ("--scheduler", str(case.folder / "scheduler.json"))
    with Processes(case.folder) as first:
        first.worker("only", 1, "4GB", **case.gate("scheduler.zarr", 4))
        process = case.start("scheduler.zarr", *there)
        first.scheduler.kill()
        code, err, summary = end(process)
    assert code == 1
    # What it had done is told and reported all the same.
    assert summary["ended_by"].endswith("run the same command again to compute what is missing.")
    assert summary["computed"] <= case.stored("scheduler.zarr")
    report = json.loads((case.folder / "scheduler.zarr.report.json").read_text())
    assert report["summary"] == summary
    assert "the connection to it was lost. Blocks that are stored stay" in err
    assert 0 < case.stored("scheduler.zarr") < BLOCKS
    (case.folder / "scheduler.json").unlink()
    with Processes(case.folder) as second:
        second.worker("only")
        case.go_on("scheduler.zarr", "SIGKILL of the scheduler", *there, said=(code, err))


@pytest.mark.long
def test_a_scheduler_that_hangs_is_given_up_and_continued_on_another(
    case: Case, tmp_path: Path
) -> None:
    there = ("--scheduler", str(tmp_path / "scheduler.json"))
    impatient = "import pipelines.cluster.scheduler_rpc as a; a.RPC_SECONDS = 12.0; "
    with Processes(tmp_path) as first:
        first.worker("only", 1, "4GB", **case.gate("stalled.zarr", 4))
        process = case.start("stalled.zarr", *there, first=impatient)
        first.scheduler.send_signal(signal.SIGSTOP)
        code, err, _ = end(process)
    assert code == 1
    assert f"No answer of scheduler {first.address}; waiting, 0:00:10 of 0:00:12" in err
    assert "the connection to it was lost. Blocks that are stored stay" in err
    (tmp_path / "scheduler.json").unlink()
    with Processes(tmp_path) as second:
        second.worker("only")
        case.go_on("stalled.zarr", "SIGSTOP of the scheduler", *there, said=(code, err))


def test_a_stop_is_obeyed_while_the_scheduler_hangs(case: Case, tmp_path: Path) -> None:
    with Processes(tmp_path) as dask:
        dask.worker("only", 1, "4GB", **case.gate("obeyed.zarr", 4))
        process = case.start("obeyed.zarr", "--scheduler", dask.address)
        dask.scheduler.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        code, err, _ = end(process, RPC_SECONDS / 2)
    assert code == 143, err
    assert "Run the same command again to go on" in err


def test_a_worker_that_hangs_before_anything_is_begun_is_named(case: Case, tmp_path: Path) -> None:
    impatient = (
        "import pipelines.cluster.worker_states as s; s.CONNECT_SECONDS = s.ANSWER_SECONDS = 12.0; "
    )
    with Processes(tmp_path) as dask, Client(dask.address) as client:
        dask.worker("lively")
        hung = dask.worker("hung")
        client.wait_for_workers(2, timeout=60)
        hung.send_signal(signal.SIGSTOP)
        code, err, _ = end(case.begin("no.zarr", "--scheduler", dask.address, first=impatient))
        assert code == 1
        # Whether it was asked depends on when it was heard of last.
        why = r"(has not been heard of for|does not answer within) \d+ s"
        assert re.search(rf"Worker tcp://\S+ \(hung\): {why}", err), err
        assert not (case.folder / "no.zarr").exists()
        # Nor does a stop wait for it.
        process = case.begin("no.zarr", "--scheduler", dask.address, "--debug")
        wait_for(lambda: clients(client) == 2)
        process.send_signal(signal.SIGTERM)
        code, err, _ = end(process)
    assert code == 143, err


def clients(client: Client) -> int:
    found: int = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.clients) - 1)
    return found


def test_a_worker_over_its_memory_is_replaced_and_its_block_tried_again(
    case: Case, tmp_path: Path
) -> None:
    # A worker that finds the file takes it, and a lot of memory.
    (tmp_path / "sitecustomize.py").write_text(GATE + GREEDY)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    greed = {"PYTHONPATH": path, "TILENET_TEST_GREED": str(tmp_path / "greed")}
    process = case.start("memory.zarr", count=4, **greed)
    (tmp_path / "greed").touch()
    code, err, summary = end(process)
    assert (code, summary["computed"], summary["failed"]) == (0, BLOCKS, []), err
    assert not (tmp_path / "greed").exists()
    assert "was ended because it took" in err
    assert summary["retried"] > 0
    assert f"{summary['retried']} tried again" in err
    assert "is tried again: worker" not in err, "said already"
    case.go_on("memory.zarr", "a worker over its memory limit", *ALONE, said=(code, err))


GREEDY = """\
import os, threading, time
def take(flag=os.environ["TILENET_TEST_GREED"]):
    while True:
        time.sleep(0.02)
        try:
            os.rename(flag, flag + "-taken")
        except OSError:
            continue
        held = bytearray(2 * 10**9)
        held[::4096] = bytes(len(held[::4096])).replace(b"\\0", b"x")
if "spawn" in " ".join(__import__("sys").orig_argv):
    threading.Thread(target=take, daemon=True).start()
"""


@pytest.mark.long
def test_two_commands_on_one_output_both_end_well(case: Case) -> None:
    half = (*ALONE, "--memory", "1GB")
    first = case.start("both.zarr", *half, count=2)
    case.settle("both.zarr", SLOTS // 2)
    with workers_paused(first):
        second = case.start("both.zarr", *half, count=case.stored("both.zarr") + 4)
    ends = [end(process) for process in (first, second)]
    assert [code for code, _, _ in ends] == [0, 0], ends
    # The second took the half-written shards of the first for orphans; the first wrote them again.
    assert all(summary["failed"] == [] and not summary["retried"] for _, _, summary in ends), ends
    assert ends[1][2]["done_before"] < BLOCKS - 4
    twice = sum(summary["computed"] for _, _, summary in ends) - BLOCKS
    said = (0, f"blocks computed by both: {twice}")
    case.go_on("both.zarr", "two clients on one output", *ALONE, said=said)


def test_no_process_outlives_a_closed_terminal(case: Case) -> None:
    env = {**environment(), **case.gate("closed.zarr", 2)}
    pid, terminal = in_terminal(case.command("closed.zarr"), env, case.folder)
    wait_for(lambda: case.stored("closed.zarr") >= 2)
    children = psutil.Process(pid).children(recursive=True)
    os.close(terminal)
    case.open_gate("closed.zarr")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    case.go_on("closed.zarr", "a closed terminal", *ALONE, said=(129, ""))
