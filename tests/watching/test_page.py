"""The page of a run: what a live run on a real cluster shows of itself."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from pipelines.engine import Outcome, RunOptions, run_on_cluster
from pipelines.outputs import Summary
from pipelines.watching import Watch, open_watch
from pipelines.watching.block_map import DONE, DONE_BEFORE, FAILED, NAMES
from pipelines.watching.pass_state import PassState
from pipelines.watching.picture import COLOURS, map_png, on_white
from pipelines.watching.report import report_place
from tests.support.browser import CHROMIUM, Page, pixels_of, screenshot
from tilenet._version import __version__
from tilenet.errors import InvalidData
from tilenet.geometry import BlockGrid, Box
from tilenet.worker import BlockReport

pytestmark = pytest.mark.cluster

GRID = BlockGrid((4, 60, 80), (2, 20, 20))
BEFORE, SKIPS, BAD, SLOTS = 3, 5, 14, 4
SECONDS = {"read": 0.25, "compute": 0.5, "write": 0.125, "wait": 0.125}

#: Leaves a mark if it becomes an element, and another if its script runs.
EVIL = '<img src=x class=evil onerror="document.body.className=1">'


@dataclasses.dataclass(frozen=True)
class Gated:
    """Finishes the first blocks of the grid, as many as a file says, and holds the others."""

    folder: str

    def __call__(self, box: Box) -> BlockReport:
        number = next(n for n, block in enumerate(GRID) if block == box)
        while number >= int((Path(self.folder) / "gate").read_text()):
            time.sleep(0.02)
        if number == BAD:
            raise InvalidData(f"Block {box}", f"is bad {EVIL}", "Mend it.")
        return BlockReport(box, SECONDS, skipped=number == SKIPS)


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the page said at one moment."""

    status: dict[str, Any]
    metrics: str
    picture: Image.Image
    shown: Path | None
    page: Page | None

    @property
    def states(self) -> dict[str, int]:
        return {name: self.status["blocks"][name] for name in NAMES.values()}


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as answer:
        content: bytes = answer.read()
        return content


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class LiveRun:
    """A run whose blocks finish when they are told to."""

    def __init__(self, client: Client, watch: Watch, folder: Path) -> None:
        self.client, self.watch, self.folder = client, watch, folder
        self.outcome = Outcome()
        self.open_gate(0)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def open_gate(self, count: int) -> None:
        # A worker must never read half of it.
        (self.folder / "next").write_text(str(count))
        (self.folder / "next").rename(self.folder / "gate")

    def _run(self) -> None:
        missing = range(BEFORE, len(GRID))
        with self.watch.reporter("Predict", GRID, missing, one_by_one=True) as reporter:
            options = RunOptions(name="predict", reporter=reporter, retries=0)
            blocks = (GRID[n] for n in missing)
            task = Gated(str(self.folder))
            self.outcome = run_on_cluster(task, blocks, options, client=self.client)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(get(f"{self.watch.address}/status.json"))
        return status

    def stage(self, gate: int, running: int, name: str) -> Stage:
        """Let blocks finish, wait until the page knows it, and look at it."""
        self.open_gate(gate)
        wanted = {"missing": len(GRID) - max(gate, BEFORE) - running, "running": running}
        wait_until(lambda: wanted.items() <= self.status()["blocks"].items())
        shown = page = None
        if CHROMIUM is not None:
            page = screenshot(self.watch.address, shown := self.folder / f"{name}.png")
        picture = Image.open(io.BytesIO(get(f"{self.watch.address}/map.png")))
        metrics = get(f"{self.watch.address}/metrics").decode()
        return Stage(self.status(), metrics, picture, shown, page)


@pytest.fixture(scope="module")
def stages(client: Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run at its start, in the middle, with a failure, and at its end."""
    folder = Path(os.environ.get("TILENET_SHOTS") or tmp_path_factory.mktemp("page"))
    output = str(folder / "out.zarr")
    with open_watch("predict", output, client) as watch:
        run = LiveRun(client, watch, folder)
        try:
            found: dict[str, Any] = {"run": run}
            found["start"] = run.stage(0, SLOTS, "start")
            found["middle"] = run.stage(12, SLOTS, "middle")
            found["failure"] = run.stage(18, SLOTS, "failure")
            if CHROMIUM is not None:
                screenshot(watch.address, folder / "phone.png", (400, 1900))
            found["end"] = run.stage(len(GRID), 0, "end")
        finally:
            run.open_gate(len(GRID))
            run.thread.join()
    return found


def test_the_page_follows_a_run(stages: dict[str, Any]) -> None:
    expected = {
        "start": {"done": 0, "skipped": 0, "failed": 0, "running": SLOTS},
        "middle": {"done": 12 - BEFORE - 1, "skipped": 1, "failed": 0, "running": SLOTS},
        "failure": {"done": 18 - BEFORE - 2, "skipped": 1, "failed": 1, "running": SLOTS},
        "end": {"done": len(GRID) - BEFORE - 2, "skipped": 1, "failed": 1, "running": 0},
    }
    for name, counts in expected.items():
        stage = stages[name]
        assert {**counts, "done_before": BEFORE}.items() <= stage.states.items(), name
        assert sum(stage.states.values()) == stage.status["blocks"]["total"] == len(GRID)
        computed = stage.states["done"] + stage.states["skipped"]
        assert stage.status["voxels"]["computed"] == computed * GRID[0].size
        waiting = stage.states["missing"] + stage.states["running"]
        assert stage.status["voxels"]["left"] == waiting * GRID[0].size
        phases = {phase: computed * seconds for phase, seconds in SECONDS.items()}
        assert phases.items() <= stage.status["seconds"].items()


def test_the_page_tells_workers_rates_and_failures(stages: dict[str, Any]) -> None:
    start, failure, end = (stages[name].status for name in ("start", "failure", "end"))
    assert start["workers"]["count"] == len(start["workers"]["list"]) == 2
    assert start["workers"]["slots"] == start["workers"]["running"] == SLOTS
    assert all(worker["memory"] > 2**20 for worker in start["workers"]["list"])
    assert (start["seconds"]["left"], start["busy"]) == (None, None)
    assert failure["voxels_per_second"]["overall"] > 0
    assert failure["seconds"]["left"] > 0
    assert 0 < failure["busy"] <= 1
    assert failure["failures"] == end["failures"]
    assert [one["box"] for one in end["failures"]] == [str(GRID[BAD])]
    assert EVIL in end["failures"][0]["error"]
    assert (end["seconds"]["left"], end["finished"], start["finished"]) == (0.0, True, False)


def test_the_map_shows_every_state(stages: dict[str, Any]) -> None:
    for name in ("start", "middle", "failure", "end"):
        stage, found = stages[name], {}
        for state, colour in COLOURS.items():
            found[NAMES[state]] = pixels_of(stage.picture, colour)
        cell = sum(found.values()) // len(GRID)
        blocks = {state: round(pixels / cell) for state, pixels in found.items()}
        assert blocks == stage.states, name


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_the_map(stages: dict[str, Any]) -> None:
    # The legend has a square of 11 x 11 for every state, so a block must be more than that.
    block = 20 * 20
    for name in ("start", "middle", "failure", "end"):
        stage = stages[name]
        for state in COLOURS:
            number = stage.states[NAMES[state]]
            pixels = pixels_of(stage.shown, on_white(state))
            assert pixels >= number * block, (name, NAMES[state])
            assert number or pixels < block, (name, NAMES[state])


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_rates_phases_failures_and_workers(stages: dict[str, Any]) -> None:
    page = stages["failure"].page
    text = page.text
    assert text["state"] == "running, 1 failed"
    assert text["blocks"] == f"{18 - 1} of {len(GRID)} blocks stored"
    assert re.fullmatch(r"[\d.]+ [kMG]?voxel/s", text["now"])
    assert re.fullmatch(r"[\d.]+ [kMG]?voxel/s overall", text["overall"])
    assert re.fullmatch(r"\d+:\d\d:\d\d", text["left"])
    assert re.fullmatch(r"\d+:\d\d:\d\d", text["elapsed"])
    assert page.rows("phases") == [
        ["read", "25.0 %", "250 ms", "3.50 s"],
        ["compute", "50.0 %", "500 ms", "7.00 s"],
        ["write", "12.5 %", "125 ms", "1.75 s"],
        ["wait for the device", "12.5 %", "125 ms", "1.75 s"],
    ]
    (failure,) = page.rows("failures")
    assert failure == [str(GRID[BAD]), stages["failure"].status["failures"][0]["error"]]
    workers = page.rows("workers")
    assert len(workers) == 2
    for name, blocks, memory, cpu in workers:
        assert (blocks, bool(name)) == ("2 of 2", True)
        assert re.fullmatch(r"\d+ MiB of [\d.]+ GiB", memory)
        assert re.fullmatch(r"\d+ %", cpu)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_message_is_text_and_not_part_of_the_page(stages: dict[str, Any]) -> None:
    page = stages["failure"].page
    assert EVIL in page.text["failures"]
    assert [known.get("id") for tag, known in page.elements if tag == "img"] == ["map"]
    assert [known for tag, known in page.elements if tag == "body"] == [{}]


def test_prometheus_reads_the_metrics(stages: dict[str, Any]) -> None:
    for name in ("start", "middle", "failure", "end"):
        stage = stages[name]
        found = {
            (sample.name, *(v for k, v in sample.labels.items() if k != "pass")): sample.value
            for family in text_string_to_metric_families(stage.metrics)
            for sample in family.samples
        }
        for state, number in stage.states.items():
            assert found["tilenet_blocks", state] == number
        voxels = stage.status["voxels"]["computed"]
        assert found["tilenet_voxels_total",] == voxels
        for phase, seconds in SECONDS.items():
            expected = seconds * voxels / GRID[0].size
            assert found["tilenet_phase_seconds_total", phase] == expected
        assert found["tilenet_workers",] == 2
        assert ("tilenet_busy_ratio",) in found or name == "start"
    output = stages["run"].watch.output
    assert found["tilenet_info", "predict", output, __version__] == 1


def test_the_report_and_its_picture_equal_the_summary(stages: dict[str, Any]) -> None:
    run: LiveRun = stages["run"]
    summary = Summary("predict", run.watch.output, len(GRID), BEFORE, run.outcome, run.watch)
    with pytest.raises(Exception, match="1 of 24 blocks failed"):
        summary.finish()
    place = report_place(run.watch.output)
    report = json.loads(place.read_text())
    assert report["summary"] == json.loads(json.dumps(summary.to_dict()))
    (state,) = report["passes"]
    assert state["blocks"] == stages["end"].status["blocks"]
    assert state["blocks"]["done"] + state["blocks"]["skipped"] == summary.outcome.computed
    assert state["voxels"]["computed"] == summary.outcome.voxels
    for phase in SECONDS:
        assert state["seconds"][phase] == summary.outcome.seconds[phase]
    assert [one["box"] for one in state["failures"]] == [
        one["box"] for one in report["summary"]["failed"]
    ]
    picture = Image.open(place.parent / report["picture"])
    assert all(pixels_of(picture, COLOURS[state]) for state in (DONE, FAILED, DONE_BEFORE))


def test_dashboards_listen_on_loopback(client: Client) -> None:
    pages = list(client.run(lambda dask_worker: dask_worker.http_server.address).values())
    ours = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.http_server.address)
    assert [*pages, ours] == ["127.0.0.1"] * 3


def test_there_is_a_page_before_anything_runs_and_none_afterwards(client: Client) -> None:
    with open_watch("evaluate", "out.zarr", client) as watch:
        status = json.loads(get(f"{watch.address}/status.json"))
        assert (status["pass"], status["blocks"]["total"]) == ("Starting", 0)
        assert get(f"{watch.address}/") == get(watch.address)
        assert b"tilenet_info" in get(f"{watch.address}/metrics")
        assert Image.open(io.BytesIO(get(f"{watch.address}/map.png"))).size == (1, 1)
        assert get(watch.address.replace("/tilenet", "/health")) == b"ok", "Dask's are there too"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(watch.address)


def test_the_page_of_a_scheduler_that_is_not_ours(client: Client) -> None:
    with Client(client.scheduler.address) as joined:
        with open_watch("label", "s3://lab/out.zarr", joined, "127.0.0.1:0") as watch:
            assert watch.address.startswith("http://127.0.0.1:")
            with watch.reporter("Label", GRID, range(len(GRID))) as reporter:
                reporter.advance(GRID[0], BlockReport(GRID[0], SECONDS))
                status = json.loads(get(f"{watch.address}/status.json"))
                assert b"<title>tilenet</title>" in get(watch.address)
        assert (status["output"], status["blocks"]["done"]) == ("s3://lab/out.zarr", 1)
        assert status["workers"]["count"] == 2
        with pytest.raises(urllib.error.URLError):
            get(watch.address)


def test_one_drawing_serves_all_viewers_until_something_changes(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[PassState]()

    def counted(state: PassState) -> bytes:
        drawn.append(state)
        return map_png(state)

    monkeypatch.setattr("pipelines.watching.page.map_png", counted)
    with (
        open_watch("label", "out.zarr", client) as watch,
        watch.reporter("Label", GRID, range(len(GRID))) as reporter,
    ):
        for n in range(2):
            reporter.advance(GRID[n], BlockReport(GRID[n], SECONDS))
            with ThreadPoolExecutor(8) as viewers:
                seen = set(viewers.map(get, [f"{watch.address}/map.png"] * 8))
            assert len(seen) == 1
            assert len(drawn) == n + 1
            picture = Image.open(io.BytesIO(seen.pop()))
            found = [pixels_of(picture, colour) for colour in COLOURS.values()]
            assert pixels_of(picture, COLOURS[DONE]) * len(GRID) == (n + 1) * sum(found)


def test_a_scheduler_that_answers_nonsense_stops_no_run_and_is_said_once(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = list[Client]()

    def nonsense(client: Client) -> list[dict[str, Any]]:
        asked.append(client)
        return [{}]

    monkeypatch.setattr("pipelines.watching.watch.REFRESH_SECONDS", 0.01)
    monkeypatch.setattr("pipelines.watching.watch.list_workers", nonsense)
    with (
        open_watch("label", "out.zarr", client) as watch,
        watch.reporter("Label", GRID, range(len(GRID))) as reporter,
    ):
        reporter.advance(GRID[0], BlockReport(GRID[0], SECONDS))
        wait_until(lambda: len(asked) > 3)
        assert json.loads(get(f"{watch.address}/status.json"))["blocks"]["done"] == 1
    assert capsys.readouterr().err.count("The page shows no workers: KeyError") == 1
