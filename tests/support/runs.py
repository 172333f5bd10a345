"""Helpers that several tests share: small volumes in Zarr, tasks over them, runs of the command."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import psutil
from distributed import Client

from pipelines.engine import Outcome, RunOptions, Task, run_in_loop, run_on_cluster
from pipelines.engine.loop import WAKE_SECONDS
from tilenet.geometry import ZYX, BlockGrid, Box, zyx
from tilenet.inference import PredictTask, model_sha256, read_header
from tilenet.networks import Execution
from tilenet.volumes import (
    NewVolume,
    OutputReference,
    VolumeReference,
    create_volume,
    open_volume,
    reopen_for_writing,
)
from tilenet.worker import BlockReport


class Silent:
    """A reporter that only counts."""

    def __init__(self) -> None:
        self.finished = 0
        self.failed = 0
        self.retried: list[tuple[Box, str]] = []
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def advance(self, box: Box, result: BlockReport | str) -> None:
        self.finished += 1
        self.failed += isinstance(result, str)

    def retry(self, box: Box, problem: str, *, noted: bool = False) -> None:
        self.retried.append((box, problem))

    def note(self, text: str) -> None:
        self.notes.append(text)


def store_volume(
    path: Path,
    values: npt.NDArray[Any],
    *,
    chunk: ZYX = (8, 32, 32),
    voxel_size: tuple[float, float, float] | None = (50.0, 4.0, 4.0),
    translation: tuple[float, float, float] | None = None,
    kind: str = "volume",
) -> str:
    """Write an array of shape (z, y, x) or (c, z, y, x) as a volume."""
    channels = tuple(f"c{i}" for i in range(len(values))) if values.ndim == 4 else None
    new = NewVolume(
        shape=zyx(values.shape[-3:]),
        dtype=str(values.dtype),
        chunk=chunk,
        shard=chunk,
        voxel_size=voxel_size,
        translation=translation,
        channels=channels,
        attributes={"kind": kind},
    )
    create_volume(str(path), new)
    reopen_for_writing(str(path)).write(Box.of_shape(new.shape), values)
    return str(path)


def predict_task(
    source: str,
    model: str,
    output: Path,
    *,
    tile: ZYX,
    dtype: str,
    block: ZYX,
    precision: str = "float32",
    execution: Execution | None = None,
) -> PredictTask:
    """Create an output, of one shard per ``block``, and the task that fills it."""
    header, volume = read_header(model), open_volume(source)
    new = NewVolume(
        shape=volume.shape,
        dtype=dtype,
        chunk=block,
        shard=block,
        channels=header.stored_channels,
        attributes={},
    )
    creation = create_volume(str(output), new)
    return PredictTask(
        source=VolumeReference(source),
        output=OutputReference(str(output), creation),
        model=model,
        model_sha256=model_sha256(model),
        execution=execution or Execution(precision=precision),
        intensity=header.intensity,
        architecture=header.architecture,
        tile=tile,
        run=uuid.uuid4().hex,
    )


def run_task(task: Task, blocks: list[Box], how: str, client: Client | None = None) -> Outcome:
    """Run a task over blocks in a loop, in threads, or in the processes of a cluster."""
    options = RunOptions(name="test", reporter=Silent(), keep_reports=True)
    if how == "threads":
        outcome = Outcome()
        with ThreadPoolExecutor(3) as pool:
            for report in pool.map(task, reversed(blocks)):
                outcome.add(report, keep=True)
        return outcome
    if how == "processes":
        assert client is not None
        return run_on_cluster(task, blocks, options, client=client)
    return run_in_loop(task, blocks, options)


def predict_blocks(
    task: PredictTask, block: ZYX, how: str = "loop", client: Client | None = None
) -> npt.NDArray[Any]:
    """Run a prediction and read back what it stored."""
    output = open_volume(task.output.location)
    blocks = list(BlockGrid(output.shape, block))
    outcome = run_task(task, blocks, how, client)
    assert not outcome.failed, outcome.failed
    return output.read(Box.of_shape(output.shape))


def tilenet_command(*arguments: str | Path) -> list[str]:
    """The command line of the ``tilenet`` program, with warnings as errors."""
    code = "from pipelines.cli import main; main()"
    # Tornado leaves a socket unclosed where another command took the dashboard's port meanwhile.
    warnings = ("-W", "error", "-W", "ignore:unclosed:ResourceWarning")
    return [sys.executable, *warnings, "-c", code, *map(str, arguments)]


def run_tilenet(
    *arguments: str | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the ``tilenet`` program to its end."""
    return subprocess.run(
        tilenet_command(*arguments),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=cwd,
        env=environment(),
    )


@contextlib.contextmanager
def workers_paused(process: subprocess.Popen[str]) -> Iterator[list[psutil.Process]]:
    """Hold a command's workers, so that what is done to it meets it in the middle."""
    children = psutil.Process(process.pid).children(recursive=True)
    for child in children:
        child.suspend()
    try:
        yield children
    finally:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.resume()


def interrupt(process: subprocess.Popen[str], number: int) -> None:
    """Send a command a signal, and let its workers go on when it has surely seen it."""
    with workers_paused(process):
        os.kill(process.pid, number)
        time.sleep(2 * WAKE_SECONDS)


def in_terminal(command: list[str], env: dict[str, str], cwd: Path) -> tuple[int, int]:
    """Run a command in a terminal of its own: its number, and what closes the terminal."""
    number, terminal = os.forkpty()
    if number == 0:
        # What runs the tests may have been told to outlive its own terminal.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.chdir(cwd)
        os.execvpe(command[0], command, env)
    return number, terminal


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a command, and see that no worker outlives it."""
    with workers_paused(process) as children:
        process.kill()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive, "no worker outlives its client"


def environment() -> dict[str, str]:
    """The environment of a child that has to find this checkout from any folder."""
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": root}


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file and its content, to see that nothing changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def as_zyx(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Drop the channel axis of what has one channel."""
    return np.squeeze(values, axis=0) if values.ndim == 4 and len(values) == 1 else values
