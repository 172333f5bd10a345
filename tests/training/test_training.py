"""Patches, the loss and the loop, each against something dumber."""

from __future__ import annotations

import math
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.train import TrainingOptions
from pipelines.train.job import TrainingJob, prepare
from tests.support.runs import store_volume
from tilenet.errors import InvalidData, TilenetError, TrainingDiverged
from tilenet.geometry import Box
from tilenet.inference import UNet
from tilenet.metrics import IsbiTally, isbi_figures, tally_section
from tilenet.synthetic import synthetic_em
from tilenet.training import (
    CheckpointRecord,
    Patch,
    Patches,
    State,
    Step,
    make_state,
    resume,
    save_checkpoint,
    train,
    validate,
    validation,
)
from tilenet.training.augmentation import Deformation
from tilenet.training.loop import weighted_loss
from tilenet.training.pass_blocks import PASS_VOXELS, _pass_block
from tilenet.training.sampling import Prefetch
from tilenet.training.volumes import target_values
from tilenet.volumes import NewVolume, Placed, VolumeReference, create_volume, reopen_for_writing

PLAIN = {
    "augmentation.flips": False,
    "augmentation.rotation": "none",
    "augmentation.elastic_std": (0, 0, 0),
    "augmentation.grey_slope": 0,
    "augmentation.grey_shift": 0,
}
TINY = {
    "network.base_channels": 2,
    "network.depth": 1,
    "optimization.patch": (1, 20, 20),
    "optimization.steps": 6,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic EM with its cells, bodies, and weights that are ten times the class."""
    path = tmp_path_factory.mktemp("training")
    em = synthetic_em((6, 64, 72), seed=3)
    cells = (em.cells > 0).astype(np.uint8)
    arrays: dict[str, Any] = {
        "em": em.raw,
        "cells": em.cells,
        "bodies": em.instances,
        "weights": 10 * cells.astype(np.float32),
        "flat": np.zeros_like(cells),
        "real": 0.5 * cells.astype(np.float32),
        "small": cells[:4],
        "many": (np.arange(72) * np.ones((6, 64, 1))).astype(np.uint8),
        "partly": np.where(np.arange(72) < 36, cells, 7).astype(np.uint8),
    }
    for name, values in arrays.items():
        store_volume(path / f"{name}.zarr", values)
    store_volume(path / "coarse.zarr", em.cells, voxel_size=(50.0, 8.0, 8.0))
    return path


def job(folder: Path, labels: str = "cells", **more: Any) -> TrainingJob:
    changes = {**TINY, **more.pop("changes", {})}
    options = TrainingOptions(output=str(folder / "m.safetensors"), changes=changes, **more)
    reference = VolumeReference(str(folder / f"{labels}.zarr"))
    return prepare(VolumeReference(str(folder / "em.zarr")), reference, options)


def patches(prepared: TrainingJob) -> Patches:
    return prepared.patches


# --- patches ---------------------------------------------------------------------------------


def test_an_undeformed_patch_is_a_piece_of_the_mirrored_region(folder: Path) -> None:
    prepared = job(folder, changes=PLAIN, region=((1, 5), (0, 64), (8, 72)))
    drawn, volume = patches(prepared), prepared.volumes[0]
    raw = volume.raw.read(volume.region).astype(np.float32)
    labels = volume.labels.read(volume.region)
    intensity = prepared.statistics.intensity
    assert intensity.mean == pytest.approx(raw.mean())
    assert intensity.std == pytest.approx(raw.std())
    halo = prepared.architecture.halo[1]
    padded = np.pad(
        (raw - intensity.mean) / intensity.std, [(0, 0), (halo,) * 2, (halo,) * 2], "reflect"
    )
    sides = [n - 19 for n in raw.shape[1:]]
    for index in range(8):
        patch = drawn.augmented(drawn.sample(index))
        grey, classes = patch.x[0, 0, 0].numpy(), patch.classes[0, 0].numpy()
        size = len(grey)
        found = [
            (z, y, x)
            for z in range(len(raw))
            for y in range(sides[0])
            for x in range(sides[1])
            if abs(padded[z, y : y + size : 9, x : x + size : 9] - grey[::9, ::9]).max() < 1e-3
        ]
        ((z, y, x),) = found
        assert np.abs(padded[z, y : y + size, x : x + size] - grey).max() < 1e-3
        assert np.array_equal(labels[z, y : y + 20, x : x + 20] > 0, classes == 1)


def test_nothing_outside_of_the_region_reaches_a_patch(folder: Path, tmp_path: Path) -> None:
    em = synthetic_em((6, 64, 72), seed=3)
    kept = (slice(0, 4), slice(0, 64), slice(0, 64))
    for name, values in (("em", em.raw), ("cells", em.cells), ("bodies", em.instances)):
        changed = np.full_like(values, 77)
        changed[kept] = values[kept]
        store_volume(tmp_path / f"{name}.zarr", changed)
    region = ((0, 4), (0, 64), (0, 64))
    for labels, changes in (("cells", {}), ("bodies", {"targets.binary": True, "targets.gap": 2})):
        ours, theirs = (
            patches(job(place, labels, region=region, changes=changes))
            for place in (folder, tmp_path)
        )
        for index in range(10):
            one, other = (p.augmented(p.sample(index)) for p in (ours, theirs))
            assert torch.equal(one.x, other.x)
            assert torch.equal(one.classes, other.classes)
            assert torch.equal(one.weights, other.weights)


def test_labels_and_weights_are_deformed_alike(folder: Path) -> None:
    prepared = job(folder, weight_map=str(folder / "weights.zarr"))
    drawn = patches(prepared)
    for index in range(6):
        patch = drawn.augmented(drawn.sample(index))
        assert patch.x.shape == (1, 1, *drawn.input_shape)
        assert patch.classes.shape == patch.weights.shape == (1, 1, 20, 20)
        # The weights are 10 times the class, but interpolated between voxels.
        assert ((patch.weights > 5) == (patch.classes == 1)).float().mean() > 0.97


def test_grey_values_and_labels_are_deformed_alike(folder: Path, tmp_path: Path) -> None:
    # The picture of the labels is the raw volume, so what is seen has to be what is asked for.
    cells = (synthetic_em((6, 64, 72), seed=3).cells > 0).astype(np.uint8)
    for name, values in (("em", 200 * cells), ("cells", cells)):
        store_volume(tmp_path / f"{name}.zarr", values)
    prepared = job(tmp_path, changes={"augmentation.grey_shift": 0})
    middle = prepared.statistics.intensity.apply(np.array([100.0]))[0]
    halo = prepared.architecture.halo[1]
    drawn = patches(prepared)
    for index in range(8):
        patch = drawn.augmented(drawn.sample(index))
        grey = patch.x[0, 0, :, halo:-halo, halo:-halo]
        curve = drawn.sample(index).curve
        border = float(curve.apply(torch.tensor([float(middle)]))[0])
        assert ((grey > border) == (patch.classes[0] == 1)).float().mean() > 0.97


def test_patches_are_deformed_on_their_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], Deformation.coordinates

    def coordinates(self: Deformation, shape: Any, device: Any = "cpu") -> torch.Tensor:
        seen.append(device)
        return real(self, shape, device)

    monkeypatch.setattr(Deformation, "coordinates", coordinates)
    drawn = patches(job(folder))
    patch = drawn.augmented(drawn.sample(0), "meta")
    assert seen == ["meta"]
    assert patch.x.device.type == patch.weights.device.type == "meta"


def test_without_a_weight_map_classes_are_balanced(folder: Path) -> None:
    prepared = job(folder)
    volume = prepared.volumes[0]
    inside = (volume.labels.read(volume.region) > 0).mean()
    assert prepared.statistics.class_weights() == pytest.approx(
        [0.5 / (1 - inside), 0.5 / inside], rel=1e-5
    )
    drawn = patches(prepared)
    patch = drawn.augmented(drawn.sample(0))
    weights = torch.from_numpy(prepared.statistics.class_weights())
    assert torch.equal(patch.weights, weights[patch.classes])


def test_ignored_voxels_weigh_nothing(folder: Path) -> None:
    changes = {**PLAIN, "targets.ignore": 7, "sampling.positions": "uniform"}
    prepared = job(folder, "partly", changes=changes)
    assert 7 not in prepared.statistics.counts
    drawn = patches(prepared)
    for index in range(10):
        patch = drawn.augmented(drawn.sample(index))
        unknown = patch.weights == 0
        balanced = torch.from_numpy(prepared.statistics.class_weights())[patch.classes]
        assert torch.equal(patch.weights, torch.where(unknown, 0.0, balanced))
    shares = [
        float((drawn.augmented(drawn.sample(i)).weights == 0).float().mean()) for i in range(30)
    ]
    assert 0.3 < np.mean(shares) < 0.7


def test_samples_are_the_same_in_any_order_and_ahead(folder: Path) -> None:
    drawn = patches(job(folder))
    alone = [drawn.sample(index) for index in (5, 1, 3)]
    ahead = list(Prefetch(drawn, [5, 1, 3]))
    for one, other in zip(alone, ahead, strict=True):
        assert np.array_equal(one.grey, other.grey)
        assert np.array_equal(one.targets, other.targets)
        assert one.index == other.index


def test_rare_classes_are_sought(folder: Path, tmp_path: Path) -> None:
    rare = np.zeros((6, 64, 72), np.uint8)
    rare[2, 30:33, 40:43] = 1
    store_volume(tmp_path / "rare.zarr", rare)
    store_volume(tmp_path / "em.zarr", synthetic_em((6, 64, 72), seed=3).raw)
    shares = {}
    for positions in ("uniform", "class"):
        drawn = patches(job(tmp_path, "rare", changes={**PLAIN, "sampling.positions": positions}))
        seen = [bool(drawn.augmented(drawn.sample(i)).classes.any()) for i in range(40)]
        shares[positions] = sum(seen) / len(seen)
    assert shares["uniform"] < 0.25 < 0.35 < shares["class"]


def test_several_volumes_are_all_drawn_from(folder: Path, tmp_path: Path) -> None:
    store_volume(tmp_path / "bright.zarr", np.full((2, 64, 64), 250, np.uint8))
    half = np.zeros((2, 64, 64), np.uint8)
    half[:, 32:] = 255
    store_volume(tmp_path / "half.zarr", half)
    prepared = job(
        folder, also=[f"{tmp_path / 'bright.zarr'},{tmp_path / 'half.zarr'}"], changes=PLAIN
    )
    drawn = patches(prepared)
    flat = [float(np.ptp(drawn.sample(i).grey)) == 0 for i in range(60)]
    assert 0.1 < sum(flat) / len(flat) < 0.5


def test_what_is_not_whole_is_not_trained_on(folder: Path, tmp_path: Path) -> None:
    new = NewVolume(
        shape=(6, 64, 72), dtype="float32", chunk=(8, 32, 32), shard=(8, 32, 32),
        voxel_size=(50.0, 4.0, 4.0), attributes={"kind": "weights"},
    )  # fmt: skip
    path = str(tmp_path / "weights.zarr")
    create_volume(path, new)
    with pytest.raises(InvalidData, match=r"objects that hold .* to its end"):
        job(folder, weight_map=path)
    inside = Box((0, 0, 0), (6, 32, 32))
    reopen_for_writing(path).write(inside, np.ones(inside.shape, np.float32))
    assert job(folder, weight_map=path, region=((0, 6), (0, 32), (0, 32))).statistics.counts


def test_raw_and_held_out_labels_have_to_be_whole_too(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    held_out = {"validation.region": ((0, 6), (0, 64), (0, 32))}
    rest = ((0, 6), (0, 64), (32, 72))
    for name in ("em", "cells"):
        shard = tmp_path / f"{name}.zarr" / "0" / "c" / "0" / "1" / "0"
        stored = shard.read_bytes()
        shard.unlink()
        chosen: list[dict[str, Any]] = [{}, {"changes": held_out, "region": rest}]
        for more in chosen:
            with pytest.raises(InvalidData, match="not stored yet, the first z=0:6,y=32:64,x=0:32"):
                job(tmp_path, **more)
        assert job(tmp_path, region=rest).statistics.counts
        shard.write_bytes(stored)


def test_volumes_of_other_voxels_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    em = synthetic_em((2, 64, 64), seed=4)
    size = (50.0, 8.0, 8.0)
    raw = store_volume(tmp_path / "raw.zarr", em.raw, voxel_size=size)
    cells = store_volume(tmp_path / "cells.zarr", em.cells, voxel_size=size)
    with pytest.raises(InvalidData, match="have voxels of"):
        job(folder, also=[f"{raw},{cells}"])


@given(st.tuples(st.integers(1, 300), st.integers(1, 30_000), st.integers(1, 30_000)))
def test_the_pass_over_a_volume_takes_bounded_memory(chunk: tuple[int, int, int]) -> None:
    assert math.prod(_pass_block(chunk)) <= PASS_VOXELS


# --- the loop --------------------------------------------------------------------------------


def test_the_loss_is_what_the_formula_says() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(1, 3, 1, 4, 5)).astype(np.float32)
    classes = rng.integers(0, 3, (1, 1, 4, 5))
    weights = rng.random((1, 1, 4, 5)).astype(np.float32)
    total = 0.0
    for y in range(4):
        for x in range(5):
            exponentials = np.exp(scores[0, :, 0, y, x])
            p = exponentials[classes[0, 0, y, x]] / exponentials.sum()
            total -= weights[0, 0, y, x] * np.log(p)
    patch = Patch(torch.zeros(1), torch.from_numpy(classes), torch.from_numpy(weights))
    ours = float(weighted_loss(torch.from_numpy(scores), patch))
    assert ours == pytest.approx(total / weights.sum(), rel=1e-5)
    nothing = Patch(torch.zeros(1), torch.from_numpy(classes), torch.zeros(1, 1, 4, 5))
    assert float(weighted_loss(torch.from_numpy(scores), nothing)) == 0


def begin(prepared: TrainingJob) -> State:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return make_state(UNet(prepared.architecture), prepared.recipe.optimization)


def updates(state: State, drawn: Patches) -> Generator[Step, None, None]:
    return train(state, drawn, optimization=drawn.recipe.optimization)


@pytest.mark.parametrize(
    ("optimizer", "precision"), [("sgd", None), ("adamw", None), ("adamw", "bfloat16")]
)
def test_going_on_from_a_checkpoint_gives_the_same_bits(
    folder: Path, tmp_path: Path, optimizer: str, precision: str | None
) -> None:
    changes = {"optimization.optimizer": optimizer, "optimization.precision": precision}
    prepared = job(folder, changes=changes)
    drawn, whole = patches(prepared), begin(prepared)
    losses = [step.loss for step in updates(whole, drawn)]
    first = begin(prepared)
    begun = updates(first, drawn)
    halves = [next(begun).loss for _ in range(3)]
    begun.close()
    path = tmp_path / "m.checkpoint"
    save_checkpoint(path, first, CheckpointRecord(3, {"recipe": 1}, {"value": 2.0}))
    second = begin(prepared)
    record = resume(path, second, {"recipe": 1})
    assert (record.step, record.best, second.step) == (3, {"value": 2.0}, 3)
    halves += [step.loss for step in updates(second, drawn)]
    assert halves == losses
    for name, weights in whole.network.state_dict().items():
        assert torch.equal(weights, second.network.state_dict()[name])


def test_bfloat16_rounds_the_convolutions_and_nothing_else(folder: Path) -> None:
    first = {}
    for precision in ("float32", "bfloat16", None):
        prepared = job(folder, changes={"optimization.precision": precision})
        state = begin(prepared)
        first[precision] = next(updates(state, patches(prepared))).loss
        assert {w.dtype for w in state.network.parameters()} == {torch.float32}
    assert first["float32"] != first["bfloat16"] == pytest.approx(first["float32"], rel=0.02)
    assert first[None] == first["float32"], "CPUs compute in float32 unless told otherwise"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_learns(folder: Path, precision: str) -> None:
    changes = {
        "optimization.precision": precision,
        "optimization.optimizer": "adamw",
        "optimization.learning_rate": 0.01,
        "optimization.steps": 60,
        "network.base_channels": 4,
    }
    prepared = job(folder, changes=changes)
    losses = [step.loss for step in updates(begin(prepared), patches(prepared))]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_a_loss_that_is_not_finite_stops_before_the_update(folder: Path) -> None:
    prepared = job(folder)
    state = begin(prepared)
    with torch.no_grad():
        next(iter(state.network.parameters())).fill_(float("inf"))
    with pytest.raises(TrainingDiverged, match="diverged at step 0"):
        list(updates(state, patches(prepared)))
    assert state.step == 0


def test_validation_is_the_loss_and_the_errors_of_the_box(folder: Path) -> None:
    changes = {"validation.region": ((4, 6), (0, 64), (0, 72))}
    prepared = job(folder, changes=changes)
    assert str(prepared.volumes[0].region) == "z=0:4,y=0:64,x=0:72"
    network = UNet(prepared.architecture)
    for name, weights in network.named_parameters():
        torch.nn.init.zeros_(weights)
        if name.endswith("score.bias"):
            weights.data[1] = 2.0  # sure of the interior, everywhere
    box = prepared.held_out
    assert box is not None
    figures = validate(
        network,
        prepared.volumes[0],
        box=box,
        targets=prepared.recipe.targets,
        statistics=prepared.statistics,
        patch=(1, 20, 20),
    )
    truth = prepared.volumes[0].labels.read(box) > 0
    p = 1 / (1 + np.exp(-2.0))
    outside, inside = prepared.statistics.class_weights()
    weights_of = np.where(truth, inside, outside)
    expected = (weights_of * -np.log(np.where(truth, p, 1 - p))).sum() / weights_of.sum()
    assert figures.loss == pytest.approx(expected, rel=1e-5)
    share = truth.mean()
    assert figures.pixel_error == pytest.approx(1 - 2 * share / (1 + share), rel=1e-6)


@pytest.mark.parametrize(("kind", "patch"), [("planar", (1, 20, 20)), ("volumetric", (4, 20, 20))])
def test_validation_holds_a_few_sections_at_a_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, patch: tuple[int, int, int]
) -> None:
    region = ((0, 6), (0, 64), (40, 72))
    changes = {"validation.region": region, "network.kind": kind, "optimization.patch": patch}
    prepared = job(folder, changes=changes)
    box, network = prepared.held_out, UNet(prepared.architecture)
    assert box is not None
    shapes, kept = [], []

    def read(volume: Placed, box: Box, **more: Any) -> Any:
        shapes.append(box.shape)
        return target_values(volume, box, **more)

    def tally(labels: Any, proposal: Any, **more: Any) -> IsbiTally:
        kept.append((labels, proposal))
        return tally_section(labels, proposal, **more)

    monkeypatch.setattr(validation, "target_values", read)
    monkeypatch.setattr(validation, "tally_section", tally)
    figures = validation.validate(
        network,
        prepared.volumes[0],
        box=box,
        targets=prepared.recipe.targets,
        statistics=prepared.statistics,
        patch=patch,
    )
    assert max(shapes) == (patch[0], 64, 32)
    truth, foreground = (np.stack(sections) for sections in zip(*kept, strict=True))
    assert np.array_equal(truth, prepared.volumes[0].labels.read(box) > 0)
    expected = isbi_figures(truth, foreground, figures=["pixel", "rand"])
    assert (figures.pixel_error, figures.rand_error) == (expected.pixel, expected.rand)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("have the shape (4, 64, 72)", {"labels": "small"}),
        ("hold the value 0.5, and a class or an instance is a whole", {"labels": "real"}),
        ("hold the value 0 only", {"labels": "flat"}),
        ("instances, not classes", {"labels": "many"}),
        ("have voxels of (50.0, 8.0, 8.0) nm", {"labels": "coarse"}),
        ("is of type uint8", {"weight_map": "cells.zarr"}),
        ("Nearest legal sizes: 20 and 22", {"changes": {"optimization.patch": (1, 21, 20)}}),
        ("The largest that is legal for this network is 64", {
            "changes": {"optimization.patch": (1, 66, 20)},
        }),
        ("are 1 names, but the labels have 2", {"changes": {"targets.names": ["membrane"]}}),
        ("overlaps the held-out box", {
            "region": ((0, 3), (0, 64), (0, 72)),
            "changes": {"validation.region": ((2, 4), (0, 64), (0, 72))},
        }),
        ("Say what to train on with --region", {
            "changes": {"validation.region": ((2, 4), (0, 32), (0, 72))},
        }),
        ("is not RAW,LABELS", {"also": ["x.zarr"]}),
        ("does not exist", {"output": "no/m.safetensors"}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(folder: Path, words: str, options: dict[str, Any]) -> None:
    chosen = dict(options)
    labels = str(folder / f"{chosen.pop('labels', 'cells')}.zarr")
    if "weight_map" in chosen:
        chosen["weight_map"] = str(folder / chosen["weight_map"])
    changes = {**TINY, **chosen.pop("changes", {})}
    output = str(folder / chosen.pop("output", "m.safetensors"))
    references = VolumeReference(str(folder / "em.zarr")), VolumeReference(labels)
    chosen_options = TrainingOptions(output=output, changes=changes, **chosen)
    with pytest.raises(TilenetError) as caught:
        assert prepare(*references, chosen_options).outputs
    assert words in str(caught.value)
