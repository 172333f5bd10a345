"""Fault tests: a run of the real command that is caught in the middle, and what follows."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.support.noting import BEGUN, COUNTED
from tests.support.oracles import random_network, save_softmax
from tests.support.runs import environment, files_below, run_tilenet, store_volume, tilenet_command
from tilenet.geometry import Box
from tilenet.networks import UNetArchitecture
from tilenet.synthetic import synthetic_em
from tilenet.volumes import open_volume

#: Blocks of the volume; a worker takes some tenths of a second for one.
BLOCKS = 24

#: Environment variable: a file that what was seen is added to, for ``benchmarks.bench_faults``.
RECORD = "TILENET_FAULTS"

ARGUMENTS = ("--model", "model.safetensors", "--block", "1,64,64", "--memory", "2GB", "--json")

#: What workers run before they begin: see ``Case.gate``. A shard is stored by this call.
GATE = """\
import os, pathlib, time
count, go, output = os.environ["TILENET_TEST_GATE"].split("|")
before = os.replace
def closed():
    files = pathlib.Path(output, "0", "c").rglob("*")
    stored = sum(path.suffix != ".partial" and path.is_file() for path in files)
    return stored >= int(count) and not os.path.exists(go)
def replace(source, target, **more):
    while "/0/c/" in os.fspath(target) and closed():
        time.sleep(0.02)
    return before(source, target, **more)
os.replace = replace
"""

Process = subprocess.Popen[str]

# Whose gate is opened when a process is waited for.
_started: dict[int, tuple[Case, str]] = {}


@dataclass(frozen=True)
class Case:
    """A volume, a model that takes its time, and an undisturbed prediction, in one folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Case:
        raw = synthetic_em((4, 128, 192), seed=3).raw
        store_volume(folder / "em.zarr", raw, chunk=(2, 64, 64))
        network = random_network(UNetArchitecture.planar(32, 3, dropout=0.0))
        save_softmax(folder / "model.safetensors", network)
        done = run_tilenet("predict", "em.zarr", "good.zarr", *ARGUMENTS, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["computed"] == BLOCKS
        return cls(folder)

    def begin(
        self, output: str, *arguments: str, source: str = "em.zarr", first: str = "", **more: str
    ) -> Process:
        """Begin a prediction; its process runs some code first."""
        return subprocess.Popen(
            self.command(output, *arguments, source=source, first=first),
            cwd=self.folder, env={**environment(), **more}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def gate(self, output: str, count: int) -> dict[str, str]:
        """Variables of processes that store so many blocks, and then wait for :meth:`open_gate`."""
        (self.folder / "gate").mkdir(exist_ok=True)
        (self.folder / "gate" / "sitecustomize.py").write_text(GATE)
        path = os.pathsep.join([str(self.folder / "gate"), environment()["PYTHONPATH"]])
        return {
            "PYTHONPATH": path,
            "TILENET_TEST_GATE": f"{count}|{self._go(output)}|{self.folder / output}",
        }

    def open_gate(self, output: str) -> None:
        """Let a prediction go on to its end."""
        self._go(output).touch()

    def _go(self, output: str) -> Path:
        return self.folder / "gate" / output.replace("/", "-")

    def command(
        self, output: str, *arguments: str, source: str = "em.zarr", first: str = ""
    ) -> list[str]:
        """The command line of a prediction whose blocks are noted."""
        command = tilenet_command("predict", source, output, *ARGUMENTS, *arguments)
        code = command.index("-c") + 1
        (self.folder / "notes").mkdir(exist_ok=True)
        noting = (
            f"from tests.support.noting import note_in; note_in({str(self._notes(output))!r}); "
        )
        command[code] = noting + first + command[code]
        return command

    def noted(self, output: str, what: str) -> list[str]:
        """The blocks of which something was noted, as often as it was."""
        notes = self._notes(output)
        lines = notes.read_text().splitlines() if notes.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(what)]

    def repeated(self, output: str) -> int:
        """How often a block was begun that had been begun before."""
        begun = self.noted(output, BEGUN)
        return len(begun) - len(set(begun))

    def settle(self, output: str, slots: int) -> None:
        """Wait until what is stored was counted, and every slot holds a half-written shard."""

        def settled() -> bool:
            found = len(self.noted(output, COUNTED)), len(self.half_written(output))
            return found == (self.stored(output), slots)

        wait_for(settled)

    def half_written(self, output: str) -> list[Path]:
        """The temporary files in an output."""
        return list((self.folder / output).rglob("*.partial"))

    def _notes(self, output: str) -> Path:
        return self.folder / "notes" / output.replace("/", "-")

    def start(self, output: str, *arguments: str, count: int = 4, **more: str) -> Process:
        """Begin a prediction, and come back when its first blocks are stored.

        It stores no more until :func:`end` waits for it: what is done to it finds it in the middle.
        """
        process = self.begin(output, *arguments, **self.gate(output, count) | more)
        _started[process.pid] = self, output

        def there() -> bool:
            assert process.poll() is None, process.communicate()
            return self.stored(output) >= count

        wait_for(there)
        return process

    def stored(self, output: str) -> int:
        """Count the shards of an output, without those that are being written."""
        shards = (self.folder / output / "0" / "c").rglob("*")
        return sum(path.is_file() and path.suffix != ".partial" for path in shards)

    def same(self, output: str) -> bool:
        """Whether an output equals the undisturbed one in every bit."""
        first = open_volume(str(self.folder / "good.zarr"))
        second = open_volume(str(self.folder / output))
        whole = Box.of_shape(first.shape)
        return not second.missing([whole]) and np.array_equal(first.read(whole), second.read(whole))

    def go_on(
        self, output: str, fault: str, *arguments: str, said: tuple[int, str], **more: str
    ) -> None:
        """Run the same command again: nothing that was stored is lost, or computed again."""
        kept = files_below(self.folder / output / "0" / "c")
        before = {name: data for name, data in kept.items() if not name.endswith(".partial")}
        done = run_tilenet("predict", "em.zarr", output, *ARGUMENTS, *arguments, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert summary["failed"] == []
        assert (summary["done_before"], summary["computed"]) == (len(before), BLOCKS - len(before))
        after = files_below(self.folder / output / "0" / "c")
        lost = [name for name, data in before.items() if after.get(name) != data]
        assert not lost
        assert len(after) == BLOCKS, "no temporary file is left"
        assert self.same(output)
        repeated, again = self.repeated(output), summary["computed"]
        record(fault, said, stored=len(before), repeated=repeated, computed=again, lost=len(lost))


def record(fault: str, said: tuple[int, str], **counts: int) -> None:
    """Note what was seen, if anybody wants to know."""
    if RECORD in os.environ:
        row = {"fault": fault, "exit": said[0], "said": telling(said[1]), **counts}
        with Path(os.environ[RECORD]).open("a") as file:
            file.write(json.dumps(row) + "\n")


def telling(text: str) -> str:
    """The lines of a command's messages that tell of a fault, without places and numbers."""
    lines = text.splitlines()
    first = next((n for n, line in enumerate(lines) if line.startswith("Error:")), len(lines))
    found = (
        lines[first : first + 2]
        or [
            line
            for line in lines
            if re.search("did not end|go(es)? elsewhere|Paused: |by both|Stopped", line)
        ][:1]
    )
    return re.sub(r"/\S*/pytest-\S+/", "", " ".join(line.strip() for line in found))


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """One for all fault tests of a process."""
    return Case.make(tmp_path_factory.mktemp("faults"))


def workers_of(process: Process) -> list[psutil.Process]:
    """The worker processes of a command."""
    children = psutil.Process(process.pid).children(recursive=True)
    # PyTorch is loaded: a worker, not a helper.
    return [child for child in children if child.memory_info().rss > 150 * 2**20]


def end(process: Process, seconds: float = 120) -> tuple[int, str, dict[str, Any]]:
    """Wait for a command, and give its code, its messages and its summary."""
    if process.pid in _started:
        case, output = _started.pop(process.pid)
        case.open_gate(output)
    out, err = process.communicate(timeout=seconds)
    assert "Traceback" not in err, err
    return process.returncode, err, json.loads(out) if out else {}


def wait_for(condition: Callable[[], object], seconds: float = 120, pause: float = 0.02) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(pause)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own in memory, or a skip that says why there is none."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
