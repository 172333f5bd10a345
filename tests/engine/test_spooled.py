"""Tables of blocks are folded on disk: the client's memory does not grow with their number."""

from __future__ import annotations

import random
import tracemalloc
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.cluster import ClusterOptions
from pipelines.engine import Outcome, open_runner
from pipelines.engine.spooled import SpooledReports
from pipelines.evaluate import Judgement, check_comparison, run_evaluation
from pipelines.evaluate.command import FOLD
from tests.support.faults import small_disk
from tests.support.runs import store_volume
from tilenet.errors import InvalidData
from tilenet.geometry import ZYX, BlockGrid, Box
from tilenet.labels import LabelRule, join
from tilenet.labels.components import (
    BlockComponents,
    block_components,
    extend,
)
from tilenet.metrics import PairTable
from tilenet.metrics.pair_table import _pooled
from tilenet.volumes import ValueRange, VolumeReference
from tilenet.worker import BlockReport

SHAPE: ZYX = (16, 32, 32)
GRID = BlockGrid(SHAPE, (4, 8, 8))
RULE = LabelRule(connectivity=6)


class Alive:
    """Arrays that something holds; tables of theirs cannot be referred to weakly."""

    def __init__(self) -> None:
        self.arrays = list[weakref.ref[Any]]()

    def add(self, values: Any) -> None:
        self.arrays.append(weakref.ref(values))

    def __len__(self) -> int:
        return sum(array() is not None for array in self.arrays)


def components(values: Any, box: Box) -> BlockComponents:
    inside = values[extend(box, SHAPE, RULE).slices]
    return block_components(inside, box, SHAPE, RULE)[1]


@pytest.fixture
def values() -> Any:
    return np.random.default_rng(0).random(SHAPE) > 0.6


def test_reports_are_given_in_the_order_of_the_blocks_and_again(values: Any) -> None:
    reports = [BlockReport(box, {}, components(values, box)) for box in GRID]
    arrived = random.Random(0).sample(reports, len(reports))
    with SpooledReports() as spooled:
        outcome = Outcome(reports=spooled)
        for report in arrived:
            outcome.add(report, keep=True)
        assert len(outcome.reports) == len(GRID)
        for _ in range(2):
            assert [report.box for report in spooled] == list(GRID)
        table, expected = join(spooled.values), join([report.value for report in reports])
    np.testing.assert_array_equal(table.ids, expected.ids)
    np.testing.assert_array_equal(table.offsets, expected.offsets)
    assert table.count == expected.count
    with SpooledReports() as none:
        assert list(none) == []
        assert join(none.values).count == 0


def test_a_command_that_collects_values_holds_no_table_per_block(values: Any) -> None:
    alive, held = Alive(), list[int]()

    def task(box: Box) -> BlockReport:
        held.append(len(alive))
        found = components(values, box)
        alive.add(found.first)
        return BlockReport(box, {}, found)

    def add(before: None, blocks: Iterable[Any]) -> Any:
        held.append(len(alive))
        return join(blocks)

    with open_runner(ClusterOptions(), command="label", output="", small=True) as runner:
        found = runner.fold("Components", task, GRID, add)
    assert len(held) == len(GRID) + 1
    assert max(held) <= 1  # the engine's last one, while the next is computed
    expected = join([components(values, box) for box in GRID])
    np.testing.assert_array_equal(found.ids, expected.ids)


BLOCKS, ENTRIES, LOADED = 4_000, 25, 2**20


def table(n: int) -> BlockComponents:
    first = np.arange(ENTRIES, dtype=np.int64) + n * ENTRIES
    labels = np.arange(1, 5, dtype=np.uint32)
    return BlockComponents(first, first[:4], labels, np.ones_like(first), ValueRange(1, 1))


def test_memory_of_a_join_is_that_of_its_arrays() -> None:
    ids = 8 * BLOCKS * ENTRIES
    join([table(0)])  # loads SciPy
    tracemalloc.start()
    try:
        with SpooledReports() as spooled:
            for n in range(BLOCKS):
                spooled.append(BlockReport(Box((n, 0, 0), (n + 1, 1, 1)), {}, table(n)))
            kept = tracemalloc.get_traced_memory()[0]
            assert join(spooled.values).count == BLOCKS * ENTRIES
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Reports would be a kilobyte each and more; buffers and what is loaded are not theirs.
    assert kept < 64 * BLOCKS + LOADED
    # What the join works on: first voxels, those in order, ids, and so on.
    assert peak < kept + 9 * ids + LOADED


def tables() -> Iterator[PairTable]:
    rng = np.random.default_rng(0)
    return (PairTable.of(*rng.integers(0, 12, (2, 400), dtype=np.int32)) for _ in range(60))


def test_pooled_tables_are_added_up_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilenet.metrics.pair_table.POOLED_ROWS", 500)
    alive, most = Alive(), 0
    expected = _pooled(list(tables()))

    def counted() -> Iterator[PairTable]:
        nonlocal most
        for one in tables():
            alive.add(one.true)
            most = max(most, len(alive))
            yield one

    found = PairTable.pooled(counted())
    for name in ("true", "proposed", "voxels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert most <= 6


def test_an_evaluation_holds_no_table_per_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (4, 64, 64)
    instances = np.random.default_rng(0).integers(1, 9, shape, dtype=np.uint16)
    first, second = (
        store_volume(tmp_path / name, instances, chunk=(1, 8, 8), kind="instances")
        for name in ("a.zarr", "b.zarr")
    )
    alive, held, keep = Alive(), list[int](), SpooledReports.append

    def listening(self: SpooledReports, report: BlockReport) -> None:
        held.append(len(alive))
        alive.add(report.value.table.true)
        keep(self, report)

    monkeypatch.setattr(SpooledReports, "append", listening)
    wanted = Judgement(segmentation=True, figures=("volume",))
    comparison = check_comparison(VolumeReference(first), VolumeReference(second), wanted)
    results = run_evaluation(comparison, ClusterOptions())
    assert results.adapted_rand is not None
    assert results.adapted_rand.error == 0
    assert len(held) == FOLD
    assert max(held) <= 1


def test_a_temporary_folder_without_room_is_named(tmp_path: Path) -> None:
    # Buffered by Python: a report that is larger than its buffer is written at once.
    with small_disk(tmp_path / "small", "64k") as disk, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(disk))
        with (
            SpooledReports() as reports,
            pytest.raises(InvalidData, match=r"small: cannot hold what .*No space left .*TMPDIR"),
        ):
            reports.append(BlockReport(Box((0, 0, 0), (1, 1, 1)), {}, bytes(2**20)))
