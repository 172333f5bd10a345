"""Blocks that the cluster was sent: how they go there, come back, and are taken back."""

from __future__ import annotations

import contextlib
import itertools
import queue
import time
import uuid
from collections.abc import Sequence
from typing import Any

from distributed import Client, Future

from pipelines.cluster import ask, running_keys
from pipelines.engine.attempts import Work
from pipelines.engine.loop import WAKE_SECONDS
from pipelines.engine.outcome import RunOptions, Task
from tilenet.worker import BlockReport, Portable

#: Seconds over which finished blocks are gathered into one batch: a round trip for each would cost
#: short blocks more than their work, and long ones do not notice.
BATCH_SECONDS = 0.02

#: Seconds that a worker may take to hand over what a block reported: it may hang by then.
ANSWER_SECONDS = 20.0


def block_of(key: str) -> str:
    """Give the part of a task's key that names its block, for messages."""
    return key.rsplit("-try", 1)[0]


class InFlight:
    """The blocks of one run that the cluster was sent and that have no result yet.

    A block stays until :meth:`pop` or :meth:`cancel`, whatever became of its task.
    """

    def __init__(self, client: Client, task: Task, options: RunOptions) -> None:
        self.works: dict[Future, Work] = {}  # in the order of submission
        self._client, self._task, self._options = client, Portable(task), options
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._lost: list[Future] = []  # whose worker left before their report was fetched
        self._run, self._submitted = uuid.uuid4().hex[:8], itertools.count(1)

    def __len__(self) -> int:
        return len(self.works)

    def keys(self) -> list[str]:
        """Give the keys of their tasks, in the order of submission."""
        return [future.key for future in self.works]

    def submit(self, works: Sequence[Work], workers: tuple[str, ...]) -> None:
        """Send blocks to some workers and no others, or to any where these are none."""
        # What may go elsewhere too is taken by whoever is idle, and one that fails at once always
        # is.
        for work in works:
            work.sent_to = workers
        futures = self._client.map(
            self._task,
            [work.box for work in works],
            key=[
                f"{self._options.name}-{work.box}-try{len(work.failures) + 1}"
                f"-{next(self._submitted)}-{self._run}"
                for work in works
            ],
            pure=False,
            resources=self._options.resources,
            workers=list(workers) or None,
        )
        self.works.update(zip(futures, works, strict=True))
        for future in futures:
            future.add_done_callback(self._ended.put)

    def pop(self, future: Future) -> Work:
        """Give the block that a future stands for, which is in flight no more."""
        return self.works.pop(future)

    def cancel(self, futures: Sequence[Future]) -> list[Work]:
        """Take blocks back from the cluster."""
        if futures:
            self._client.cancel(list(futures))
        return [self.works.pop(future) for future in futures]

    def waiting(self) -> list[Future]:
        """Ask for those that no worker computes yet."""
        running = running_keys(self._client, stopped=bool(self._options.stop))
        return [future for future in self.works if not (future.key in running or future.done())]

    # -- what ended -------------------------------------------------------------------------------

    def wait(self) -> list[Future]:
        """Wait a moment for tasks that end."""
        # Wakes up now and then, so that a request to stop is seen while blocks last long.
        batch, self._lost = self._lost, []
        with contextlib.suppress(queue.Empty):
            batch.append(self._ended.get(timeout=WAKE_SECONDS))
            time.sleep(BATCH_SECONDS)
            while True:
                batch.append(self._ended.get_nowait())
        return [future for future in batch if future in self.works]

    def results(self, futures: Sequence[Future]) -> dict[Future, BlockReport | BaseException]:
        """Fetch what blocks reported, or why they failed."""
        found = self._fetch(futures)
        # Of one whose worker left before, nothing: Dask computes it again.
        self._lost = [future for future, result in found.items() if result is None]
        return {future: result for future, result in found.items() if result is not None}

    def _fetch(self, futures: Sequence[Future]) -> dict[Future, BlockReport | BaseException | None]:
        # All at once when all went well, as nearly always: one round trip for a batch.
        if all(future.status == "finished" for future in futures):
            try:
                reports = self._client.sync(self._gather, futures, callback_timeout=ANSWER_SECONDS)
                return dict(zip(futures, reports, strict=True))
            except TimeoutError:
                # One by one they would take long, if it is the scheduler that hangs.
                ask(self._client, self._client.nthreads)
            except Exception:  # noqa: S110  (told of one by one below)
                pass
        return {future: self._fetch_one(future) for future in futures}

    async def _gather(self, futures: Sequence[Future]) -> Any:
        return await self._client.gather(list(futures), asynchronous=True)

    @staticmethod
    def _fetch_one(future: Future) -> BlockReport | BaseException | None:
        if future.status == "lost":
            return None
        if future.status == "error":
            return future.exception() or RuntimeError("it failed without a reason")
        if future.status != "finished":
            return RuntimeError(f"the scheduler gave it up ({future.status})")
        try:
            report: BlockReport = future.result(timeout=ANSWER_SECONDS)
        except TimeoutError:
            return RuntimeError("the worker that holds its report does not answer")
        except Exception as error:  # the worker that held the report died, and so did the retry
            return error
        return report
