"""What is known of a run: its state, the map of its blocks, and the report's place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from dask.utils import key_split

from pipelines.engine import Outcome, RunOptions, run_in_loop
from pipelines.outputs import Summary
from pipelines.outputs.output_run import check_stored
from pipelines.watching import Watch, write_report
from pipelines.watching.block_map import (
    ABSENT,
    DONE,
    DONE_BEFORE,
    FAILED,
    MISSING,
    RUNNING,
    BlockMap,
    count,
)
from pipelines.watching.metrics_text import metrics_text
from pipelines.watching.pass_state import NOW_SECONDS, PassState
from pipelines.watching.picture import CELLS, COLOURS, HEIGHT, WIDTH, bin_states, draw_map
from pipelines.watching.report import report_place
from pipelines.watching.workers import running_blocks
from tests.support.browser import pixels_of
from tests.volumes.test_volume_write import NEW
from tilenet.errors import BlocksFailed, InvalidData
from tilenet.geometry import BlockGrid, Box
from tilenet.volumes import create_volume, reopen_for_writing
from tilenet.worker import BlockReport

GRID = BlockGrid((5, 30, 44), (2, 10, 8))


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def report(box: Box, **seconds: float) -> BlockReport:
    return BlockReport(box, seconds)


@pytest.mark.parametrize("share", [slice(None), slice(2, None, 3)])
def test_a_map_of_a_list_equals_that_of_a_grid(share: slice) -> None:
    boxes = list(GRID)[share]
    missing = [n for n in range(len(boxes)) if n % 4]
    found = BlockMap(boxes, missing)
    whole = BlockMap(GRID, range(len(GRID)))
    for n, box in enumerate(boxes):
        wanted = MISSING if n in missing else DONE_BEFORE
        assert found.states[found.place(box.start)] == wanted
    assert (found.states != ABSENT).sum() == len(boxes)
    assert sum(count(found.states).values()) == len(boxes)
    assert found.voxels(MISSING) == sum(boxes[n].size for n in missing)
    assert whole.voxels(MISSING) == 5 * 30 * 44
    assert whole.lattice == BlockMap(list(GRID), []).lattice


def test_a_map_of_a_region_begins_where_the_region_does() -> None:
    grid = BlockGrid((100, 100, 100), (10, 10, 10), Box((20, 35, 0), (40, 61, 100)))
    found = BlockMap(grid, range(len(grid)))
    assert found.states.shape == (2, 4, 10)
    assert all(found.states[found.place(box.start)] == MISSING for box in grid)
    assert found.voxels(MISSING) == grid.covered.size


def test_running_is_only_what_is_missing_and_of_this_pass() -> None:
    found = BlockMap(GRID, range(1, len(GRID)))
    states = found.now([GRID[0].start, GRID[1].start, (1, 1, 1)])
    assert count(states)["running"] == 1
    assert states[found.place(GRID[1].start)] == RUNNING
    assert found.states[found.place(GRID[1].start)] == MISSING


def test_running_blocks_are_read_off_the_names_of_tasks() -> None:
    keys = [f"predict-{GRID[7]}-try1-abcdef01", "something-else"]
    assert running_blocks([{"running": keys}, {"running": []}]) == [GRID[7].start]
    assert key_split(keys[0]) == "predict", "so Dask's pages call all of them"


def test_the_rate_now_follows_the_last_minute_and_the_other_the_whole_pass() -> None:
    clock = Hands()
    grid = BlockGrid((400, 10, 10), (1, 10, 10))
    state = PassState("Test", grid, range(len(grid)), clock=clock)
    for n in range(100):  # a block a second, then one every two seconds
        clock.now += 1
        state.advance(grid[n], report(grid[n], compute=0.5))
    for n in range(100, 200):
        clock.now += 2
        state.advance(grid[n], report(grid[n], compute=0.5))
    told = state.to_dict()
    assert told["voxels_per_second"]["overall"] == pytest.approx(200 * 100 / 300)
    assert told["voxels_per_second"]["now"] == pytest.approx(50, rel=0.05)
    assert told["seconds"]["left"] == pytest.approx(400, rel=0.05)
    clock.now += 2 * NOW_SECONDS  # nothing comes any more, and nobody knows for how long
    told = state.to_dict()
    assert (told["voxels_per_second"]["now"], told["seconds"]["left"]) == (0, None)


def test_the_rate_now_spans_several_blocks_however_long_they_last() -> None:
    clock = Hands()
    grid = BlockGrid((40, 10, 10), (1, 10, 10))
    state = PassState("Test", grid, range(len(grid)), clock=clock)
    for n in range(8):
        clock.now += 300
        state.advance(grid[n], report(grid[n], compute=550.0, write=50.0))
        clock.now += 200
        assert state.to_dict()["voxels_per_second"]["now"] > 0.1
        clock.now -= 200


def test_devices_are_busy_by_the_seconds_that_blocks_computed() -> None:
    clock = Hands()
    state = PassState("Test", GRID, range(len(GRID)), one_by_one=True, clock=clock)
    other = PassState("Test", GRID, range(len(GRID)), clock=clock)
    for one in (state, other):
        one.see(2, 6, [])
    clock.now += 10
    for one in (state, other):
        one.see(4, 8, [])
        one.advance(GRID[0], report(GRID[0], compute=30.0))
    clock.now += 10
    assert state.to_dict()["busy"] == pytest.approx(30 / (10 * 2 + 10 * 4))
    assert other.to_dict()["busy"] == pytest.approx(30 / (10 * 6 + 10 * 8))
    state.finish()
    clock.now += 1000
    assert state.to_dict()["busy"] == pytest.approx(30 / 60)
    assert state.to_dict()["seconds"]["elapsed"] == 20


def test_a_million_blocks_are_a_byte_each_and_drawn() -> None:
    grid = BlockGrid((6400, 51200, 51200), (64, 512, 512))
    state = PassState("Test", grid, range(300_000, 1_000_000))
    assert state.states.nbytes == len(grid) == 1_000_000
    state.advance(grid[500_123], "broken")
    image = draw_map(state)
    assert image.width <= WIDTH
    assert image.height <= HEIGHT
    assert pixels_of(image, COLOURS[FAILED]) >= 40, "one in a million is seen"


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 1), (50, 300, 700), (5000, 1, 1), (1, 1, 90)])
def test_cells_count_every_block(shape: tuple[int, int, int]) -> None:
    states = np.full(shape, MISSING, np.uint8)
    states[: shape[0] // 2] = DONE
    states[-1, -1, -1] = FAILED
    cells, depth = bin_states(states)
    assert cells.size // 4 <= CELLS
    assert len(cells) == -(-shape[0] // depth)
    if cells.size // 4 == states.size:
        expected = [COLOURS[state] for state in states.ravel().tolist()]
        np.testing.assert_array_equal(cells[..., :3].reshape(-1, 3), expected)
    assert tuple(cells[-1, -1, -1]) == (*COLOURS[FAILED], 255)
    assert (cells[..., 3] > 0).all()


def test_what_is_not_of_a_pass_is_not_drawn() -> None:
    states = np.full((1, 2, 2), ABSENT, np.uint8)
    states[0, 0, 0] = DONE
    cells, _ = bin_states(states)
    assert cells[..., 3].tolist() == [[[255, 0], [0, 0]]]


def test_labels_of_metrics_are_escaped_and_unknown_values_left_out() -> None:
    text = metrics_text(Watch("label", 'a "b"\\c\nd.zarr').to_dict())
    assert 'output="a \\"b\\"\\\\c\\nd.zarr"' in text
    line = r'(# (HELP|TYPE) .*|tilenet_\w+\{(\w+="([^"\\\n]|\\.)*",?)*\} [0-9.e+-]+)'
    assert all(re.fullmatch(line, one) for one in text.splitlines())
    assert "tilenet_left_seconds{" in text
    assert "tilenet_busy_ratio{" not in text


@pytest.mark.parametrize(
    ("output", "part", "place"),
    [
        ("a/out.zarr", None, "a/out.zarr.report.json"),
        ("~/out.zarr", None, "~/out.zarr.report.json"),
        ("file:///a/my%20out.zarr", None, "/a/my out.zarr.report.json"),
        ("a/out.zarr/", "3/20", "a/out.zarr.part-3-of-20.report.json"),
        ("file:///a/out.zarr", None, "/a/out.zarr.report.json"),
        ("s3://bucket/deep/out.zarr", None, "s3-bucket-deep-out.zarr.report.json"),
        (
            "https://me:secret@host/out.zarr/?token=x",
            "1/2",
            "https-host-out.zarr.part-1-of-2.report.json",
        ),
    ],
)
def test_a_report_lies_beside_its_output(output: str, part: str | None, place: str) -> None:
    assert report_place(output, part).absolute() == Path(place).expanduser().absolute()


def run_in_process(output: str, bad: Box | None) -> Summary:
    def task(box: Box) -> BlockReport:
        if box == bad:
            raise InvalidData("Block", "is bad", "Mend it.")
        return report(box, read=0.25, compute=0.5)

    watch, missing = Watch("ingest", output), range(10, len(GRID))
    with watch.reporter("Ingest", GRID, missing) as reporter:
        options = RunOptions(name="ingest", reporter=reporter, retries=2)
        outcome = run_in_loop(task, (GRID[n] for n in missing), options)
    return Summary("ingest", output, len(GRID), 10, outcome, watch)


def test_a_run_without_a_cluster_is_reported_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run_in_process(str(tmp_path / "out.zarr"), GRID[20])
    with pytest.raises(BlocksFailed):
        summary.finish()
    assert f"Report: {tmp_path / 'out.zarr.report.json'}" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {
        "out.zarr.report.json", "out.zarr.report.png",
    }  # fmt: skip
    assert summary.watch is not None
    (state,) = summary.watch.passes
    told = state.to_dict()
    assert (told["blocks"]["retried"], told["blocks"]["failed"]) == (2, 1)
    assert told["last_retry"] == f"{GRID[20]}: Block: is bad. Mend it."
    assert told["blocks"]["done"] == summary.outcome.computed == len(GRID) - 11
    assert summary.to_dict()["retried"] == 2
    assert str(summary).endswith(", 2 tried again")


@pytest.mark.parametrize(("stored", "stays"), [(None, True), (len(GRID), True), (3, False)])
def test_nothing_to_do_leaves_the_report_of_the_run_that_did_it(
    tmp_path: Path, stored: int | None, stays: bool
) -> None:
    place = tmp_path / "out.zarr.report.json"
    counts = {"stored": stored, "blocks": len(GRID)}
    text = "of the first run" if stored is None else json.dumps({"summary": counts})
    place.write_text(text)
    watch = Watch("ingest", str(tmp_path / "out.zarr"))
    with watch.reporter("Ingest", GRID, []) as reporter:
        options = RunOptions(name="ingest", reporter=reporter)
        outcome = run_in_loop(report, iter([]), options)
    assert Summary("ingest", watch.output, len(GRID), len(GRID), outcome, watch).finish() == 0
    assert (place.read_text() == text) == stays


def test_a_report_that_cannot_be_written_does_not_fail_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no").touch()
    summary = run_in_process(str(tmp_path / "no" / "folder" / "out.zarr"), None)
    assert summary.finish() == 0
    assert "The report could not be written: " in capsys.readouterr().err


def test_a_report_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    summary = run_in_process(str(tmp_path / "out.zarr"), None)
    assert summary.watch is not None
    # A folder of that name cannot be replaced by a file.
    (tmp_path / "out.zarr.report.json").mkdir()
    with pytest.raises(OSError, match=r"report\.json"):
        write_report(summary.watch, summary.to_dict())
    assert {path.name for path in tmp_path.iterdir()} == {
        "out.zarr.report.json", "out.zarr.report.png",
    }  # fmt: skip


def test_a_block_that_is_lost_is_not_claimed(tmp_path: Path) -> None:
    location = str(tmp_path / "out.zarr")
    create_volume(location, NEW)
    blocks, volume = list(BlockGrid(NEW.shape, NEW.shard))[:6], reopen_for_writing(location)
    todo, outcome = range(2, 6), Outcome(seconds={"wall": 1.0})
    for n, box in enumerate(blocks):
        if n in (0, 2, 3):  # 1, of an earlier run, is gone; so are 4 and 5
            volume.write(box, np.ones(box.shape, NEW.dtype))
        if n in todo:
            outcome.add(report(box), keep=False)
    check_stored(location, blocks, todo, outcome)
    summary = Summary("ingest", location, len(blocks), 2, outcome)
    assert "3 of 6 blocks stored, 2 of them now" in str(summary)
    told = summary.to_dict()
    assert told["computed"] == 2
    assert [one["box"] for one in told["failed"]] == [str(blocks[n]) for n in (1, 4, 5)]
    assert outcome.voxels == sum(blocks[n].size for n in (2, 3))
    with pytest.raises(BlocksFailed):
        summary.finish()
