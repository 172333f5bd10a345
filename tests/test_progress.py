"""What a log and a terminal show of a run: of blocks that are tried again in particular."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from pipelines.progress import RETRY_SECONDS, BarReporter, LineReporter
from tilenet.geometry import Box
from tilenet.worker import BlockReport

BOX = Box((0, 0, 0), (1, 64, 64))
RETRIES = 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that is set by hand."""
    hands = SimpleNamespace(now=100.0)
    hands.monotonic = lambda: hands.now
    monkeypatch.setattr("pipelines.progress.time", hands)
    return hands


@pytest.fixture(params=[LineReporter, BarReporter])
def reporter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LineReporter:
    """For log files and for terminals."""
    monkeypatch.setenv("COLUMNS", "200")
    made: LineReporter = request.param("Predict", 30, 0)
    return made


def test_a_block_that_is_tried_again_is_said_at_once(
    clock: SimpleNamespace, reporter: LineReporter, capsys: pytest.CaptureFixture[str]
) -> None:
    with reporter:
        reporter.retry(BOX, "No space left on device")
    line = "Predict: z=0:1,y=0:64,x=0:64 is tried again: No space left on device"
    assert line in capsys.readouterr().err.splitlines()


def test_a_storm_of_retries_is_counted_and_none_is_left_out(
    clock: SimpleNamespace, reporter: LineReporter, capsys: pytest.CaptureFixture[str]
) -> None:
    with reporter:
        for _ in range(RETRIES):
            reporter.retry(BOX, "is bad")
            clock.now += 4.5 * RETRY_SECONDS / RETRIES
        clock.now += RETRY_SECONDS
        reporter.retry(BOX, "is bad")
        reporter.advance(BOX, BlockReport(BOX, {}))
    err = capsys.readouterr().err
    said = re.findall(r"is tried again(?: \(and ([\d,]+) more since the last such line\))?: ", err)
    assert len(said) == 6
    assert len(said) + sum(int(more or 0) for more in said) == RETRIES + 1
    assert "1,001 tried again" in err


def test_what_a_note_has_told_is_counted_and_not_said_again(
    clock: SimpleNamespace, reporter: LineReporter, capsys: pytest.CaptureFixture[str]
) -> None:
    with reporter:
        reporter.note("its worker hangs")
        reporter.retry(BOX, "its worker hangs", noted=True)
        reporter.advance(BOX, BlockReport(BOX, {}))
    err = capsys.readouterr().err
    assert err.count("its worker hangs") == 1
    assert "is tried again" not in err
    assert "1 tried again" in err
