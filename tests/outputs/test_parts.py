"""``--part 17/100``: shares of a run, for array jobs without a scheduler."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cluster import ClusterOptions
from pipelines.derive.label import run_label
from pipelines.derive.storage_options import StorageOptions
from pipelines.derive.weights import WeightOptions, run_weights
from pipelines.outputs import Part, Summary, with_others
from pipelines.outputs.parts import read_part, share_of
from pipelines.predict import Choices, IntensityRule, run_prediction
from tests.support.oracles import random_network, save_softmax
from tests.support.runs import files_below, run_tilenet, store_volume
from tilenet.errors import InvalidData, OutputExists
from tilenet.geometry import BlockGrid, Box
from tilenet.labels import LabelRule, WeightRule
from tilenet.networks import UNetArchitecture
from tilenet.synthetic import synthetic_em
from tilenet.volumes import VolumeReference, create_volume, has_join, open_volume


@given(st.integers(0, 200), st.integers(1, 30))
def test_parts_share_the_blocks_out(blocks: int, count: int) -> None:
    grid = BlockGrid((max(1, blocks), 1, 1), (1, 1, 1))
    shares = [list(share_of(grid, Part(number, count))) for number in range(1, count + 1)]
    assert sorted(box.start for share in shares for box in share) == [box.start for box in grid]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


LSF = {"": "5", "_END": "8", "_STEP": "2"}
SLURM = {f"SLURM_ARRAY_TASK_{n}": v for n, v in {"MIN": "10", "MAX": "18", "STEP": "2"}.items()}


@pytest.mark.parametrize(
    ("text", "variables", "part"),
    [
        ("17/100", {}, Part(17, 100)),
        ("1/1", {}, Part(1, 1)),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_COUNT": "5"}, Part(3, 5)),
        ("auto/20", {**SLURM, "SLURM_ARRAY_TASK_ID": "14"}, Part(14, 20)),
        ("auto", {"LSB_JOBINDEX": "4", "LSB_JOBINDEX_END": "9"}, Part(4, 9)),
        ("auto", {f"LSB_JOBINDEX{n}": v for n, v in LSF.items()}, Part(3, 4)),
        ("auto", {"SGE_TASK_ID": "3", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "7"}, Part(3, 7)),
        ("auto/7", {"PBS_ARRAY_INDEX": "7"}, Part(7, 7)),
        ("auto/7", {"PBS_ARRAYID": "2"}, Part(2, 7)),
    ],
)
def test_what_part_is_meant(text: str, variables: dict[str, str], part: Part) -> None:
    assert read_part(text, variables) == part


@pytest.mark.parametrize(
    ("text", "variables", "words"),
    [
        ("0/0", {}, "parts are numbered from 1 to their count"),
        ("0/5", {}, "parts are numbered from 1"),
        ("6/5", {}, "parts are numbered from 1"),
        ("5", {}, "is not a part such as 17/100"),
        ("-1/5", {}, "is not a part"),
        ("a/b", {}, "is not a part"),
        ("auto", {}, "nothing here says that this is one"),
        ("auto", {"SGE_TASK_ID": "undefined"}, "nothing here says"),
        ("auto", {"LSB_JOBINDEX": "0", "LSB_JOBINDEX_END": "0"}, "nothing here says"),
        ("auto", {"PBS_ARRAY_INDEX": "3"}, "needs the number of parts here: auto/100"),
        ("auto/5", {"PBS_ARRAY_INDEX": "0"}, "parts are numbered from 1"),
        # An array of the tasks 10 and 18 alone, as when two of a hundred are run again.
        (
            "auto",
            {**SLURM, "SLURM_ARRAY_TASK_ID": "18", "SLURM_ARRAY_TASK_COUNT": "2"},
            "needs the number of parts where an array has gaps",
        ),
        # One of 10, 13, 16, 17 and 18: as many as there would be in steps of two, and not they.
        (
            "auto",
            {**SLURM, "SLURM_ARRAY_TASK_ID": "13", "SLURM_ARRAY_TASK_COUNT": "5"},
            "needs the number of parts where an array has gaps",
        ),
    ],
)
def test_what_is_no_part_is_refused(text: str, variables: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_part(text, variables)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Path:
    """A volume, a model, and a prediction in one piece."""
    folder = tmp_path_factory.mktemp("parts")
    store_volume(folder / "em.zarr", synthetic_em((3, 96, 96), seed=3).raw, chunk=(1, 32, 32))
    network = random_network(UNetArchitecture.planar(4, 2, dropout=0.0))
    save_softmax(folder / "model.safetensors", network)
    predict_in(folder, "good.zarr", client)
    return folder


def predict_in(
    folder: Path, output: str, client: Client, part: Part | None = None, **chosen: Any
) -> Summary:
    return run_prediction(
        VolumeReference(str(folder / "em.zarr")),
        str(folder / output),
        model=str(folder / "model.safetensors"),
        cluster=ClusterOptions(scheduler=client.scheduler.address),
        choices=Choices(block=(1, 32, 32), **chosen),
        part=part,
    )


def values(path: Path) -> np.ndarray:
    volume = open_volume(str(path))
    return volume.read(Box.of_shape(volume.shape))


def test_parts_that_begin_at_the_same_time_agree_on_one_output(
    case: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, outcomes = threading.Barrier(3), []

    def create(*arguments: Any, **options: Any) -> str:
        together.wait(timeout=60)  # every part has seen that nothing is there
        try:
            made = create_volume(*arguments, **options)
        except OutputExists:
            outcomes.append("lost")
            raise
        outcomes.append("won")
        return made

    def compute(number: int) -> Summary:
        part = Part(number, 3)
        return with_others(lambda: predict_in(case, "out.zarr", client, part=part), part)

    monkeypatch.setattr("pipelines.outputs.output_run.create_volume", create)
    with ThreadPoolExecutor(3) as pool:
        summaries = list(pool.map(compute, (1, 2, 3)))
    assert sorted(outcomes) == ["lost", "lost", "won"]
    assert [(s.blocks, s.before, s.outcome.computed) for s in summaries] == [(9, 0, 9)] * 3
    # A last call without a part has nothing to do but to see that all is there.
    last = predict_in(case, "out.zarr", client)
    assert (last.blocks, last.before, last.outcome.computed) == (27, 27, 0)
    np.testing.assert_array_equal(values(case / "out.zarr"), values(case / "good.zarr"))
    assert not list(case.glob("out.zarr.*"))


def test_the_last_call_computes_what_parts_have_left(case: Path, client: Client) -> None:
    first = predict_in(case, "some.zarr", client, part=Part(2, 2))
    assert (first.blocks, first.outcome.computed) == (13, 13)
    again = predict_in(case, "some.zarr", client, part=Part(2, 2))
    assert (again.before, again.outcome.computed) == (13, 0)
    last = predict_in(case, "some.zarr", client)
    assert (last.before, last.outcome.computed) == (13, 14)
    np.testing.assert_array_equal(values(case / "some.zarr"), values(case / "good.zarr"))


def test_a_part_leaves_alone_what_another_is_writing(case: Path, client: Client) -> None:
    predict_in(case, "busy.zarr", client, part=Part(1, 3))
    half = next((case / "busy.zarr" / "0" / "c").rglob("*/0")).with_name("9.x.partial")
    half.write_bytes(b"half")
    predict_in(case, "busy.zarr", client, part=Part(2, 3))
    assert half.exists()
    predict_in(case, "busy.zarr", client)
    assert not half.exists()


def test_only_part_1_passes_over_the_whole_volume_first(case: Path, client: Client) -> None:
    rule = IntensityRule("volume")
    with pytest.raises(InvalidData, match="not begun, and a first pass is over the whole volume"):
        predict_in(case, "grey.zarr", client, intensity=rule, part=Part(2, 2))
    assert not (case / "grey.zarr").exists()
    predict_in(case, "grey.zarr", client, intensity=rule, part=Part(1, 2))
    assert predict_in(case, "grey.zarr", client, intensity=rule, part=Part(2, 2)).blocks == 13


def test_a_part_replaces_nothing(case: Path, client: Client) -> None:
    before = files_below(case / "good.zarr")
    with pytest.raises(InvalidData, match="would replace what other parts have stored"):
        predict_in(case, "good.zarr", client, overwrite=True, part=Part(1, 2))
    assert files_below(case / "good.zarr") == before


def test_a_part_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    done = run_tilenet("predict", "a", "b", "--model", "m", "--part", "0/0", cwd=tmp_path)
    assert done.returncode == 2
    assert "'0/0' is part 0/0: parts are numbered from 1" in done.stderr


def test_the_command_computes_its_share(case: Path) -> None:
    done = run_tilenet(
        "predict", "em.zarr", "command.zarr", "--model", "model.safetensors", "--block", "1,32,32",
        "--part", "3/9", "--workers", "1", "--memory", "3GB", "--json", cwd=case,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["blocks"] == 3
    report = json.loads((case / "command.zarr.part-3-of-9.report.json").read_text())
    assert (report["part"], report["summary"]) == ("3/9", json.loads(done.stdout))


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all blocks in this process."""
    monkeypatch.setattr(
        "pipelines.engine.runner.open_client", lambda *_: contextlib.nullcontext(None)
    )


def labels(source: str, output: Path, part: Part | None) -> Summary:
    options = StorageOptions(chunk=(1, 16, 16), shard=(2, 32, 16))
    reference, cluster = VolumeReference(source), ClusterOptions()
    rule = LabelRule(connectivity=6)
    return run_label(reference, str(output), rule, options=options, cluster=cluster, part=part)


def weight_map(source: str, output: Path, part: Part | None) -> Summary:
    options = WeightOptions(chunk=(1, 16, 16), shard=(2, 32, 16))
    # A part may have another machine, and with it other blocks, than the next.
    memory = (2 + (part.number if part else 0)) * 2**30
    cluster = ClusterOptions(memory=memory)
    rule = WeightRule(voxel_size=(50.0, 4.0, 4.0), radius=12, sigma=3)
    reference = VolumeReference(source)
    return run_weights(reference, str(output), rule, options=options, cluster=cluster, part=part)


@pytest.mark.parametrize(("run", "kind"), [(labels, "cells"), (weight_map, "instances")])
def test_parts_of_labels_and_weights_are_one_piece(
    loop: None, tmp_path: Path, run: Callable[[str, Path, Part | None], Summary], kind: str
) -> None:
    made = np.asarray(getattr(synthetic_em((6, 60, 70), seed=1), kind)).astype(np.uint16)
    source = store_volume(tmp_path / "in.zarr", made, chunk=(2, 32, 32))
    compute = functools.partial(run, source)
    compute(tmp_path / "whole.zarr", None)
    output = tmp_path / "out.zarr"
    with pytest.raises(InvalidData, match="Run part 1/3 first"):
        compute(output, Part(2, 3))
    assert not output.exists()
    done = [compute(output, Part(number, 3)) for number in (1, 3, 2)]
    assert all(s.outcome.computed == s.blocks > 0 for s in done)
    if run is labels:
        assert has_join(str(output))  # until all is checked
    last = compute(output, None)
    assert last.outcome.computed == 0
    assert not has_join(str(output))
    np.testing.assert_array_equal(values(output), values(tmp_path / "whole.zarr"))
