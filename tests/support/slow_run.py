"""A program for test_blockwise: a slow run that is stopped from outside."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.cluster import ClusterOptions, open_client
from pipelines.engine import RunOptions, run_on_cluster
from pipelines.stopping import stop_on_signals
from tests.support.runs import Silent
from tilenet.geometry import BlockGrid, Box
from tilenet.worker import BlockReport


@dataclass(frozen=True)
class Sleep:
    """Takes half a second per block, and leaves files that tell when it began and ended."""

    folder: str

    def __call__(self, box: Box) -> BlockReport:
        (Path(self.folder) / f"begun-{box.start[0]}").touch()
        time.sleep(0.5)
        (Path(self.folder) / f"done-{box.start[0]}").touch()
        return BlockReport(box, {})


def main() -> int:
    """Run until told to stop; the exit code says by what."""
    with stop_on_signals() as stop, open_client(ClusterOptions(workers=2, slots=1)) as client:
        options = RunOptions(name="slow", reporter=Silent(), stop=stop)
        grid = BlockGrid((100, 1, 1), (1, 1, 1))
        outcome = run_on_cluster(Sleep(sys.argv[1]), grid, options, client=client)
    return 128 + (outcome.stopped_by or -128)


if __name__ == "__main__":
    sys.exit(main())
