"""Workers that fail block after block while others finish the very same ones."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from pipelines.engine.attempts import Failure, Work

#: Blocks that fail on a worker, none finished in between, until it can count as bad.
FAILURES = 3


@dataclass
class _Record:
    # What happened on a worker since it last finished a block.
    failed: dict[Work, Failure] = field(default_factory=dict)
    refuted: bool = False  # a block that failed here was finished elsewhere
    again: bool = False  # and another one failed here after that


class Suspects:
    """What speaks against each worker.

    One failure says nothing of whose fault it was. A worker is bad when three blocks failed on it
    and none was finished there in that time, when others finished blocks that failed on it, and
    when it went on to fail after that: what all workers met together was no fault of one.
    """

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._bad: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._records)

    @property
    def workers(self) -> set[str]:
        """Addresses of workers on which a block failed, and none was finished since."""
        return set(self._records)

    def block_failed(self, worker: str, work: Work, failure: Failure) -> None:
        """Note that a block failed on a worker."""
        record = self._records.setdefault(worker, _Record())
        record.again = record.again or record.refuted
        record.failed[work] = failure

    def block_finished(self, worker: str | None, work: Work) -> None:
        """Note that a block was finished on a worker; None where it is not known which."""
        if worker is None:
            return
        self._records.pop(worker, None)
        for address, record in list(self._records.items()):
            if work not in record.failed:
                continue
            record.refuted = True
            if record.again and len(record.failed) >= FAILURES:
                self._bad[address] = list(record.failed.values())[-1].why
                del self._records[address]

    def retain(self, workers: Container[str]) -> None:
        """Forget workers that are not there any more."""
        self.forget({worker for worker in self._records if worker not in workers})

    def forget(self, workers: set[str]) -> None:
        """Hold nothing more against some workers."""
        for worker in workers:
            self._records.pop(worker, None)

    def take_bad(self) -> dict[str, str]:
        """Give the workers that turned out to be bad since the last call, with their last error."""
        bad, self._bad = self._bad, {}
        return bad
