"""The predict command's own promises: resume, refusal, extension, masks, lazy arrays."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster

from pipelines.cluster import ClusterOptions, task_resources
from pipelines.engine.worker_agreement import common_facts
from pipelines.outputs import Summary
from pipelines.predict import Choices, IntensityRule, as_array, run_prediction
from pipelines.predict.intensity_rule import grey_value_warning
from pipelines.stopping import Stopped
from tests.support.jobs import slurm_batch
from tests.support.oracles import (
    ARCHITECTURES,
    grey_values,
    integer_network,
    probabilities,
    random_network,
    save_linear,
    save_softmax,
    whole_pass,
)
from tests.support.runs import files_below, store_volume
from tilenet.errors import (
    BlocksFailed,
    DeviceUnavailable,
    InvalidData,
    ModelMismatch,
    NotEnoughMemory,
    OutputExists,
    OutputInsideInput,
    RegionOutside,
    ResumeRefused,
    TilenetError,
    UnalignedBlock,
    UnreadableVolume,
    VoxelSizeMismatch,
)
from tilenet.geometry import Box
from tilenet.networks import Execution, UNetArchitecture
from tilenet.volumes import Intensity, VolumeReference, open_volume, replace_attributes

pytestmark = pytest.mark.cluster

SHAPE = (5, 70, 90)
LOCAL = ClusterOptions(workers=1, slots=1, memory=3 * 2**30)
JOINED: dict[str, ClusterOptions] = {}
BLOCKS = Choices(block=(1, 32, 48))


@pytest.fixture(scope="module", autouse=True)
def join(client: Client) -> None:
    """Most runs join the session's cluster, as --scheduler does; starting one takes seconds."""
    JOINED["cluster"] = ClusterOptions(scheduler=client.scheduler.address)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, a model and a finished prediction of it."""
    folder = tmp_path_factory.mktemp("case")
    store_volume(folder / "em.zarr", grey_values(SHAPE, top=256))
    network = random_network(ARCHITECTURES["planar"])
    save_softmax(folder / "model.safetensors", network, Intensity(127.0, 70.0))
    predict(folder)
    return folder


@pytest.fixture
def copy(case: Path, tmp_path: Path) -> Path:
    """The same, to be changed by one test."""
    shutil.copytree(case, tmp_path / "case")
    return tmp_path / "case"


def predict(folder: Path, output: str = "out.zarr", **changes: Any) -> Summary:
    chosen = {name: changes.pop(name) for name in ("intensity", "overwrite") if name in changes}
    arguments = {
        "model": str(folder / "model.safetensors"),
        "cluster": JOINED["cluster"],
        **changes,
        "choices": replace(changes.get("choices", BLOCKS), **chosen),
    }
    source = VolumeReference(str(folder / "em.zarr"))
    return run_prediction(source, str(folder / output), **arguments)


def result(folder: Path, output: str = "out.zarr") -> np.ndarray:
    volume = open_volume(str(folder / output))
    return volume.read(Box.of_shape(volume.shape))


def test_the_result_is_the_whole_pass(case: Path) -> None:
    network = random_network(ARCHITECTURES["planar"])
    grey = Intensity(127.0, 70.0).apply(grey_values(SHAPE, top=256), np.float64)
    expected = 255 * probabilities(whole_pass(network, grey))[1]
    assert np.abs(result(case) - expected).max() <= 0.5 + 1e-3


def test_a_second_run_has_nothing_to_do(copy: Path) -> None:
    before = files_below(copy / "out.zarr")
    orphan = copy / "out.zarr" / "0" / "0.123.partial"
    orphan.write_bytes(b"half")  # what a part left that was killed
    summary = predict(copy)
    assert (summary.outcome.computed, summary.before) == (0, summary.blocks)
    assert files_below(copy / "out.zarr") == before


def test_only_missing_blocks_are_computed_and_the_bits_are_the_same(copy: Path) -> None:
    before = files_below(copy / "out.zarr")
    shards = sorted((copy / "out.zarr" / "0" / "c").rglob("*"))
    lost = [path for path in shards if path.is_file()][::3]
    for path in lost:
        path.unlink()
    orphan = lost[0].with_name("0.123.partial")
    orphan.write_bytes(b"half")
    summary = predict(copy, cluster=LOCAL)
    assert summary.outcome.computed == len(lost)
    assert files_below(copy / "out.zarr") == before
    assert not orphan.exists()


def test_two_runs_with_different_workers_are_bit_identical(case: Path) -> None:
    predict(case, "again.zarr", cluster=LOCAL)
    np.testing.assert_array_equal(result(case, "again.zarr"), result(case))


def test_a_region_is_snapped_and_extended_by_a_later_run(copy: Path) -> None:
    first = predict(copy, "part.zarr", region=((1, 3), (10, 20), (0, 50)))
    assert first.blocks == 2 * 1 * 2
    part = result(copy, "part.zarr")
    np.testing.assert_array_equal(part[1:3, :32], result(copy)[1:3, :32])
    assert not part[0].any()
    second = predict(copy, "part.zarr", region=((0, 5), (0, 70), (0, 90)))
    assert (second.before, second.blocks) == (4, 30)
    np.testing.assert_array_equal(result(copy, "part.zarr"), result(copy))


def test_a_resume_keeps_the_numeric_plan_it_was_begun_with(copy: Path) -> None:
    shards = [p for p in (copy / "out.zarr" / "0" / "c").rglob("*") if p.is_file()]
    before = files_below(copy / "out.zarr")
    shards[0].unlink()
    predict(copy, choices=Choices())  # would choose other blocks and tiles by itself
    assert files_below(copy / "out.zarr") == before


def refused(folder: Path, field: str, **changes: Any) -> None:
    before = files_below(folder / "out.zarr")
    with pytest.raises(ResumeRefused) as caught:
        predict(folder, **changes)
    assert field in caught.value.differences
    assert field in str(caught.value)
    assert files_below(folder / "out.zarr") == before


def test_a_resume_with_another_model_is_refused(copy: Path) -> None:
    other = random_network(ARCHITECTURES["planar"], seed=1)
    save_softmax(copy / "model.safetensors", other, Intensity(127.0, 70.0))
    refused(copy, "model_sha256")


def test_a_resume_with_another_precision_is_refused(copy: Path) -> None:
    refused(copy, "numeric_plan.precision", choices=replace(BLOCKS, precision="float64"))


def test_a_resume_with_another_number_of_threads_is_refused(copy: Path) -> None:
    refused(copy, "numeric_plan.threads", cluster=replace(JOINED["cluster"], threads=2))


def test_a_resume_with_another_intensity_rule_is_refused(copy: Path) -> None:
    refused(copy, "intensity.rule", intensity=IntensityRule("window:0,255"))


def test_a_resume_with_another_block_is_refused(copy: Path) -> None:
    refused(copy, "block", choices=Choices(block=(1, 64, 48)))


def test_a_resume_with_another_type_is_refused(copy: Path) -> None:
    refused(copy, "output.dtype", choices=replace(BLOCKS, dtype="float32"))


def test_a_resume_with_a_mask_is_refused(copy: Path) -> None:
    mask = store_volume(copy / "mask.zarr", np.ones((5, 7, 9), np.uint8), voxel_size=None)
    refused(copy, "mask", mask=VolumeReference(mask))


def test_a_resume_on_a_longer_volume_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "em.zarr")
    store_volume(copy / "em.zarr", grey_values((SHAPE[0] + 2, *SHAPE[1:]), top=256))
    with pytest.raises(ResumeRefused, match="shape"):
        predict(copy)


def test_a_resume_with_another_input_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "em.zarr")
    store_volume(copy / "em.zarr", grey_values(SHAPE, seed=5, top=200))
    refused(copy, "input.stored_bytes.c/0/0/2")


def test_the_input_may_move_between_runs(copy: Path) -> None:
    (copy / "em.zarr").rename(copy / "moved.zarr")
    source = VolumeReference(str(copy / "moved.zarr"))
    model = str(copy / "model.safetensors")
    summary = run_prediction(source, str(copy / "out.zarr"), model=model, cluster=JOINED["cluster"])
    assert summary.before == summary.blocks


@pytest.mark.parametrize(("scale", "doubted"), [(1.0, False), (1 / 255, True), (0.0, True)])
def test_grey_values_unlike_those_trained_on_are_doubted(
    tmp_path: Path, scale: float, doubted: bool
) -> None:
    values = (scale * grey_values(SHAPE, top=256)).astype(np.float32)
    volume = open_volume(store_volume(tmp_path / "em.zarr", values))
    said = grey_value_warning(volume, Box.of_shape(SHAPE), Intensity(127.0, 70.0))
    assert (said is not None) == doubted
    assert said is None or "see --intensity" in said


def test_a_place_where_nothing_can_be_written_is_refused_before_workers_start(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not even root can write there, though its permissions say so.
    monkeypatch.setattr("pipelines.engine.runner.open_client", None)
    with pytest.raises(UnreadableVolume, match="nothing can be written in /proc: "):
        predict(copy, "/proc/out.zarr")


def test_jobs_with_gpus_that_nothing_would_use_are_refused(copy: Path) -> None:
    batch = slurm_batch(gpus_per_job=2, workers=2)
    with pytest.raises(InvalidData, match="reserve 2 GPUs each, which --device cpu"):
        predict(copy, cluster=ClusterOptions(batch=batch))


def test_overwrite_begins_anew(copy: Path) -> None:
    network = random_network(ARCHITECTURES["planar"], seed=1)
    save_softmax(copy / "model.safetensors", network, Intensity(127.0, 70.0))
    before = result(copy)
    assert predict(copy, overwrite=True).before == 0
    assert not np.array_equal(result(copy), before)


def test_a_mask_zeroes_what_is_outside_and_skips_whole_blocks(copy: Path) -> None:
    inside = np.zeros((5, 7, 9), np.uint8)
    inside[1:3, 2:5, 3:7] = 1
    mask = store_volume(copy / "mask.zarr", inside, voxel_size=(50.0, 40.0, 40.0))
    summary = predict(copy, "masked.zarr", mask=VolumeReference(mask))
    assert summary.outcome.computed == summary.blocks, "skipped blocks are stored too"
    full = np.kron(inside, np.ones((1, 10, 10), np.uint8))
    np.testing.assert_array_equal(result(copy, "masked.zarr"), result(copy) * full)


def test_the_volumes_own_statistics_are_taken_once_over_all_of_it(copy: Path) -> None:
    rule = IntensityRule("volume", void=0.0)
    predict(copy, "own.zarr", intensity=rule, choices=replace(BLOCKS, dtype="float32"))
    values = grey_values(SHAPE, top=256).astype(np.float64)
    numbers = open_volume(str(copy / "own.zarr")).attributes["intensity"]["numbers"]
    assert numbers["mean"] == pytest.approx(values[values != 0].mean())
    assert numbers["std"] == pytest.approx(values[values != 0].std())
    assert predict(copy, "own.zarr", intensity=rule).outcome.computed == 0
    # Another order of the same numbers, by hand:
    by_hand = IntensityRule(f"{numbers['mean']},{numbers['std']}")
    predict(copy, "hand.zarr", intensity=by_hand, choices=replace(BLOCKS, dtype="float32"))
    np.testing.assert_array_equal(result(copy, "own.zarr"), result(copy, "hand.zarr"))


def test_inverted_grey_values_are_those_of_the_negative(copy: Path) -> None:
    rule = IntensityRule("127,70", invert=True)
    predict(copy, "inverted.zarr", intensity=rule, choices=replace(BLOCKS, dtype="float32"))
    store_volume(copy / "negative.zarr", (254 - grey_values(SHAPE, top=255)).astype(np.uint8))
    shutil.rmtree(copy / "em.zarr")
    store_volume(copy / "em.zarr", grey_values(SHAPE, top=255))
    predict(copy, "inverted2.zarr", intensity=rule, choices=replace(BLOCKS, dtype="float32"))
    (copy / "em.zarr").rename(copy / "old.zarr")
    (copy / "negative.zarr").rename(copy / "em.zarr")
    plain = IntensityRule("127,70")
    predict(copy, "negative2.zarr", intensity=plain, choices=replace(BLOCKS, dtype="float32"))
    np.testing.assert_array_equal(result(copy, "inverted2.zarr"), result(copy, "negative2.zarr"))


def test_provenance_says_what_determined_the_values(case: Path) -> None:
    stated = open_volume(str(case / "out.zarr")).attributes
    json.dumps(dict(stated))
    assert stated["output"]["rule"] == "round(255 * value), halves to even"
    assert stated["output"]["channels"] == [{"name": "foreground", "label": None}]
    plan = stated["numeric_plan"]
    assert plan["block"] == [1, 32, 48]
    assert {"tile", "tile_input", "batch", "precision", "threads", "device", "torch"} <= set(plan)
    assert open_volume(str(case / "out.zarr")).voxel_size == (50.0, 4.0, 4.0)


def test_as_array_computes_only_the_blocks_it_touches(case: Path) -> None:
    model, source = str(case / "model.safetensors"), str(case / "em.zarr")
    lazy = as_array(source, model, choices=BLOCKS)
    assert (lazy.shape, lazy.dtype) == (SHAPE, np.uint8)
    assert lazy.chunks == ((1,) * 5, (32, 32, 6), (48, 42))
    part = lazy[2, 5:30, 50:60]
    graph = dask.optimize(part)[0].__dask_graph__()
    assert len([key for key in graph if isinstance(key, tuple)]) <= 2, "one block and its slice"
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(part.compute(), result(case)[2, 5:30, 50:60])
        np.testing.assert_array_equal(lazy.compute(), result(case))


def test_as_array_takes_the_rule_for_grey_values_and_refuses_one_that_needs_a_pass(
    case: Path,
) -> None:
    model, source = str(case / "model.safetensors"), str(case / "em.zarr")
    rule = replace(BLOCKS, intensity=IntensityRule("10,3"))
    predict(case, "rule.zarr", choices=rule)
    with dask.config.set(scheduler="synchronous"):
        found = as_array(source, model, choices=rule).compute()
    np.testing.assert_array_equal(found, result(case, "rule.zarr"))
    assert (found != result(case)).any()
    with pytest.raises(InvalidData, match="'volume': needs a pass over the volume"):
        as_array(source, model, choices=replace(rule, intensity=IntensityRule("volume")))


def test_more_than_two_classes_give_channels(tmp_path: Path) -> None:
    architecture = UNetArchitecture.planar(2, 2, out_channels=3, dropout=0.0)
    network = integer_network(architecture)
    values = grey_values((2, 37, 41))
    store_volume(tmp_path / "em.zarr", values)
    save_linear(tmp_path / "model.safetensors", network)
    choices = Choices(precision="float64", block=(2, 16, 16))
    predict(tmp_path, choices=choices)
    volume = open_volume(str(tmp_path / "out.zarr"))
    assert (volume.channels, str(volume.dtype)) == (3, "float32")
    assert (volume.array.shards or (0,))[0] == 1, "every channel in shards of its own"
    np.testing.assert_array_equal(result(tmp_path), whole_pass(network, values))
    lazy = as_array(str(tmp_path / "em.zarr"), str(tmp_path / "model.safetensors"), choices=choices)
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(lazy.compute(), result(tmp_path))


def test_a_corrupt_chunk_fails_its_blocks_and_a_rerun_redoes_only_them(copy: Path) -> None:
    shard = copy / "em.zarr" / "0" / "c" / "0" / "2" / "2"
    good = shard.read_bytes()
    shard.write_bytes(good[: len(good) // 2])
    summary = predict(copy, "hurt.zarr", choices=Choices(block=(5, 16, 16)))
    assert 0 < len(summary.outcome.failed) < summary.blocks
    assert summary.outcome.computed == summary.blocks - len(summary.outcome.failed)
    with pytest.raises(BlocksFailed, match=r"em.zarr: cannot read"):
        summary.finish()
    shard.write_bytes(good)
    again = predict(copy, "hurt.zarr", choices=Choices())
    assert again.outcome.computed == len(summary.outcome.failed)
    assert not again.outcome.failed


def test_an_input_that_is_not_stored_to_its_end_is_refused_where_it_is_needed(copy: Path) -> None:
    (copy / "em.zarr" / "0" / "c" / "0" / "2" / "2").unlink()
    with pytest.raises(InvalidData, match=r"1 of the 9 objects that hold .* are not stored yet"):
        predict(copy, "hurt.zarr")
    for path in (copy / "em.zarr", copy / "em.zarr" / "0"):
        with pytest.raises(InvalidData, match="not stored yet"):
            as_array(str(path), str(copy / "model.safetensors"), choices=BLOCKS)
    part: dict[str, Any] = {
        "region": ((0, 5), (0, 16), (0, 16)), "choices": Choices(block=(5, 16, 16))
    }  # fmt: skip
    with pytest.raises(InvalidData, match="not stored yet"):
        predict(copy, "hurt.zarr", intensity=IntensityRule("volume"), **part)
    assert not (copy / "hurt.zarr").exists()
    predict(copy, "part.zarr", **part)


def test_non_finite_values_fail_their_blocks_by_name(copy: Path) -> None:
    values = grey_values(SHAPE, top=256).astype(np.float32)
    values[3, 60, 80] = np.nan
    shutil.rmtree(copy / "em.zarr")
    store_volume(copy / "em.zarr", values)
    summary = predict(copy, "hurt.zarr")
    assert summary.outcome.failed
    assert all("NaN or infinite" in why for _, why in summary.outcome.failed)
    assert all(box.start[0] == 3 for box, _ in summary.outcome.failed)


def test_a_device_that_is_not_here_is_refused_before_the_plan(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(DeviceUnavailable, match=device):
        predict(case, "no.zarr", cluster=ClusterOptions(), choices=Choices(device=device))
    assert capsys.readouterr().err == ""
    assert not (case / "no.zarr").exists()


BAD: list[tuple[str, type[TilenetError], str, dict[str, Any]]] = [
    ("region", RegionOutside, "z=0:9", {"region": ((0, 9), (0, 70), (0, 90))}),
    ("alignment", UnalignedBlock, "30 along y", {"choices": Choices(block=(1, 30, 48))}),
    (
        "shards", UnalignedBlock, "whole shards",
        {"choices": Choices(block=(1, 32, 48), shard=(1, 32, 32))},
    ),
    ("memory", NotEnoughMemory, "MiB are allowed", {"cluster": replace(LOCAL, memory=10**8)}),
    ("mask", InvalidData, "Mask", {"mask": "mask.zarr"}),
    ("codec", InvalidData, "Codec 'nothing'", {"choices": replace(BLOCKS, codec="nothing")}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "error", "words", "changes"), BAD, ids=[row[0] for row in BAD])
def test_bad_input_is_refused_before_anything_is_written(
    case: Path, name: str, error: type[TilenetError], words: str, changes: dict[str, Any]
) -> None:
    if "mask" in changes:
        store_volume(case / "mask.zarr", np.ones((4, 7, 9), np.uint8))
        changes = {"mask": VolumeReference(str(case / "mask.zarr"))}
    with pytest.raises(error, match=words):
        predict(case, "bad.zarr", **changes)
    assert not (case / "bad.zarr").exists()


def test_a_model_for_other_channels_is_refused(copy: Path) -> None:
    architecture = UNetArchitecture.planar(2, 2, in_channels=2)
    save_softmax(copy / "model.safetensors", random_network(architecture))
    with pytest.raises(ModelMismatch, match=r"takes 2 channels, but .* has 1"):
        predict(copy, "bad.zarr")


def test_another_voxel_size_is_refused_unless_ignored(copy: Path) -> None:
    shutil.rmtree(copy / "em.zarr")
    store_volume(copy / "em.zarr", grey_values(SHAPE), voxel_size=(50.0, 8.0, 8.0))
    from tilenet.inference import ModelHeader, save_model

    network = random_network(ARCHITECTURES["planar"])
    header = ModelHeader(network.architecture, voxel_size=(50.0, 4.0, 4.0))
    save_model(copy / "model.safetensors", network, header)
    with pytest.raises(VoxelSizeMismatch, match=r"50 x 8 x 8 nm.* 50 x 4 x 4 nm"):
        predict(copy, "bad.zarr")
    predict(copy, "ignored.zarr", choices=replace(BLOCKS, ignore_voxel_size=True))


@pytest.mark.parametrize("output", ["em.zarr", "em.zarr/prediction.zarr", "."])
def test_an_output_within_the_input_is_refused(case: Path, output: str) -> None:
    before = files_below(case / "em.zarr")
    with pytest.raises(OutputInsideInput):
        predict(case, output)
    assert files_below(case / "em.zarr") == before


def test_an_output_that_is_something_else_is_refused(copy: Path) -> None:
    store_volume(copy / "other.zarr", grey_values((2, 3, 4)))
    (copy / "papers").mkdir()
    (copy / "papers" / "thesis.txt").write_text("mine")
    (copy / "notes").write_text("mine too")
    for name in ("other.zarr", "papers", "notes"):
        with pytest.raises(OutputExists):
            predict(copy, name)
    for name in ("papers", "notes"):
        with pytest.raises(OutputExists):
            predict(copy, name, overwrite=True)
    assert (copy / "papers" / "thesis.txt").read_text() == "mine"
    assert (copy / "notes").read_text() == "mine too"


def test_a_stop_while_the_workers_are_asked_costs_no_old_output(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(client: Client, execution: Execution) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGINT)
        return common_facts(client, execution)

    before = files_below(copy / "out.zarr")
    monkeypatch.setattr("pipelines.engine.runner.common_facts", interrupted)
    with pytest.raises(Stopped):
        predict(copy, overwrite=True)
    assert files_below(copy / "out.zarr") == before


def test_an_output_around_the_model_is_refused_also_with_overwrite(copy: Path) -> None:
    volume = store_volume(copy / "around.zarr", grey_values((2, 3, 4)))
    shutil.copy(copy / "model.safetensors", volume)
    with pytest.raises(OutputInsideInput):
        predict(copy, "around.zarr", model=f"{volume}/model.safetensors", overwrite=True)


def test_numbers_that_overflow_in_the_network_fail_by_name(copy: Path) -> None:
    choices = replace(BLOCKS, precision="float16", dtype="float32")
    summary = predict(copy, "over.zarr", choices=choices, intensity=IntensityRule("0,0.0001"))
    assert len(summary.outcome.failed) == summary.blocks
    assert all("at precision float16" in why for _, why in summary.outcome.failed)


def test_gpu_slots_are_asked_for_only_where_every_worker_offers_some(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client's list of workers is refreshed behind one's back, with none in it.
    monkeypatch.setattr(client, "scheduler_info", lambda **_: {"workers": {}})
    assert task_resources(client) is None
    local = LocalCluster(
        n_workers=1, resources={"GPU": 2}, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )
    with local as cluster, Client(cluster) as gpus:
        assert task_resources(gpus) == {"GPU": 1}


def test_a_broken_provenance_is_something_else(copy: Path) -> None:
    stored = dict(open_volume(str(copy / "out.zarr")).attributes)
    plan = {name: value for name, value in stored["numeric_plan"].items() if name != "slab"}
    for broken in ({"kind": "prediction"}, {**stored, "numeric_plan": plan}):
        replace_attributes(str(copy / "out.zarr"), broken)
        with pytest.raises(OutputExists, match="incomplete"):
            predict(copy)


def test_a_changed_input_of_many_shards_is_refused_though_no_stored_block_saw_it(
    tmp_path: Path,
) -> None:
    network = random_network(ARCHITECTURES["planar"])
    save_softmax(tmp_path / "model.safetensors", network)
    choices = Choices(block=(1, 16, 16))
    store_volume(tmp_path / "em.zarr", grey_values((8, 112, 112), top=4), chunk=(1, 16, 16))
    predict(tmp_path, choices=choices, region=((0, 1), (0, 16), (0, 16)))
    shutil.rmtree(tmp_path / "em.zarr")
    other = grey_values((8, 112, 112), seed=1, top=256)
    store_volume(tmp_path / "em.zarr", other, chunk=(1, 16, 16))
    with pytest.raises(ResumeRefused, match="stored_bytes"):
        predict(tmp_path, choices=choices, region=((7, 8), (96, 112), (96, 112)))


def test_no_such_device_is_refused_before_anything_is_written(case: Path) -> None:
    with pytest.raises(TilenetError, match="'mars'"):
        predict(case, "bad.zarr", choices=replace(BLOCKS, device="mars"))
    assert not (case / "bad.zarr").exists()
