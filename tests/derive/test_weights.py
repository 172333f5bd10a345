"""``tilenet weights``: the array function on the whole, bit for bit, whatever the blocks."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from distributed import Client

from pipelines import cli
from pipelines.cluster import ClusterOptions
from pipelines.derive.weights import WeightOptions, run_weights
from pipelines.outputs import grow_block
from pipelines.stopping import Stop, Stopped
from tests.labels.test_weight_map import slow_weights
from tests.support.runs import files_below, store_volume
from tilenet.errors import BlocksFailed, InvalidData, NotEnoughMemory, ResumeRefused
from tilenet.geometry import ZYX, Box
from tilenet.labels import ClassCounts, WeightRule, border_weights
from tilenet.synthetic import synthetic_em
from tilenet.volumes import VolumeReference, open_volume

VOXELS = (50.0, 4.0, 4.0)
SPACE = WeightRule(voxel_size=VOXELS, radius=12, sigma=3, gap=1)
PLANE = WeightRule(voxel_size=VOXELS, radius=12, sigma=3, per_section=True, ignore=2)


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


def instances() -> npt.NDArray[np.uint16]:
    return np.asarray(synthetic_em((6, 60, 70), seed=1).instances).astype(np.uint16)


def run_it(
    source: str | Path,
    output: str | Path,
    rule: WeightRule = SPACE,
    *,
    shard: ZYX | None = (2, 32, 16),
    overwrite: bool = False,
    single_instance: bool = False,
    memory: int = 4 * 2**30,
) -> npt.NDArray[Any]:
    options = WeightOptions(
        chunk=(1, 16, 16), shard=shard, overwrite=overwrite, single_instance=single_instance
    )
    cluster = ClusterOptions(memory=memory)
    reference = VolumeReference(str(source))
    summary = run_weights(reference, str(output), rule, options=options, cluster=cluster)
    assert not summary.outcome.failed
    return stored(output)


def stored(output: str | Path) -> npt.NDArray[Any]:
    volume = open_volume(str(output))
    return volume.read(Box.of_shape(volume.shape))


@pytest.mark.parametrize("rule", [SPACE, PLANE], ids=["space", "plane"])
@pytest.mark.parametrize("shard", [(2, 32, 16), (3, 16, 48)])
def test_it_is_one_piece_bit_for_bit(
    engine: str, tmp_path: Path, rule: WeightRule, shard: ZYX
) -> None:
    labels = instances()
    found = run_it(
        store_volume(tmp_path / "labels.zarr", labels), tmp_path / "out.zarr", rule, shard=shard
    )
    assert found.tobytes() == border_weights(labels, rule).tobytes()
    np.testing.assert_allclose(found, slow_weights(labels, rule), rtol=2e-7)


def test_the_output_says_what_made_it(loop: None, tmp_path: Path) -> None:
    labels = instances()
    run_it(store_volume(tmp_path / "labels.zarr", labels), tmp_path / "out.zarr", PLANE)
    volume = open_volume(str(tmp_path / "out.zarr"))
    assert (volume.voxel_size, str(volume.dtype)) == (VOXELS, "float32")
    attributes = volume.attributes
    assert attributes["kind"] == "weights"
    assert attributes["rule"] == {
        "w0": 10.0, "sigma": 3, "radius": 12, "gap": 0, "per_section": True, "ignore": 2,
        "unit_nm": 4.0, "squared_steps": [1.0, 1.0],
    }  # fmt: skip
    counts = attributes["counts"]
    assert counts["background"] == (labels == 0).sum()
    assert counts["foreground"] == ((labels != 0) & (labels != 2)).sum()


def test_a_run_goes_on_with_the_counts_that_it_stored(
    loop: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = store_volume(tmp_path / "labels.zarr", instances()), tmp_path / "out.zarr"
    whole = run_it(source, output)
    shards = sorted(p for p in (output / "0" / "c").rglob("*") if p.is_file())
    for path in shards[::3]:
        path.unlink()
    capsys.readouterr()
    np.testing.assert_array_equal(run_it(source, output, shard=None), whole)
    assert "Count" not in capsys.readouterr().err


def test_another_rule_or_input_is_refused(loop: None, tmp_path: Path) -> None:
    source, output = store_volume(tmp_path / "labels.zarr", instances()), tmp_path / "out.zarr"
    run_it(source, output)
    before = files_below(output)
    with pytest.raises(ResumeRefused, match=r"rule\.sigma: stored 3, now 5"):
        run_it(source, output, WeightRule(voxel_size=VOXELS, radius=12, gap=1))
    other = store_volume(tmp_path / "other.zarr", instances()[:, ::-1])
    with pytest.raises(ResumeRefused, match=r"input\.stored_bytes"):
        run_it(other, output)
    with pytest.raises(ResumeRefused, match="shard"):
        run_it(source, output, shard=(1, 16, 16))
    assert files_below(output) == before
    found = run_it(source, output, PLANE, overwrite=True)
    assert found.tobytes() == border_weights(instances(), PLANE).tobytes()


def test_one_value_is_a_mask_unless_somebody_says_otherwise(loop: None, tmp_path: Path) -> None:
    labels = (instances() > 0).astype(np.uint8) * 255
    source, output = store_volume(tmp_path / "mask.zarr", labels), tmp_path / "out.zarr"
    with pytest.raises(InvalidData, match="hold one value beside 0, 255, as a mask does"):
        run_it(source, output)
    assert not output.exists()
    counts = ClassCounts.of(labels)
    found = run_it(source, output, single_instance=True)
    assert set(np.unique(found)) == {np.float32(w) for w in counts.weights}


def test_one_instance_of_the_label_command_is_no_mask(tmp_path: Path) -> None:
    mask = np.zeros((2, 20, 20), np.uint8)
    mask[:, 5:9, 5:9] = 1
    source = store_volume(tmp_path / "mask.zarr", mask)
    labels, output = str(tmp_path / "labels.zarr"), str(tmp_path / "out.zarr")
    assert cli.run(["weights", source, output]) == 1
    assert cli.run(["label", source, labels]) == 0
    assert cli.run(["weights", labels, output]) == 0


def test_what_cannot_be_counted_ends_it_before_anything_is_written(
    loop: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = store_volume(tmp_path / "labels.zarr", instances()), tmp_path / "out.zarr"
    with monkeypatch.context() as patch:
        stopped = contextlib.nullcontext(Stop(signal=2))
        patch.setattr("pipelines.engine.runner.stop_on_signals", lambda: stopped)
        with pytest.raises(Stopped):
            run_it(source, output)
    chunk = next(p for p in (tmp_path / "labels.zarr" / "0" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(b"rubbish")
    with pytest.raises(BlocksFailed, match="blocks failed"):
        run_it(source, output)
    assert not output.exists()


def test_a_shard_that_does_not_fit_is_refused(loop: None, tmp_path: Path) -> None:
    labels = np.zeros((40, 600, 600), np.uint8)
    source = store_volume(tmp_path / "labels.zarr", labels, chunk=(40, 300, 300))
    with pytest.raises(NotEnoughMemory, match="A shard of"):
        run_it(source, tmp_path / "out.zarr", shard=(40, 608, 608), memory=600 * 2**20)


def test_blocks_grow_until_they_read_little_beside_themselves() -> None:
    def fits(block: ZYX) -> bool:
        return block[0] <= 256

    shape, margins = (4000, 4000, 4000), (64, 64, 64)
    grown = grow_block((64, 512, 512), shape, margins, fits=fits, least=4)
    assert grown == (256, 1024, 512)
    assert grow_block((64, 512, 512), shape, margins, fits=fits, least=10**9) == (64, 512, 512)
    assert grow_block((64, 512, 512), shape, (0, 64, 64), fits=fits, least=4) == (64, 512, 512)


@pytest.mark.usefixtures("loop")
def test_an_ignored_label_that_does_not_occur_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = store_volume(tmp_path / "labels.zarr", np.array([[[0, 1, 2, 3, 0, 4]]], np.uint8))
    for ignored, said in ((9, True), (4, False)):
        run_it(source, tmp_path / f"{ignored}.zarr", WeightRule(ignore=ignored), shard=None)
        text = f"No voxel is {ignored} (--ignore); instances are 1 to 4."
        assert (text in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("are of type float32, not whole numbers", ("real.zarr",)),
        ("as integers with 'tilenet ingest --dtype uint32'", ("real.zarr",)),
        ("are of type bool", ("bool.zarr",)),
        ("has 2 channels", ("two.zarr",)),
        ("hold one value beside 0, 1", ("mask.zarr",)),
        ("have no background voxel", ("full.zarr",)),
        ("have no instance voxel", ("empty.zarr",)),
        ("have no instance voxel after the gap", ("thin.zarr", "--gap", "8")),
        ("have no instance voxel", ("mask.zarr", "--ignore", "1")),
        ("sigma: is 0", ("labels.zarr", "--sigma", "0")),
        ("sigma: is nan", ("labels.zarr", "--sigma", "nan")),
        ("w0: is -1", ("labels.zarr", "--w0", "-1")),
        ("radius: is 0", ("labels.zarr", "--radius", "0")),
        ("radius: is 1000, and at most 500 voxels", ("labels.zarr", "--radius", "1000")),
        ("Gap: is -1", ("labels.zarr", "--gap", "-1")),
        ("ignore label: is 0", ("labels.zarr", "--ignore", "0")),
        ("--ignore -1: cannot occur", ("labels.zarr", "--ignore", "-1")),
        ("Codec 'nothing'", ("labels.zarr", "--codec", "nothing")),
        ("whole chunks", ("labels.zarr", "--chunk", "2,16,16", "--shard", "3,16,16")),
        ("does not exist", ("none.zarr",)),
        ("exists and is a Zarr group", ("labels.zarr", "OUTPUT=mask.zarr")),
        ("inside one another", ("labels.zarr", "OUTPUT=labels.zarr/new.zarr")),
    ],
)
def test_bad_input_gets_its_message_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: str, arguments: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    labels = np.array([[[0, 1, 2, 3, 0, 4]]], np.uint8)
    store_volume(tmp_path / "labels.zarr", labels)
    store_volume(tmp_path / "real.zarr", labels.astype(np.float32))
    store_volume(tmp_path / "bool.zarr", labels > 0)
    store_volume(tmp_path / "mask.zarr", (labels > 0).astype(np.uint8))
    store_volume(tmp_path / "full.zarr", labels[..., 1:4])
    store_volume(tmp_path / "thin.zarr", labels[..., 1:4])
    store_volume(tmp_path / "empty.zarr", labels * 0)
    store_volume(tmp_path / "two.zarr", np.stack([labels, labels]))
    before = files_below(tmp_path)
    output = [a.removeprefix("OUTPUT=") for a in arguments if a.startswith("OUTPUT=")]
    rest = [a for a in arguments[1:] if not a.startswith("OUTPUT=")]
    code = cli.run(["weights", arguments[0], *(output or ["new.zarr"]), *rest])
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert words in err
    assert files_below(tmp_path) == before


def test_it_says_what_it_assumes_and_what_the_radius_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = store_volume(tmp_path / "labels.zarr", instances(), voxel_size=None)
    assert cli.run(["weights", source, str(tmp_path / "a.zarr"), "--radius", "10"]) == 0
    said = capsys.readouterr().err
    assert "voxel size not stated, so voxels are taken as cubes" in said
    assert "leaves out border terms of up to 1.4 (w0 = 10); --radius 27 leaves less" in said
    source = store_volume(tmp_path / "stated.zarr", instances())
    output = str(tmp_path / "b.zarr")
    assert cli.run(["weights", source, output, "--radius", "27", "--per-section"]) == 0
    said = capsys.readouterr().err
    assert "not stated" not in said
    assert "Warning" not in said


@pytest.mark.data
def test_touching_cells_of_dic_hela_get_a_border(
    loop: None, tmp_path: Path, tilenet_data: Path
) -> None:
    labels = tifffile.imread(tilenet_data / "dic-hela" / "masks" / "t000.tif")[None]
    rule = WeightRule(per_section=True, gap=2)
    source = store_volume(tmp_path / "labels.zarr", labels, chunk=(1, 512, 512))
    found = run_it(source, tmp_path / "out.zarr", rule, shard=(1, 160, 256))
    assert found.tobytes() == border_weights(labels, rule).tobytes()
    # Where two cells touched, the weight is near its largest: d1 and d2 are 1 and 2.
    gap = (rule.separate(labels) == 0) & (labels != 0)
    assert gap.sum() > 100
    assert found[gap].min() > 7.5


def test_what_is_derived_lies_where_its_input_does(tmp_path: Path, loop: None) -> None:
    at = (500.0, 40.0, 80.0)
    cells = np.zeros((2, 24, 24), np.uint8)
    cells[:, 2:10, 2:10] = cells[:, 14:20, 14:20] = 1
    store_volume(tmp_path / "cells.zarr", cells, voxel_size=VOXELS, translation=at)
    names = ("cells", "instances", "weights")
    cells_, instances_, weights_ = (str(tmp_path / f"{name}.zarr") for name in names)
    assert cli.run(["label", cells_, instances_, "--workers", "1"]) == 0
    assert cli.run(["weights", instances_, weights_, "--workers", "1"]) == 0
    assert [open_volume(path).translation for path in (instances_, weights_)] == [at, at]
