"""What decides the last bits: named, compared, and told where a prediction is made or verified."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipelines.engine.worker_agreement import differ, slurm_selection
from tests.support.oracles import grey_values, integer_network, random_network, save_softmax
from tests.support.runs import environment, files_below, store_volume, tilenet_command
from tilenet.errors import ResumeRefused
from tilenet.geometry import Box
from tilenet.inference import (
    DeviceIntensity,
    Model,
    ModelHeader,
    OutputChannel,
    Predictor,
    WorkerKind,
    stored,
)
from tilenet.inference.model_file import Activation
from tilenet.inference.predictor import numeric_facts
from tilenet.labels import WeightRule, border_weights
from tilenet.networks import ARITHMETIC, Execution, TileGrid, UNetArchitecture, averaged, explained
from tilenet.networks.facts import differing
from tilenet.volumes import (
    Intensity,
    open_volume,
    refuse_if_different,
    replace_attributes,
    unstated,
)

#: What our own code makes of exact sums, by the number that every change of its bits raises. Never
#: change an entry: raise ARITHMETIC, and add one.
BITS = {1: "4d1dd9e9373332f5"}

#: The same of weight maps, in steps of 1/86: square roots and exponentials have other last bits
#: on other processors.
WEIGHTS, STEPS = {1: "965086a1970331fb"}, 86


# -- our own arithmetic ----------------------------------------------------------------------------


def stored_values(activation: Activation, dtype: str, rotations: int = 1) -> npt.NDArray[Any]:
    """What is stored of a network whose sums are whole numbers, so exact on every machine."""
    architecture = UNetArchitecture.planar(2, 1, dropout=0.0)
    header = ModelHeader(
        architecture,
        Intensity(2.0, 0.5),
        tuple(OutputChannel(n, activation=activation) for n in "ab"),
    )
    predictor = Predictor(Model(integer_network(architecture), header), Execution(axis=1, slab=32))
    block = Box.of_shape((2, 32, 32))
    tiles = TileGrid(block, (1, 32, 32), architecture, block.shape, averaged(rotations, False))
    return predictor.predict(grey_values(tiles.input_box.shape, seed=1), tiles, dtype)


def test_a_change_of_our_arithmetic_raises_its_number() -> None:
    found = hashlib.sha256()
    for dtype, rotations in (("float32", 1), ("float32", 7), ("float16", 8)):
        found.update(stored_values("linear", dtype, rotations).tobytes())
    activations: tuple[Activation, ...] = ("softmax", "sigmoid")
    for activation in activations:
        # Exponentials differ in their last bits between processors, but for that of 0. No level may
        # lie so near a half that it would be rounded otherwise there.
        levels = stored_values(activation, "float32").astype(np.float64) * 255
        assert np.abs(levels[levels != 127.5] % 1 - 0.5).min() > 1e-3
        assert len(np.unique(levels.round())) >= 5
        found.update(stored_values(activation, "uint8").tobytes())
    for rule in (Intensity(100.3, 41.7), Intensity(100.3, 41.7, 20.0, 200.0, invert=True)):
        grey = torch.arange(256, dtype=torch.uint8)
        applied = DeviceIntensity(rule, torch.device("cpu"), torch.float32).apply(grey)
        found.update(applied.numpy().tobytes())
    halves = (torch.arange(255, dtype=torch.float32) + 0.5) / 255  # to even
    found.update(stored(halves, "uint8").numpy().tobytes())
    assert BITS[ARITHMETIC] == found.hexdigest()[:16]


def test_a_change_of_weight_maps_raises_it_too() -> None:
    # Three cells two to five pixels apart; whatever is computed, it is a number of theirs.
    labels = np.zeros((2, 24, 30), np.uint16)
    labels[0, 3:12, 2:12], labels[0, 4:15, 14:25], labels[:, 17:22, 6:20] = 1, 2, 3
    found = hashlib.sha256()
    for rule in (WeightRule(per_section=True), WeightRule(voxel_size=(40.0, 9.2, 9.2), gap=1)):
        steps = border_weights(labels, rule).astype(np.float64) * STEPS
        # Many times the last bit of the largest.
        assert np.abs(steps % 1 - 0.5).min() > 30 * STEPS * np.spacing(np.float32(9)), (
            "none is rounded otherwise elsewhere"
        )
        assert len(np.unique(steps.round())) > 40
        found.update(steps.round().astype(np.int64).tobytes())
    assert WEIGHTS[ARITHMETIC] == found.hexdigest()[:16]


# -- facts, compared -------------------------------------------------------------------------------

HERE = {"device": "cpu", "torch": "2", "arithmetic": 1, "digest": "aa", "processor": "X"}


def test_the_digest_decides_and_the_names_explain() -> None:
    other = {**HERE, "processor": "Y", "ONEDNN_MAX_CPU_ISA": "AVX2", "tilenet": "9"}
    assert differing(HERE, other) == []
    assert explained(HERE, other) == []
    other["digest"] = "bb"
    assert differing(HERE, other) == ["digest"]
    assert explained(HERE, other) == [
        "its convolutions give other bits (digest aa, not bb)",
        "processor is 'X', not 'Y'",
        "ONEDNN_MAX_CPU_ISA is not set, and not 'AVX2'",
        "tilenet is not set, and not '9'",
    ]
    assert explained(other, HERE)[2] == "ONEDNN_MAX_CPU_ISA is 'AVX2', not unset"


def test_another_version_of_tilenet_goes_on_and_another_arithmetic_does_not() -> None:
    stored = {"numeric_plan": {"threads": 1, **HERE, "tilenet": "0.1.0"}}
    refuse_if_different("x", stored, {"numeric_plan": {"threads": 1, **HERE, "tilenet": "7.0.0"}})
    now = {"numeric_plan": {"threads": 1, **HERE, "arithmetic": 2}}
    with pytest.raises(ResumeRefused, match=r"numeric_plan.arithmetic: stored 1, now 2"):
        refuse_if_different("x", stored, now)


def test_what_an_older_version_did_not_state_is_unknown() -> None:
    old = {"numeric_plan": {"threads": 1, "device": "cpu", "torch": "2", "tilenet": "0.1.0"}}
    now = {"numeric_plan": {"threads": 1, **HERE, "cudnn": "9"}}
    assert unstated(old, now) == ["cudnn", "arithmetic", "digest"]
    refuse_if_different("x", old, now)
    assert unstated(now, now) == []
    with pytest.raises(ResumeRefused, match=r"numeric_plan.torch: stored '1', now '2'"):
        refuse_if_different("x", {"numeric_plan": {**old["numeric_plan"], "torch": "1"}}, now)


# -- the facts of a process ------------------------------------------------------------------------


def facts_under(*arguments: Any, **variables: str) -> dict[str, Any]:
    """The facts of a process of its own: oneDNN reads its variables once."""
    code = (
        "import json, sys; from tilenet.inference.predictor import numeric_facts;"
        "print(json.dumps(numeric_facts('cpu', *json.loads(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], env={**environment(), **variables},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_digest_is_the_same_in_every_process_and_draws_no_random_numbers(
    precision: str,
) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    here = numeric_facts("cpu", precision, 1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert facts_under(precision, 1) == here
    assert here["processor"]
    assert here["arithmetic"] == ARITHMETIC
    assert here["digest"] != numeric_facts("cpu", "float64", 1)["digest"]


def test_variables_that_choose_kernels_are_stated_where_they_are_set() -> None:
    facts = facts_under(ONEDNN_MAX_CPU_ISA="AVX2", ONEDNN_DEFAULT_FPMATH_MODE="STRICT")
    assert facts["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert facts["ONEDNN_DEFAULT_FPMATH_MODE"] == "STRICT"


# -- a prediction made with other kernels ----------------------------------------------------------


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        tilenet_command(*arguments), cwd=folder, env={**environment(), **variables},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, and a model of real widths, whose sums depend on the kernels."""
    folder = tmp_path_factory.mktemp("facts")
    store_volume(folder / "em.zarr", grey_values((2, 64, 64), top=256))
    network = random_network(UNetArchitecture.planar(16, 2, dropout=0.0))
    save_softmax(folder / "model.safetensors", network, Intensity(127.0, 70.0))
    return folder


PREDICT = ("--model", "model.safetensors", "--block", "1,64,64", "--dtype", "float32",
           "--workers", "1")  # fmt: skip


@pytest.mark.cluster
@pytest.mark.parametrize("isa", ["AVX2", "SSE41"])
def test_what_other_kernels_made_is_kept_and_the_words_say_why_it_differs(
    case: Path, isa: str
) -> None:
    # Where the processor has nothing beyond it the kernels are the same, and bits are compared.
    output, variables = f"{isa}.zarr", {"ONEDNN_MAX_CPU_ISA": isa}
    there, here = facts_under(**variables), facts_under()
    begun = run(case, "predict", "em.zarr", output, *PREDICT, "--region", "z=0:1", **variables)
    assert begun.returncode == 0, begun.stderr
    before = files_below(case / output)
    resumed = run(case, "predict", "em.zarr", output, *PREDICT)
    if there["digest"] == here["digest"]:
        assert resumed.returncode == 0, resumed.stderr
    else:
        assert resumed.returncode == 1
        assert f"ONEDNN_MAX_CPU_ISA is not set, and not '{isa}'" in resumed.stderr
        assert files_below(case / output) == before
        done = run(case, "predict", "em.zarr", output, *PREDICT, **variables)
        assert done.returncode == 0, done.stderr
    shards = files_below(case / output)
    verified = run(case, "verify", output, "--recompute", "1.0", "--delete-bad",
                   "--source", "em.zarr", "--model", "model.safetensors", "--json")  # fmt: skip
    assert verified.returncode == 0, verified.stderr
    assert files_below(case / output) == shards
    found = json.loads(verified.stdout)
    assert (found["recomputed"], found["flaws"], found["deleted"]) == (2, [], [])
    if there["digest"] == here["digest"]:
        assert found["notes"] == []
    else:
        assert f"digest was {there['digest']}, and is {here['digest']} here" in found["notes"][0]
        assert f"ONEDNN_MAX_CPU_ISA was {isa}, and is unset here" in found["notes"][0]
        assert "objects differ within it, by up to" in found["notes"][1]


@pytest.mark.cluster
def test_values_that_differ_under_one_digest_are_told_with_what_may_explain_it(case: Path) -> None:
    # As if a processor of another model had made it, which the digest could not tell apart.
    made = run(case, "predict", "em.zarr", "other.zarr", *PREDICT, ONEDNN_MAX_CPU_ISA="SSE41")
    assert made.returncode == 0, made.stderr
    location = str(case / "other.zarr")
    said = json.loads(json.dumps(dict(open_volume(location).attributes)))
    there, here = said["numeric_plan"]["digest"], numeric_facts("cpu")["digest"]
    said["numeric_plan"] |= {"digest": here, "processor": "Another 9000"}
    replace_attributes(location, said)
    shards = files_below(case / "other.zarr/0")
    verified = run(case, "verify", "other.zarr", "--recompute", "1.0", "--delete-bad",
                   "--delete-different", "--source", "em.zarr", "--model", "model.safetensors",
                   "--json")  # fmt: skip
    assert files_below(case / "other.zarr/0") == shards
    found = json.loads(verified.stdout)
    if there == here:
        assert (verified.returncode, found["flaws"]) == (0, [])
        return
    assert verified.returncode == 1
    assert [(flaw["kind"], flaw["tolerable"]) for flaw in found["flaws"]] == [
        ("different", True)
    ] * 2
    assert all("within the" in flaw["cause"] for flaw in found["flaws"])
    assert "processor was Another 9000, and is" in found["notes"][0]


# -- selecting one kind of node --------------------------------------------------------------------

SINFO = """#!/bin/sh
case "$*" in *--nodes=a1,a2,b1,b2*) ;; *) exit 1;; esac
printf 'a1|avx512,big\\na2|avx512,gpu\\nb1|avx2,big\\nb2|%s\\n' "$B2"
"""


@pytest.mark.parametrize(
    ("features", "option"),
    [("(null)", "--constraint=avx512"), ("avx512", "--exclude=b1,b2")],
)
def test_slurm_is_told_what_selects_one_kind_of_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: str, option: str
) -> None:
    # SLURM's own words, for more nodes than a test can start.
    (tmp_path / "sinfo").write_text(SINFO)
    (tmp_path / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("B2", features)
    assert slurm_selection(["a1", "a2"], ["b1", "b2"]) == option


def test_where_slurm_tells_nothing_nodes_are_excluded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_selection(["a1", "a2"], ["b1"]) == "--exclude=b1"


def test_a_message_of_kinds_names_nodes_what_differs_and_what_selects_one() -> None:
    here = [WorkerKind(HERE, f"a{n}", in_slurm=True) for n in range(3)]
    there = [WorkerKind({**HERE, "digest": "bb", "processor": "Y"}, "b0", in_slurm=True)]
    text = str(differ([here, there]))
    assert "are of 2 kinds. 3 on a0, a1, a2 are alike. 1 on b0: its convolutions give" in text
    assert "processor is 'Y', not 'X'" in text
    assert "select one with --directive=--exclude=b0" in text
    alike = [WorkerKind(HERE, "b0", in_slurm=True)]
    assert "workers of one node differ" in str(differ([alike, there]))
