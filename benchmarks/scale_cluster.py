"""A scheduler, workers and a client in processes of their own, watched while blocks pass."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
from distributed import Client

from benchmarks.noop import NoOp
from pipelines.cluster.worker_settings import exports, worker_settings
from pipelines.engine import RunOptions, run_on_cluster
from pipelines.watching import Watch, open_watch
from tilenet.geometry import BlockGrid

#: Blocks before the measurement, so that every process has imported what it needs.
WARM_UP = 200

#: Bytes beside the box that a task is sent with: those of a pickled ``PredictTask``.
TASK_BYTES = 1500

#: Seconds between two looks at the processes, and seconds that one may take to start.
LOOK_SECONDS, START_SECONDS = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the processes."""

    seconds: float  # since the first submission
    blocks: int  # finished so far
    # Resident bytes of "scheduler" and "client", and of the "workers" together.
    memory: dict[str, int]
    cpu: dict[str, float]  # seconds of processor time of each since the first submission


class Looks(threading.Thread):
    """Looks at the processes of each part every few seconds while the blocks run."""

    def __init__(self, processes: dict[str, list[psutil.Process]], watch: Watch) -> None:
        super().__init__(daemon=True)
        self.processes, self.watch = processes, watch
        self.samples: list[Sample] = []
        self._ended = threading.Event()
        self._start, self._spent = time.perf_counter(), self._cpu()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        self._look()

    def run(self) -> None:
        """Look now and then."""
        while not self._ended.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        memory = {
            name: sum(p.memory_info().rss for p in group) for name, group in self.processes.items()
        }
        cpu = {name: spent - self._spent[name] for name, spent in self._cpu().items()}
        seconds = time.perf_counter() - self._start
        blocks = self.watch.passes[-1].to_dict()["blocks"]["done"]
        self.samples.append(Sample(seconds, blocks, memory, cpu))

    def _cpu(self) -> dict[str, float]:
        return {
            name: sum(t.user + t.system for t in (p.cpu_times() for p in group))
            for name, group in self.processes.items()
        }


def run_blocks(count: int, workers: int) -> list[Sample]:
    """Send blocks that do nothing through a cluster; the engine is in this process."""
    with _cluster(workers) as (address, processes), Client(address) as client:
        client.wait_for_workers(workers, timeout=START_SECONDS)
        # As every command does it: with its page, its metrics and its questions to the scheduler.
        with open_watch("noop", "nothing", client, "127.0.0.1:0") as watch:
            _run(WARM_UP, client, watch)
            grid = cube(count)
            with Looks(processes, watch) as looks:
                done = _run(len(grid), client, watch)
        assert done == len(grid), f"{done} of {len(grid)} blocks were done"
    return looks.samples


def cube(count: int) -> BlockGrid:
    """Give about so many blocks, of a volume whose boxes have several digits per axis."""
    edge = max(1, round(count ** (1 / 3)))
    return BlockGrid((64 * max(1, round(count / edge**2)), 64 * edge, 64 * edge), (64, 64, 64))


def _run(count: int, client: Client, watch: Watch) -> int:
    grid, task = cube(count), NoOp(bytes(TASK_BYTES))
    with watch.reporter("No-op", grid, range(len(grid))) as reporter:
        options = RunOptions(name="noop", reporter=reporter)
        return run_on_cluster(task, grid, options, client=client).computed


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[tuple[str, dict[str, list[psutil.Process]]]]:
    # As on a cluster: `dask scheduler` with its dashboard, `dask worker` with our settings.
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = Path(folder, "scheduler.json")
        scheduler = _start(
            stack, "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address",
            "127.0.0.1:0", "--scheduler-file", str(file),
        )  # fmt: skip
        address = _address(file)
        started = [
            _start(
                stack, "worker", address, "--nthreads", "2", "--no-nanny", "--no-dashboard",
                "--memory-limit", "1GiB", "--local-directory", folder,
            )
            for _ in range(workers)
        ]  # fmt: skip
        yield (
            address,
            {
                "scheduler": [scheduler],
                "client": [psutil.Process()],
                "workers": started,
            },
        )


def _start(stack: contextlib.ExitStack, *arguments: str) -> psutil.Process:
    # A machine that other work shares may stop all of them for minutes: nobody is lost by that.
    settings = {**worker_settings(1, 0), "distributed.scheduler.worker-ttl": None}
    script = [*exports(settings), f"exec {sys.executable} -m dask {' '.join(arguments)}"]
    process = subprocess.Popen(
        ["sh", "-c", "\n".join(script)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ.copy(),
    )  # fmt: skip
    stack.callback(process.wait)
    stack.callback(process.kill)
    return psutil.Process(process.pid)


def _address(file: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return str(json.loads(file.read_text())["address"])
        time.sleep(0.05)
    raise TimeoutError("the scheduler did not start")
