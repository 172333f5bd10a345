"""Workers that are bad, and file systems that are away, in the middle of a real command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from tests.cluster.test_scheduler import LONG, Processes
from tests.support.faults import BLOCKS, Case, case, end, record, small_disk, wait_for
from tests.support.runs import environment, run_tilenet
from tilenet.inference.worker_facts import numeric_facts
from tilenet.networks.facts import differing

__all__ = ["case"]

pytestmark = pytest.mark.cluster

ALONE = ("--workers", "1")

#: Of the two workers that a run has otherwise.
SLOTS = 4

#: What a worker runs first whose machine has no such device.
NO_DEVICE = """\
from tilenet.inference import predictor
from tilenet.errors import DeviceUnavailable
def check_device(name):
    raise DeviceUnavailable(name, "PyTorch finds no CUDA device here")
predictor.check_device = check_device
"""


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Processes]:
    """A scheduler without workers."""
    with Processes(tmp_path) as started:
        yield started


def run_with_a_late_worker(
    case: Case, dask: Processes, output: str, fault: str, **variables: str
) -> str:
    """Have a bad worker join two good ones that are in the middle; give what was said of it."""
    gate = case.gate(output, 4)
    for name in ("good1", "good2"):
        dask.worker(name, 1, "4GB", **gate)
    with Client(dask.address) as client:
        client.wait_for_workers(2, timeout=LONG)
        process = case.start(output, "--scheduler", dask.address)
        bad = dask.worker("bad", 1, "4GB", **variables)
        client.wait_for_workers(3, timeout=LONG)
        code, err, summary = end(process)
        wait_for(lambda: bad.poll() is not None)
    assert (code, summary["computed"], summary["failed"]) == (0, BLOCKS, []), err
    assert (summary["stopped"], summary["missing"]) == (None, 0)
    (said,) = [line for line in err.splitlines() if "its blocks go elsewhere" in line]
    assert " (bad) is sent away, and its blocks go elsewhere: " in said
    assert case.same(output)
    note(case, output, fault, (code, said))
    return said


def note(case: Case, output: str, fault: str, said: tuple[int, str]) -> None:
    """Note what a run did that came to its end by itself, with the bits of an undisturbed one."""
    stored, repeated = case.stored(output), case.repeated(output)
    record(fault, said, stored=stored, repeated=repeated, computed=BLOCKS - stored, lost=0)


@pytest.mark.parametrize("setting", ["ATEN_CPU_CAPABILITY=default", "ONEDNN_MAX_CPU_ISA=SSE41"])
def test_a_worker_of_another_kind_among_good_ones(
    case: Case, dask: Processes, setting: str
) -> None:
    kind = dict([setting.split("=")])
    code = (
        "import json; from tilenet.inference.worker_facts import numeric_facts; "
        "print(json.dumps(numeric_facts('cpu')))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], env={**environment(), **kind}, capture_output=True,
        text=True, check=True,
    ).stdout  # fmt: skip
    if not differing(json.loads(other), numeric_facts("cpu")):
        pytest.skip("this CPU has but one capability, so both workers are alike")
    fault = f"a worker of another kind ({setting})"
    said = run_with_a_late_worker(case, dask, f"{next(iter(kind))}.zarr", fault, **kind)
    assert "differs from the workers that the run began with" in said


def test_a_worker_without_the_device_among_good_ones(
    case: Case, dask: Processes, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_DEVICE)
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    said = run_with_a_late_worker(
        case, dask, "device.zarr", "a worker without the device", PYTHONPATH=path
    )
    assert "PyTorch finds no CUDA device here" in said


def test_a_worker_that_lacks_a_mount_among_good_ones(
    case: Case, dask: Processes, tmp_path: Path
) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root may mount")
    for name in ("good1", "good2"):
        dask.worker(name, 1, "4GB")
    # The input's folder is there, and empty.
    (tmp_path / "empty").mkdir()
    mount = f"mount --bind {tmp_path / 'empty'} {case.folder / 'em.zarr'}"
    worker = (
        f"{sys.executable} -m dask worker {dask.address} --name bad --nthreads 1 --no-nanny "
        "--memory-limit 4GB --no-dashboard"
    )
    bad = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{mount} && exec {worker}"],
        env=environment(), stderr=subprocess.DEVNULL, cwd=tmp_path,
    )  # fmt: skip
    dask.callback(bad.wait)
    dask.callback(bad.kill)
    with Client(dask.address) as client:
        client.wait_for_workers(3, timeout=LONG)
        code, err, summary = end(case.begin("mount.zarr", "--scheduler", dask.address))
    assert (code, summary["computed"], summary["failed"]) == (0, BLOCKS, []), err
    # So few blocks may be done before all that speaks against it has come together.
    said = next(line for line in err.splitlines() if "(bad)" in line)
    assert f"{case.folder / 'em.zarr'}: is not a Zarr array or group" in said
    assert case.same("mount.zarr")
    note(case, "mount.zarr", "a worker that lacks a mount", (code, said))


@pytest.mark.parametrize("away", ["input", "output"])
def test_a_file_system_that_is_away_for_a_while(case: Case, away: str) -> None:
    output = f"away-{away}.zarr"
    process = case.start(output)
    case.settle(output, SLOTS)
    place = case.folder / ("em.zarr" if away == "input" else output)
    place.rename(case.folder / "hidden")
    try:
        case.open_gate(output)
        time.sleep(6)
    finally:
        (case.folder / "hidden").rename(place)
    code, err, summary = end(process)
    assert (code, summary["computed"], summary["failed"]) == (0, BLOCKS, []), err
    assert (summary["stopped"], summary["missing"]) == (None, 0)
    assert summary["retried"] > 0
    assert "Paused: " in err
    assert "Going on after " in err
    assert case.same(output)
    said = next(line for line in err.splitlines() if line.startswith("Paused: "))
    note(case, output, f"6 s without the {away}", (code, said))


def test_an_outage_that_lasts_is_no_fault_of_any_block(case: Case) -> None:
    process = case.start("lasting.zarr", "--outage-timeout", "2s")
    case.settle("lasting.zarr", SLOTS)
    (case.folder / "em.zarr").rename(case.folder / "hidden")
    try:
        code, err, summary = end(process)
    finally:
        (case.folder / "hidden").rename(case.folder / "em.zarr")
    stored = case.stored("lasting.zarr")
    assert code == 1, err
    assert summary["failed"] == []
    assert summary["missing"] == BLOCKS - stored > 0
    assert "over 0:00:02 of pauses (--outage-timeout)" in summary["stopped"]
    assert summary["ended_by"] == summary["stopped"]
    assert f"Error: {summary['stopped']}" in err
    assert "failed:" not in err
    case.go_on("lasting.zarr", "an outage that lasts", *ALONE, said=(code, err))


def test_a_disk_that_is_full_for_a_while(case: Case) -> None:
    with small_disk(case.folder / "filled", "1m") as disk:
        process = case.start("filled/out.zarr", count=2)
        room = shutil.disk_usage(disk).free
        (disk / "others").write_bytes(bytes(room - 16 * 1024))
        case.open_gate("filled/out.zarr")
        time.sleep(6)
        (disk / "others").unlink()
        code, err, summary = end(process)
        assert (code, summary["computed"], summary["failed"]) == (0, BLOCKS, []), err
        assert "No space left on device" in err
        still = run_tilenet("verify", "filled/out.zarr", cwd=case.folder)
        assert still.returncode == 0, still.stdout + still.stderr
