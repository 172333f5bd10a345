"""Disks and files that fail in the middle of a real command: nothing lost, nothing false."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.support.faults import (
    ARGUMENTS,
    BLOCKS,
    Case,
    case,
    end,
    small_disk,
    wait_for,
    workers_of,
)
from tests.support.runs import run_tilenet, workers_paused

__all__ = ["case"]

pytestmark = pytest.mark.cluster

ALONE = ("--workers", "1")


def test_a_full_disk(case: Case) -> None:
    with small_disk(case.folder / "full", "1m") as disk:
        process = case.start("full/out.zarr", "--outage-timeout", "2s", count=2)
        room = shutil.disk_usage(disk).free
        (disk / "others").write_bytes(bytes(room - 16 * 1024))
        code, err, summary = end(process)
        assert code == 1, err
        assert "No space left on device" in summary["stopped"]
        assert summary["failed"] == []
        assert summary["missing"] == BLOCKS - case.stored("full/out.zarr") > 0
        said = re.findall(r"Predict: z=\S+ is tried again.*: .*No space left on device", err)
        assert 0 < len(said) < summary["retried"], "a line for many of them"
        assert f"{summary['retried']} tried again" in err
        (disk / "others").unlink()
        case.go_on("full/out.zarr", "disk full", *ALONE, said=(code, err))


@pytest.mark.long
def test_an_output_that_becomes_read_only(case: Case) -> None:
    with small_disk(case.folder / "fixed", "4m") as disk:
        process = case.start("fixed/out.zarr", "--outage-timeout", "2s", count=2)

        def frozen() -> bool:  # refused while a file is being written
            done = subprocess.run(
                ["mount", "-o", "remount,ro", str(disk)], capture_output=True, check=False
            )
            return done.returncode == 0

        wait_for(frozen, pause=0.001)
        code, err, summary = end(process)
        assert code == 1, err
        assert "Read-only file system" in summary["stopped"]
        assert summary["failed"] == []
        assert summary["missing"] == BLOCKS - case.stored("fixed/out.zarr") > 0
        # What cannot be written is not computed again.
        still = run_tilenet("predict", "em.zarr", "fixed/out.zarr", *ARGUMENTS, cwd=case.folder)
        assert still.returncode == 1
        assert still.stdout == ""
        *_, last = still.stderr.splitlines()
        assert last.startswith("Error: fixed/out.zarr: nothing can be written in ")
        assert "Read-only file system. Make it writable, and run the same command again." in last
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        case.go_on("fixed/out.zarr", "output made read-only", *ALONE, said=(code, err))
        # One that lacks nothing may be read only.
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = run_tilenet("predict", "em.zarr", "fixed/out.zarr", *ARGUMENTS, cwd=case.folder)
        assert done.returncode == 0, done.stderr


def test_input_shards_that_are_corrupt_truncated_or_gone(case: Case) -> None:
    source = case.folder / "em.zarr" / "0" / "c" / "1"
    whole = case.folder / "whole"
    shutil.copytree(source, whole)
    try:
        process = case.start("input.zarr", *ALONE, "--memory", "1GB", count=1)
        with workers_paused(process):
            corrupt, truncated, gone = (source / name for name in ("0/0", "1/0", "0/2"))
            corrupt.write_bytes(b"\xff" * corrupt.stat().st_size)
            os.truncate(truncated, truncated.stat().st_size // 2)
            gone.unlink()
        code, err, summary = end(process)
    finally:
        shutil.rmtree(source)
        whole.rename(source)
    assert code == 1, err
    assert len(summary["failed"]) == BLOCKS - case.stored("input.zarr") > 0
    for shard in ("c/1/0/0, c/1/1/0: ", "c/1/0/2: is missing, and was stored before"):
        assert shard in err, err
    assert "restore it and run the same command again" in err
    case.go_on("input.zarr", "input shards corrupt, truncated, missing", *ALONE, said=(code, err))


def test_a_kill_inside_a_shard_write(case: Case, tmp_path: Path) -> None:
    # A disk that takes its time, so that a write is met.
    (tmp_path / "sitecustomize.py").write_text(SLOW_DISK)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    output = case.folder / "write.zarr" / "0" / "c"
    process = case.start("write.zarr", count=2, PYTHONPATH=path)
    family = [psutil.Process(process.pid), *workers_of(process)]
    wait_for(lambda: list(output.rglob("*.partial")), pause=0.001)
    for one in family:
        one.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    psutil.wait_procs(family, timeout=60)
    halves = list(output.rglob("*.partial"))
    assert halves
    assert 0 < case.stored("write.zarr") < BLOCKS
    case.go_on("write.zarr", "SIGKILL inside a shard write", *ALONE, said=(process.returncode, ""))
    assert not any(half.exists() for half in halves)


SLOW_DISK = """\
import os, time
sync = os.fsync
def fsync(descriptor):
    time.sleep(0.2)
    sync(descriptor)
os.fsync = fsync
"""
