"""Tasks of one worker: one computes at a time, and none holds the device while it waits."""

from __future__ import annotations

import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from tests.support.oracles import ARCHITECTURES, grey_values, random_network, save_softmax
from tests.support.runs import predict_task, store_volume
from tilenet.geometry import BlockGrid, Box
from tilenet.inference import PredictTask, RecomputeTask, streaming
from tilenet.inference.device_lock import DeviceLock
from tilenet.networks import STREAMS, Execution
from tilenet.volumes import Volume, writer
from tilenet.worker import Clock

#: Blocks of eight rows of two shards, each block one stream.
BLOCK, SHARD = (32, 16, 16), (4, 8, 16)
BOXES = list(BlockGrid((32, 16, 64), BLOCK))


@pytest.fixture
def task(tmp_path: Path) -> PredictTask:
    """Four blocks of eight rows to predict, as one worker does."""
    source = store_volume(tmp_path / "em.zarr", grey_values((32, 16, 64), top=256))
    network = random_network(ARCHITECTURES["volumetric"])
    model = save_softmax(tmp_path / "model.safetensors", network)
    return predict_task(
        source,
        model,
        tmp_path / "out.zarr",
        block=SHARD,
        tile=BLOCK,
        dtype="uint8",
        execution=Execution(axis=0, slab=4, streams=STREAMS),
    )


def compute(task: PredictTask, box: Box, take: Callable[[Box, np.ndarray], None]) -> None:
    """Compute a block, and give its shards away."""
    task.stream(box, writer(task.output, task.run), take, Clock())


class Shards:
    """Remembers the voxels of a block's shards; waits before it takes any."""

    def __init__(self, box: Box, gate: threading.Event | None = None) -> None:
        self.box, self.gate = box, gate
        self.values = np.zeros(box.shape, np.uint8)
        self.begun = threading.Event()

    def __call__(self, shard: Box, values: np.ndarray) -> None:
        self.begun.set()
        assert self.gate is None or self.gate.wait(60)
        self.values[shard.relative_to(self.box.start).slices] = values


@pytest.fixture
def two() -> Iterator[ThreadPoolExecutor]:
    """The slots of a worker."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def finish(gate: threading.Event, waiting: Future[None], going: Future[None]) -> bool:
    """Tell whether a task ends while another one waits, and let that one go on."""
    try:
        going.result(30)
        return not waiting.done()
    except TimeoutError:
        return False
    finally:
        gate.set()


def test_a_task_computes_while_the_rows_of_another_one_wait_to_be_written(
    task: PredictTask, two: ThreadPoolExecutor
) -> None:
    expected = [task.compute(box, "uint8") for box in BOXES[:2]]
    gate = threading.Event()
    slow, quick = Shards(BOXES[0], gate), Shards(BOXES[1])
    waiting = two.submit(compute, task, BOXES[0], slow)
    assert slow.begun.wait(30)
    going = two.submit(compute, task, BOXES[1], quick)
    assert finish(gate, waiting, going), "the device is free while a row waits"
    waiting.result(30)
    np.testing.assert_array_equal(slow.values, expected[0])
    np.testing.assert_array_equal(quick.values, expected[1])


def test_a_task_computes_while_another_one_waits_for_its_input(
    task: PredictTask, two: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [task.compute(box, "uint8") for box in BOXES[:2]]
    gate, reading, honest = threading.Event(), threading.Event(), Volume.read

    def read(self: Volume, box: Box) -> np.ndarray:
        # The second piece of the block at the left edge: its first one was computed already.
        if box.start[0] > 0 and box.start[2] == 0:
            reading.set()
            assert gate.wait(60)
        return honest(self, box)

    monkeypatch.setattr(Volume, "read", read)
    slow, quick = Shards(BOXES[0]), Shards(BOXES[-1])
    waiting = two.submit(compute, task, BOXES[0], slow)
    assert reading.wait(30)
    going = two.submit(compute, task, BOXES[-1], quick)
    assert finish(gate, waiting, going), "the device is free while input is waited for"
    waiting.result(30)
    np.testing.assert_array_equal(slow.values, expected[0])


def test_a_block_is_computed_while_two_of_its_rows_are_written_shard_by_shard_at_once(
    task: PredictTask,
) -> None:
    # Two rows of two shards: all four are under way, or the barrier breaks.
    at_once = threading.Barrier(4)

    def take(shard: Box, values: np.ndarray) -> None:
        at_once.wait(30)

    compute(task, BOXES[0], take)


class Watched(streaming.Stream):
    """Counts streams that feed at once, and streams that there are at once."""

    lock, both = threading.Lock(), threading.Event()
    feeding = alive = 0
    most_feeding = most_alive = 0

    def __init__(self, streamed: streaming.StreamedNetwork) -> None:
        super().__init__(streamed)
        with self.lock:
            Watched.alive += 1
            Watched.most_alive = max(Watched.alive, Watched.most_alive)
            if Watched.alive == STREAMS:
                self.both.set()
        weakref.finalize(self, Watched.forget)

    @classmethod
    def forget(cls) -> None:
        with cls.lock:
            cls.alive -= 1

    def feed(self, x: Tensor) -> Tensor | None:
        with self.lock:
            Watched.feeding += 1
            Watched.most_feeding = max(Watched.feeding, Watched.most_feeding)
        time.sleep(0.005)  # so that another one comes in, if it may
        try:
            return super().feed(x)
        finally:
            with self.lock:
                Watched.feeding -= 1


@pytest.mark.parametrize("slow", ["nothing", "writing"])
def test_tasks_of_one_worker_never_evaluate_at_once_and_two_have_begun_at_most(
    task: PredictTask, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    task.compute(BOXES[0], "uint8")  # the network is loaded
    monkeypatch.setattr(streaming, "Stream", Watched)
    for name in ("feeding", "alive", "most_feeding", "most_alive"):
        monkeypatch.setattr(Watched, name, 0)

    monkeypatch.setattr(Watched, "both", both := threading.Event())

    def take(shard: Box, values: np.ndarray) -> None:
        if slow == "writing":
            assert both.wait(30), "another one computes while one waits"
            time.sleep(0.02)  # so that a third one begins, if it may

    with ThreadPoolExecutor(len(BOXES)) as pool:
        list(pool.map(functools.partial(compute, task, take=take), BOXES))
    assert Watched.most_feeding == 1, "one computes at a time"
    assert Watched.alive == 0
    assert Watched.most_alive <= STREAMS, "what streams keep is counted by the plan"


def test_a_lock_that_is_not_held_is_not_given_away_by_who_waits() -> None:
    # A block outside of the mask is written without the device, while another one computes.
    lock = DeviceLock(1)
    with lock, ThreadPoolExecutor(1) as other:

        def wait() -> bool:
            with lock.away():
                return lock._lock.locked()

        assert other.submit(wait).result(30), "still held by us"
        with lock.away():
            assert not lock._lock.locked()
        assert lock._lock.locked()
    assert not lock._lock.locked()


def test_no_thread_of_a_task_is_left_and_the_device_is_free_when_writing_fails(
    task: PredictTask,
) -> None:
    def take(shard: Box, values: np.ndarray) -> None:
        raise OSError(f"disk full at {shard.start[0]}")

    with pytest.raises(OSError, match="disk full at 0"):
        compute(task, BOXES[0], take)
    assert not [t for t in threading.enumerate() if t.name.startswith("tilenet-")]
    with ThreadPoolExecutor(1) as other:
        found = other.submit(task.compute, BOXES[0], "uint8").result(30)
    assert found.any()


@pytest.mark.parametrize("threads", [1, 3])
def test_bits_depend_neither_on_the_threads_that_write_nor_on_tasks_at_once(
    task: PredictTask, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    expected = [task.compute(box, "uint8") for box in BOXES]
    monkeypatch.setattr("tilenet.inference.predict_task.writers", lambda size: threads)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(task, BOXES))
    output = writer(task.output, task.run)
    for box, values in zip(BOXES, expected, strict=True):
        np.testing.assert_array_equal(output.read(box), values)
    assert len({values.tobytes() for values in expected}) == len(BOXES)


def test_what_is_found_by_recomputing_comes_in_order_whatever_thread_was_first(
    task: PredictTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task(BOXES[0])
    output = writer(task.output, task.run)
    output.write(BOXES[0], output.read(BOXES[0]) ^ 1)
    honest, later = Volume.read, threading.Event()

    def read(self: Volume, box: Box) -> np.ndarray:
        if box.shape == SHARD and self.location == task.output.location:
            if box.start == (0, 0, 0):
                assert later.wait(30)  # for the second shard of the row
            later.set()
        return honest(self, box)

    monkeypatch.setattr(Volume, "read", read)
    checked = RecomputeTask(predict=task, tolerance=0.0, exact=True)(BOXES[0]).value
    expected = [str(shard) for shard in BlockGrid(BLOCK, SHARD)]
    assert [flaw.box for flaw in checked.flaws] == expected
    assert checked.objects == len(expected) == 16
