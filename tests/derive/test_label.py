"""``tilenet label``: cc3d on the whole, on a loop and a cluster, and after interruptions."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from distributed import Client

from pipelines import cli
from pipelines.cluster import ClusterOptions
from pipelines.derive.label import run_label
from pipelines.derive.storage_options import StorageOptions
from pipelines.stopping import Stop, Stopped
from tests.labels.test_components import choose, slow_label
from tests.support.runs import files_below, store_volume
from tilenet.errors import BlocksFailed, NotEnoughMemory, ResumeRefused
from tilenet.geometry import ZYX, Box
from tilenet.labels import LabelRule, SizeRule
from tilenet.synthetic import synthetic_em
from tilenet.volumes import (
    ValueRange,
    VolumeReference,
    has_join,
    open_volume,
    read_join,
    replace_attributes,
    write_join,
)
from tilenet.volumes import join_tables as join_store

PLANAR, VOLUMETRIC = LabelRule(connectivity=4), LabelRule(connectivity=6)


@pytest.fixture(params=["loop", pytest.param("cluster", marks=pytest.mark.cluster)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run blocks in this process, or on the one cluster that all tests share."""
    client: Client | None = None
    if request.param == "cluster":
        client = request.getfixturevalue("client")
    monkeypatch.setattr(
        "pipelines.engine.runner.open_client", lambda *_: contextlib.nullcontext(client)
    )
    return str(request.param)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all blocks in this process."""
    monkeypatch.setattr(
        "pipelines.engine.runner.open_client", lambda *_: contextlib.nullcontext(None)
    )


def masks() -> npt.NDArray[np.uint8]:
    return np.asarray(synthetic_em((6, 60, 70), seed=1).cells)


def run_it(
    source: str | Path,
    output: str | Path,
    rule: LabelRule = VOLUMETRIC,
    *,
    shard: ZYX = (2, 32, 16),
    overwrite: bool = False,
    memory: int = 4 * 2**30,
) -> npt.NDArray[Any]:
    options = StorageOptions(chunk=(1, 16, 16), shard=shard, overwrite=overwrite)
    cluster = ClusterOptions(memory=memory)
    reference = VolumeReference(str(source))
    summary = run_label(reference, str(output), rule, options=options, cluster=cluster)
    assert not summary.outcome.failed
    return stored(output)


def stored(output: str | Path) -> npt.NDArray[Any]:
    volume = open_volume(str(output))
    return volume.read(Box.of_shape(volume.shape))


@pytest.mark.parametrize("connectivity", [4, 26])
@pytest.mark.parametrize("shard", [(2, 32, 16), (6, 64, 80)])
def test_it_equals_cc3d_on_the_whole(
    engine: str, tmp_path: Path, connectivity: int, shard: ZYX
) -> None:
    values, rule = masks(), LabelRule(connectivity=connectivity)
    source = store_volume(tmp_path / "masks.zarr", values)
    found = run_it(source, tmp_path / "out.zarr", rule, shard=shard)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, slow_label(values, rule))
    volume = open_volume(str(tmp_path / "out.zarr"))
    assert volume.voxel_size == (50.0, 4.0, 4.0)
    assert volume.attributes["instances"] == found.max()
    assert not has_join(str(tmp_path / "out.zarr")), "removed when all is stored"


def test_pieces_of_equal_value(loop: None, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 3, (4, 40, 40)).astype(np.uint16)
    source = store_volume(tmp_path / "masks.zarr", values)
    rule = LabelRule(connectivity=6, threshold=None)
    np.testing.assert_array_equal(
        run_it(source, tmp_path / "out.zarr", rule), slow_label(values, rule)
    )


def test_the_tables_work_behind_a_url(loop: None, tmp_path: Path) -> None:
    values = masks()
    source = store_volume(tmp_path / "masks.zarr", values)
    output = f"memory://label-{tmp_path.name}.zarr"
    np.testing.assert_array_equal(run_it(source, output), slow_label(values, VOLUMETRIC))
    assert not has_join(output)


def lose_blocks(output: Path) -> int:
    """Remove every third shard, as if the run had been killed."""
    shards = sorted(p for p in (output / "0" / "c").rglob("*") if p.is_file())
    for path in shards[::3]:
        path.unlink()
    return len(shards[::3])


@pytest.mark.parametrize("tables", ["kept", "lost", "half written"])
def test_a_run_goes_on_with_or_without_its_tables(
    loop: None, tmp_path: Path, tables: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = store_volume(tmp_path / "masks.zarr", masks()), tmp_path / "out.zarr"
    with pytest.MonkeyPatch.context() as patch:  # as if it had been killed
        patch.setattr("pipelines.derive.label.remove_join", lambda _: None)
        whole = run_it(source, output)
    lost = lose_blocks(output)
    if tables == "lost":
        shutil.rmtree(output / join_store.FOLDER)
    elif tables == "half written":
        (output / join_store.FOLDER / "offsets" / "c" / "0").unlink()
    capsys.readouterr()
    options = StorageOptions()  # shards are those that it was begun with
    summary = run_label(
        VolumeReference(source), str(output), VOLUMETRIC, options=options, cluster=ClusterOptions()
    )
    assert ("Components" in capsys.readouterr().err) == (tables != "kept")
    assert summary.outcome.computed == lost
    np.testing.assert_array_equal(stored(output), whole)
    assert not (output / join_store.FOLDER).exists()


def test_a_finished_output_is_left_alone_and_another_one_is_refused(
    loop: None, tmp_path: Path
) -> None:
    source, output = store_volume(tmp_path / "masks.zarr", masks()), tmp_path / "out.zarr"
    run_it(source, output)
    before = files_below(output)
    run_it(source, output)
    assert files_below(output) == before
    other = store_volume(tmp_path / "other.zarr", masks()[:, ::-1])
    with pytest.raises(ResumeRefused, match=r"rule\.connectivity"):
        run_it(source, output, LabelRule(connectivity=26))
    with pytest.raises(ResumeRefused, match=r"input\.stored_bytes"):
        run_it(other, output)
    with pytest.raises(ResumeRefused, match="shard"):
        run_it(source, output, shard=(1, 16, 16))
    assert files_below(output) == before
    found = run_it(other, output, overwrite=True)
    np.testing.assert_array_equal(found, slow_label(masks()[:, ::-1], VOLUMETRIC))


def test_masks_that_changed_between_the_passes_are_noticed(loop: None, tmp_path: Path) -> None:
    source, output = store_volume(tmp_path / "masks.zarr", masks()), tmp_path / "out.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.derive.label.remove_join", lambda _: None)
        run_it(source, output)
    lose_blocks(output)
    offsets = np.array([0, *itertools.accumulate([99] * 60)])
    write_join(str(output), np.ones(offsets[-1], np.uint32), offsets)
    options, cluster = StorageOptions(), ClusterOptions()
    reference = VolumeReference(source)
    summary = run_label(reference, str(output), VOLUMETRIC, options=options, cluster=cluster)
    assert "changed while they were labelled" in summary.outcome.failed[0][1]
    assert has_join(str(output))


def test_a_block_that_cannot_be_read_ends_the_first_pass_and_nothing_is_written(
    loop: None, tmp_path: Path
) -> None:
    source = store_volume(tmp_path / "masks.zarr", masks())
    chunk = next(p for p in (tmp_path / "masks.zarr" / "0" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(b"rubbish")
    with pytest.raises(BlocksFailed, match="blocks failed"):
        run_it(source, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_a_signal_in_the_first_pass_leaves_nothing(
    loop: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = store_volume(tmp_path / "masks.zarr", masks())
    stopped = contextlib.nullcontext(Stop(signal=15))
    monkeypatch.setattr("pipelines.engine.runner.stop_on_signals", lambda: stopped)
    with pytest.raises(Stopped):
        run_it(source, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_tables_are_read_block_by_block(tmp_path: Path) -> None:
    output = store_volume(tmp_path / "out.zarr", masks())
    ids = np.arange(1, 8, dtype=np.uint64)
    write_join(output, ids, np.array([0, 3, 3, 7]))
    assert has_join(output)
    assert [read_join(output, i).tolist() for i in range(3)] == [[0, 1, 2, 3], [0], [0, 4, 5, 6, 7]]
    write_join(output, ids[:0], np.array([0, 0]))
    assert read_join(output, 0).tolist() == [0]


def test_a_shard_that_does_not_fit_is_refused_and_a_chosen_one_is_halved(
    loop: None, tmp_path: Path
) -> None:
    source = store_volume(
        tmp_path / "masks.zarr", np.zeros((40, 600, 600), np.uint8), chunk=(40, 300, 300)
    )
    with pytest.raises(NotEnoughMemory, match="A shard of"):
        run_it(source, tmp_path / "out.zarr", shard=(40, 608, 608), memory=600 * 2**20)
    cluster = ClusterOptions(memory=600 * 2**20)
    reference, options = VolumeReference(source), StorageOptions()
    run_label(reference, str(tmp_path / "out.zarr"), PLANAR, options=options, cluster=cluster)
    assert open_volume(str(tmp_path / "out.zarr")).write_shape == (16, 256, 512)


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("4 is within a section. Add --per-section", ("masks.zarr", "--connectivity", "4")),
        ("6 is in 3-D", ("masks.zarr", "--connectivity", "6", "--per-section")),
        ("--threshold: contradicts --by-value", ("masks.zarr", "--by-value", "--threshold", "3")),
        ("--invert: contradicts --by-value", ("masks.zarr", "--by-value", "--invert")),
        ("--threshold: is nan", ("masks.zarr", "--threshold", "nan")),
        ("are of type float32", ("real.zarr", "--by-value")),
        ("has 2 channels", ("two.zarr",)),
        ("exists and is a Zarr group", ("real.zarr", "OUTPUT=masks.zarr")),
        ("inside one another", ("masks.zarr", "OUTPUT=masks.zarr/new.zarr")),
        ("Codec 'nothing'", ("masks.zarr", "--codec", "nothing")),
        ("whole chunks", ("masks.zarr", "--chunk", "2,16,16", "--shard", "3,16,16")),
        ("does not exist", ("none.zarr",)),
        ("NaN or infinite", ("nan.zarr",)),
    ],
)
def test_bad_input_gets_its_message_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: str, arguments: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    values = masks()[:2]
    store_volume(tmp_path / "masks.zarr", values)
    store_volume(tmp_path / "real.zarr", values.astype(np.float32))
    store_volume(tmp_path / "nan.zarr", np.full((2, 8, 8), np.nan, np.float32))
    store_volume(tmp_path / "two.zarr", np.stack([values, values]))
    before = files_below(tmp_path)
    output = [a.removeprefix("OUTPUT=") for a in arguments if a.startswith("OUTPUT=")]
    rest = [a for a in arguments[1:] if not a.startswith("OUTPUT=")]
    code = cli.run(["label", arguments[0], *(output or ["new.zarr"]), *rest])
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert words in err
    assert files_below(tmp_path) == before


def test_the_command_says_how_many_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = store_volume(tmp_path / "masks.zarr", masks())
    assert cli.run(["label", source, str(tmp_path / "out.zarr"), "--per-section"]) == 0
    count = stored(tmp_path / "out.zarr").max()
    assert f"{count:,} instances" in capsys.readouterr().err


@pytest.mark.usefixtures("loop")
def test_masks_of_membranes_are_labelled_inverted(tmp_path: Path) -> None:
    cells = store_volume(tmp_path / "cells.zarr", masks())
    membranes = store_volume(tmp_path / "membranes.zarr", 255 - masks())
    expected = run_it(cells, tmp_path / "out.zarr", PLANAR)
    rule = LabelRule(connectivity=4, invert=True)
    np.testing.assert_array_equal(run_it(membranes, tmp_path / "same.zarr", rule), expected)
    assert expected.max() > 10
    output = str(tmp_path / "again.zarr")
    assert cli.run(["label", membranes, output, "--per-section", "--invert"]) == 0
    np.testing.assert_array_equal(stored(output), expected)


def prediction(path: Path, values: npt.NDArray[Any], activation: str = "softmax") -> str:
    """Store values as `predict` would, as far as `label` asks."""
    location = store_volume(path, values, kind="prediction")
    said = {"kind": "prediction", "output": {"activation": activation}}
    replace_attributes(location, said)
    return location


GREY = np.array([[[0, 26, 127, 128, 0, 229, 230, 255]]], np.uint8)


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize(
    ("options", "ours", "expected"),
    [
        ((), True, [0, 0, 0, 1, 0, 2, 2, 2]),  # p > 0.5 is above 127
        (("--threshold", "0"), True, [0, 1, 1, 1, 0, 2, 2, 2]),
        (("--threshold", "0.9"), True, [0, 0, 0, 0, 0, 0, 1, 1]),  # 229 / 255 is 0.898
        (("--threshold", "0.1", "--invert"), True, [1, 1, 1, 1, 1, 1, 0, 0]),  # 1 - p > 0.1
        (("--threshold", "0.9", "--invert"), True, [1, 0, 0, 0, 2, 0, 0, 0]),
        (("--threshold", "0.5"), False, [0, 0, 0, 1, 0, 2, 2, 2]),
        (("--raw-threshold", "26"), True, [0, 0, 1, 1, 0, 2, 2, 2]),
        (("--raw-threshold", "0"), False, [0, 1, 1, 1, 0, 2, 2, 2]),
        (("--raw-threshold", "229.5"), False, [0, 0, 0, 0, 0, 0, 1, 1]),
    ],
)
def test_thresholds_are_probabilities_or_stored_values(
    tmp_path: Path, options: tuple[str, ...], ours: bool, expected: list[int]
) -> None:
    output = str(tmp_path / "out.zarr")
    for values in (GREY, (GREY / np.float32(255)).astype(np.float32)):
        if values.dtype == np.float32 and "--raw-threshold" in options:
            continue
        source = tmp_path / f"{values.dtype}.zarr"
        path = prediction(source, values) if ours else store_volume(source, values)
        assert cli.run(["label", path, output, *options, "--overwrite"]) == 0
        assert stored(output).ravel().tolist() == expected


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize(
    ("values", "ours", "options", "said"),
    [
        (GREY, False, (), "hold several values beside 0 (26 and 255 among them)"),
        (GREY, False, (), "Give --threshold 0.5 if they are probabilities, --raw-threshold V"),
        (GREY / 255.0, False, (), "hold several values beside 0"),
        (GREY, True, ("--threshold", "127"), "--threshold 127: is no probability"),
        (GREY, True, ("--threshold", "1"), "give --raw-threshold 1"),
        (GREY, False, ("--threshold", "-0.5"), "give --raw-threshold -0.5"),
        (GREY, True, ("--threshold", "0.5", "--raw-threshold", "1"), "contradicts --threshold"),
        (GREY, True, ("--raw-threshold", "inf"), "--raw-threshold: is inf"),
        (GREY.astype(np.uint16), False, ("--threshold", "0.5"), "holds uint16 values"),
        (GREY // 255, False, ("--threshold", "0.5"), "hold only 0 and 1"),
        (GREY / 2.0, False, ("--threshold", "0.5"), "hold values from 13 to 127.5"),
        (-(GREY > 9).astype(np.int8), False, (), "hold -1, and foreground is what is above 0"),
        (GREY / 9.0, None, (), "holds scores without bounds"),
        (GREY, False, ("--by-value", "--raw-threshold", "3"), "contradicts --by-value"),
        (GREY, True, ("--min-size", "4", "--max-size", "3"), "--max-size: is 3"),
    ],
)
@pytest.mark.parametrize("seen", ["before the work", "in the first pass"])
def test_masks_whose_values_say_something_else_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    values: npt.NDArray[Any], ours: bool | None, options: tuple[str, ...], said: str, seen: str,
) -> None:  # fmt: skip
    if seen == "in the first pass":
        monkeypatch.setattr("pipelines.derive.label.sampled_range", lambda _: ValueRange())
    path, output = tmp_path / "masks.zarr", tmp_path / "out.zarr"
    if ours is False:
        store_volume(path, values)
    else:
        prediction(path, values, "softmax" if ours else "linear")
    assert cli.run(["label", str(path), str(output), *options]) == 1
    assert said in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.usefixtures("loop")
def test_masks_of_any_one_value_and_instances_need_no_threshold(tmp_path: Path) -> None:
    output = str(tmp_path / "out.zarr")
    for values in (
        masks() > 0,
        (masks() > 0).astype(np.float32),
        7 * (masks() // 255),
        0 * masks(),
    ):
        source = store_volume(tmp_path / "masks.zarr", np.asarray(values))
        assert cli.run(["label", source, output, "--overwrite"]) == 0
        np.testing.assert_array_equal(stored(output), slow_label(values, VOLUMETRIC))
        shutil.rmtree(source)
    ids = store_volume(tmp_path / "ids.zarr", slow_label(masks(), PLANAR).astype(np.uint32))
    replace_attributes(ids, {"kind": "instances"})
    assert cli.run(["label", ids, output, "--overwrite"]) == 0
    np.testing.assert_array_equal(stored(output), slow_label(masks(), VOLUMETRIC))


@pytest.mark.usefixtures("loop")
def test_what_was_begun_by_a_stored_threshold_goes_on_under_the_probability(
    tmp_path: Path,
) -> None:
    # As version 0.1.0 stored it: the rule holds no sizes, and 127 is p = 0.5.
    source = prediction(tmp_path / "masks.zarr", np.repeat(GREY, 32, axis=1))
    output = tmp_path / "out.zarr"
    assert cli.run(["label", source, str(output), "--raw-threshold", "127"]) == 0
    rule = open_volume(str(output)).attributes["rule"]
    assert rule == {
        "connectivity": 6, "threshold": 127.0, "invert": False, "per_section": False,
    }  # fmt: skip
    whole = stored(output)
    lose_blocks(output)
    assert cli.run(["label", source, str(output)]) == 0
    np.testing.assert_array_equal(stored(output), whole)


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("invert", [False, True])
def test_what_was_begun_with_floats_goes_on_under_the_number_that_it_states(
    tmp_path: Path, invert: bool
) -> None:
    # Version 0.1.0 compared in the type of the masks, to which 0.3 is 0.30004883.
    values = np.arange(614, 617, dtype=np.float16).reshape(1, 1, 3) / np.float16(2048)
    values = np.tile(values, (1, 256, 86))
    source, output = store_volume(tmp_path / "masks.zarr", values), tmp_path / "out.zarr"
    more = ("--invert",) * invert
    assert cli.run(["label", source, str(output), "--raw-threshold", "0.3", *more]) == 0
    whole = stored(output)
    np.testing.assert_array_equal(whole > 0, (values > 0.3) != invert)
    lose_blocks(output)
    assert cli.run(["label", source, str(output), "--threshold", "0.3", *more]) == 0
    np.testing.assert_array_equal(stored(output), whole)
    assert open_volume(str(output)).attributes["rule"]["threshold"] == 0.3


@pytest.mark.usefixtures("loop")
def test_sizes_are_stored_and_hold_for_what_was_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = store_volume(tmp_path / "masks.zarr", masks()), tmp_path / "out.zarr"
    sizes = SizeRule(min_size=60, max_size=2000, largest=7)
    chosen = ("--per-section", "--min-size", "60", "--max-size", "2000", "--largest", "7")
    command = ["label", source, str(output), "--chunk", "1,16,16", "--shard", "2,32,16", *chosen]
    assert cli.run(command) == 0
    err = capsys.readouterr().err
    every = slow_label(masks(), PLANAR)
    expected = choose(every, sizes)
    assert expected.max() == 7
    np.testing.assert_array_equal(stored(output), expected)
    assert f"By their sizes {every.max() - 7} instances are left out" in err
    assert open_volume(str(output)).attributes["rule"]["largest"] == 7
    lose_blocks(output)
    assert cli.run(command[:-2]) == 1
    assert "rule.largest: stored 7, now None" in capsys.readouterr().err
    assert cli.run(command) == 0
    np.testing.assert_array_equal(stored(output), expected)


@pytest.mark.data
def test_isbi_sections_are_those_of_cc3d(loop: None, tmp_path: Path, tilenet_data: Path) -> None:
    values = tifffile.imread(tilenet_data / "isbi2012" / "train-labels.tif")[:3]
    source = store_volume(tmp_path / "masks.zarr", values, chunk=(1, 256, 256))
    found = run_it(source, tmp_path / "out.zarr", PLANAR, shard=(1, 128, 256))
    np.testing.assert_array_equal(found, slow_label(values, PLANAR))
