"""What is said at the end of a run: no more than what the store says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.engine import Outcome
from pipelines.outputs.output_run import check_stored
from tests.support.runs import store_volume
from tilenet.geometry import BlockGrid, Box
from tilenet.worker import BlockReport

GRID = BlockGrid((4, 8, 8), (1, 8, 8))
FAILED, COMPUTED, LOST, LONG_AGO = GRID
GONE = "was written, but is now missing from the store"


@pytest.fixture
def output(tmp_path: Path) -> str:
    """An output that lacks a block that failed, one that was computed, and one of an old run."""
    location = store_volume(tmp_path / "out.zarr", np.ones((4, 8, 8), np.uint8), chunk=(1, 8, 8))
    for box in (FAILED, LOST, LONG_AGO):
        (tmp_path / "out.zarr" / "0" / "c" / str(box.start[0]) / "0" / "0").unlink()
    return location


def outcome_of(*failed: Box) -> Outcome:
    outcome = Outcome(failed=[(box, "is bad") for box in failed])
    for box in (COMPUTED, LOST):
        outcome.add(BlockReport(box, {}), keep=False)
    return outcome


def partial(output: str) -> Path:
    """What a killed worker, or another call, has half written."""
    path = Path(output) / "0" / "c" / "1" / "0" / "0.x.partial"
    path.write_bytes(b"half")
    return path


def test_a_block_that_is_not_stored_has_failed_and_is_counted_once(output: str) -> None:
    outcome = outcome_of(FAILED)
    check_stored(output, GRID, [0, 1, 2], outcome)
    assert outcome.failed == [(FAILED, "is bad"), (LOST, GONE), (LONG_AGO, GONE)]
    assert (outcome.computed, outcome.voxels, outcome.stored) == (1, COMPUTED.size, 1)


def test_of_a_run_that_was_stopped_no_block_has_failed(output: str) -> None:
    outcome = outcome_of()
    outcome.stopped_by = 2
    check_stored(output, GRID, [0, 1, 2], outcome)
    assert (outcome.failed, outcome.computed, outcome.stored) == ([], 2, 1)


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_half_written_is_removed_unless_another_call_may_be_writing(
    output: str, shared: bool
) -> None:
    half = partial(output)
    whole = [COMPUTED]
    outcome = Outcome()
    outcome.add(BlockReport(COMPUTED, {}), keep=False)
    check_stored(output, whole, [0], outcome, shared=shared)
    assert (outcome.failed, half.exists()) == ([], shared)


def test_what_is_half_written_stays_while_blocks_are_missing(output: str) -> None:
    half = partial(output)
    check_stored(output, GRID, [0, 1, 2], outcome_of(FAILED))
    assert half.exists()
