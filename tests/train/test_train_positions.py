"""Labels that are a crop of their raw volume are learnt from where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from pipelines import cli
from pipelines.train import TrainingOptions
from pipelines.train.job import TrainingJob, prepare
from tests.support.runs import store_volume
from tilenet.errors import InvalidData, NonFiniteValues
from tilenet.geometry import Box
from tilenet.synthetic import synthetic_em
from tilenet.training import identities
from tilenet.training.label_values import IGNORED
from tilenet.volumes import VolumeReference

SHAPE = (6, 64, 80)

#: Where the labels lie, and where the world begins, nanometres.
CROP, ORIGIN = Box((2, 20, 24), (5, 48, 64)), (500.0, 40.0, 80.0)

THERE = (600.0, 120.0, 176.0)

PLAIN: dict[str, Any] = {
    "network.base_channels": 2,
    "network.depth": 1,
    "optimization.patch": (1, 20, 20),
    "augmentation.flips": False,
    "augmentation.rotation": "none",
    "augmentation.elastic_std": (0, 0, 0),
    "augmentation.grey_slope": 0,
    "augmentation.grey_shift": 0,
}

WARPED = PLAIN | {"augmentation.rotation": "any", "augmentation.elastic_std": (0, 3, 3)}


def truth() -> npt.NDArray[np.uint8]:
    return (synthetic_em(SHAPE, seed=3).cells > 0).astype(np.uint8)


def weights() -> npt.NDArray[np.float32]:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EM, all of its labels and weights, and a crop of both: stated, and not."""
    path = tmp_path_factory.mktemp("positions")
    store_volume(path / "em.zarr", synthetic_em(SHAPE, seed=3).raw, translation=ORIGIN)
    store_volume(path / "all.zarr", truth(), translation=ORIGIN)
    store_volume(path / "crop.zarr", truth()[CROP.slices], translation=THERE)
    store_volume(path / "mute.zarr", truth()[CROP.slices])
    store_volume(path / "weights.zarr", weights()[CROP.slices], translation=THERE)
    store_volume(path / "all_weights.zarr", weights(), translation=ORIGIN)
    return path


def job(folder: Path, labels: str, changes: dict[str, Any] = PLAIN, **more: Any) -> TrainingJob:
    options = TrainingOptions(output=str(folder / "m.safetensors"), changes=changes, **more)
    path = folder / (labels if "/" in labels else f"{labels}.zarr")
    return prepare(VolumeReference(str(folder / "em.zarr")), VolumeReference(str(path)), options)


def test_a_patch_has_the_labels_of_its_own_voxels_and_grey_values_from_around_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = job(folder, "crop", weight_map=str(folder / "weights.zarr"))
    assert f"em.zarr: trained on is {CROP}." in capsys.readouterr().err
    assert prepared.volumes[0].region == CROP
    raw = prepared.volumes[0].raw.read(Box.of_shape(SHAPE)).astype(np.float32)
    intensity = prepared.statistics.intensity
    assert intensity.mean == pytest.approx(raw[CROP.slices].mean())
    grey = (raw - intensity.mean) / intensity.std
    halo = prepared.architecture.halo[1]
    drawn = prepared.patches
    for index in range(6):
        patch = drawn.augmented(drawn.sample(index))
        # The weights say which voxels these are.
        z, y, x = np.unravel_index(int(patch.weights[0, 0, 0, 0].round()) - 1, SHAPE)
        assert np.array_equal(patch.classes[0, 0].numpy(), truth()[z, y : y + 20, x : x + 20])
        around = grey[z, y - halo : y + 20 + halo, x - halo : x + 20 + halo]
        np.testing.assert_allclose(patch.x[0, 0, 0].numpy(), around, atol=1e-4)


def test_a_crop_trains_as_the_whole_does_where_all_but_the_crop_is_ignored(folder: Path) -> None:
    values = np.full(SHAPE, 9, np.uint8)
    values[CROP.slices] = truth()[CROP.slices]
    store_volume(folder / "masked.zarr", values, translation=ORIGIN)
    changes = WARPED | {"targets.ignore": 9, "optimization.patch": (1, 28, 40)}
    ours = job(folder, "crop", changes, weight_map=str(folder / "weights.zarr"))
    whole = job(folder, "masked", changes, weight_map=str(folder / "all_weights.zarr"))
    boxes = (ours.patches._needed((3, 33.5, 43.5 + n), ours.patches.patch) for n in range(3))
    for box in boxes:
        mine, theirs = (found.patches._targets(found.volumes[0], box) for found in (ours, whole))
        known = mine[0] != IGNORED
        assert 0 < known.sum() < known.size
        assert np.array_equal(mine[0], theirs[0])
        assert np.array_equal(mine[1][known], theirs[1][known])


@pytest.mark.parametrize("labels", ["crop", "mute"])
def test_the_offset_that_is_given_is_in_voxels_of_the_raw_volume(
    folder: Path, capsys: pytest.CaptureFixture[str], labels: str
) -> None:
    prepared = job(folder, labels, label_offset=(1, 20, 24))
    there = Box((1, 20, 24), (4, 48, 64))
    assert prepared.volumes[0].region == there
    found = prepared.volumes[0].labels.read(there)
    assert np.array_equal(found, truth()[CROP.slices])
    says = "--label-offset 1,20,24 is taken, not the positions (600, 120, 176 nm and 500, 40, 80 nm"
    assert (says in capsys.readouterr().err) == (labels == "crop")
    assert identities(prepared.volumes)[0]["label_offset"] == [1, 20, 24]


def test_weights_lie_where_they_do_in_their_labels(folder: Path) -> None:
    moved = job(
        folder, "crop", label_offset=(1, 20, 24), weight_map=str(folder / "weights.zarr")
    ).volumes[0]
    assert moved.weights is not None
    assert np.array_equal(moved.weights.read(moved.region), weights()[CROP.slices])
    larger = job(folder, "crop", weight_map=str(folder / "all_weights.zarr")).volumes[0]
    assert larger.weights is not None
    assert np.array_equal(larger.weights.read(CROP), weights()[CROP.slices])


def test_a_held_out_part_of_a_crop_is_read_for_no_patch(folder: Path) -> None:
    held_out = Box((2, 20, 44), (5, 48, 64))
    changes = WARPED | {"validation.region": tuple(zip(held_out.start, held_out.stop, strict=True))}
    prepared = job(folder, "crop", changes)
    assert prepared.held_out == held_out
    assert prepared.volumes[0].region == Box((2, 20, 24), (5, 48, 44))
    assert prepared.volumes[0].readable == Box((0, 0, 0), (6, 64, 44))
    # The same raw volume again, with labels elsewhere in it.
    store_volume(folder / "left.zarr", truth()[:, :, :20], translation=ORIGIN)
    pair = f"{folder / 'em.zarr'},{folder / 'left.zarr'}"
    more = job(folder, "crop", changes, also=[pair]).volumes[1]
    assert (more.region, more.readable) == (
        Box((0, 0, 0), (6, 64, 20)),
        Box((0, 0, 0), (6, 64, 44)),
    )
    with pytest.raises(InvalidData, match="would train on the held-out box"):
        job(folder, "crop", changes, also=[f"{folder / 'em.zarr'},{folder / 'all.zarr'}"])
    beyond = WARPED | {"validation.region": ((2, 5), (20, 48), (44, 65))}
    with pytest.raises(InvalidData, match=rf"leaves the labels .*, which lie at {CROP}"):
        job(folder, "crop", beyond)


def test_a_region_is_cut_to_the_labels_and_nothing_outside_of_it_is_read(folder: Path) -> None:
    wanted = Box((3, 0, 30), (6, 64, 80))
    region = tuple(zip(wanted.start, wanted.stop, strict=True))
    volume = job(folder, "crop", region=region).volumes[0]
    assert volume.region == Box((3, 20, 30), (5, 48, 64))
    assert volume.readable == wanted
    with pytest.raises(InvalidData, match="lies outside of the labels"):
        job(folder, "crop", region=((0, 2), (0, 64), (0, 80)))


def test_labels_that_coincide_are_told_as_they_were(folder: Path) -> None:
    told = identities(job(folder, "all").volumes)[0]
    assert set(told) == {"raw", "labels", "weights", "region"}


def test_finer_labels_are_refused_naming_the_level_that_fits(folder: Path) -> None:
    fine = np.repeat(np.repeat(truth()[CROP.slices], 2, 1), 2, 2)
    path, size = folder / "fine.zarr", (50.0, 2.0, 2.0)
    store_volume(path, fine, voxel_size=size, translation=(600.0, 119.0, 175.0))
    with pytest.raises(
        InvalidData, match=r"have voxels of .50.0, 2.0, 2.0. nm.* Correct the voxel"
    ):
        job(folder, "fine")
    group = zarr.open_group(str(path), mode="r+")
    group.create_array("1", data=truth()[CROP.slices])
    stated: Any = group.attrs.asdict()
    level = {
        "path": "1",
        "coordinateTransformations": [
            {"type": "scale", "scale": [50, 4, 4]},
            {"type": "translation", "translation": list(THERE)},
        ],
    }
    stated["ome"]["multiscales"][0]["datasets"].append(level)
    group.attrs.put(stated)
    with pytest.raises(InvalidData, match=r"Give the path of level 1 of .*fine.zarr, which fits"):
        job(folder, "fine")
    volume = job(folder, "fine.zarr/1").volumes[0]
    assert np.array_equal(volume.labels.read(CROP), truth()[CROP.slices])


def test_a_raw_volume_that_states_no_voxel_size_where_others_do_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store_volume(folder / "silent.zarr", synthetic_em(SHAPE, seed=3).raw, voxel_size=None)
    volume = job(folder, "all", also=[f"{path},{folder / 'all.zarr'}"]).volumes[1]
    said = capsys.readouterr().err
    assert f"Warning: {path}: No voxel size is stated, and {folder}/all.zarr states (50.0," in said
    assert "Warning: Raw volumes: Some state a voxel size, and some do not." in said
    # One of the two states a position, and they are of one shape.
    assert f"all.zarr: They are taken to lie where {path} does (500, 40, 80 nm and none)." in said
    assert volume.region == Box.of_shape(SHAPE)


def test_labels_as_cremi_states_them_lie_where_their_offset_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A resolution of both, an offset of the labels alone: the raw volume begins at 0.
    stored = {"raw": synthetic_em(SHAPE, seed=3).raw, "ids": truth()[CROP.slices]}
    group = zarr.create_group(str(folder / "cremi.zarr"), zarr_format=2)
    for name, values in stored.items():
        group.create_array(name, data=values).attrs["resolution"] = [50, 4, 4]
    group["ids"].attrs["offset"] = [100, 80, 96]
    source, labels = (VolumeReference(str(folder / "cremi.zarr" / name)) for name in stored)
    options = TrainingOptions(output=str(folder / "m.safetensors"), changes=PLAIN)
    volume = prepare(source, labels, options).volumes[0]
    assert volume.region == CROP
    assert np.array_equal(volume.labels.read(CROP), truth()[CROP.slices])
    said = "raw states no position, so it is taken to begin at 0."
    assert said in capsys.readouterr().err


def test_a_stated_region_over_the_held_out_box_is_refused_whatever_the_labels_cut(
    folder: Path, tmp_path: Path
) -> None:
    # Weights leave out what is held out, and grey values of all of the region are read.
    held_out = PLAIN | {"validation.region": ((0, 2), (0, 64), (0, 80))}
    late = store_volume(tmp_path / "late.zarr", weights()[2:], translation=(600.0, 40.0, 80.0))
    with pytest.raises(InvalidData, match=r"training region z=0:6.* overlaps the held-out box"):
        job(folder, "all", held_out, weight_map=late, region=((0, 6), (0, 64), (0, 80)))
    region = ((2, 5), (0, 64), (0, 80))
    for more in ({}, {"region": region}):
        volume = job(folder, "all", held_out, weight_map=late, **more).volumes[0]
        assert volume.readable.start == volume.region.start == (2, 0, 0)


def test_what_cuts_the_region_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = store_volume(tmp_path / "late.zarr", weights()[2:], translation=(600.0, 40.0, 80.0))
    there = Box((2, 0, 0), SHAPE)
    job(folder, "all", weight_map=late)
    said = capsys.readouterr().err
    assert f"{late} lie at {there} of {folder}/em.zarr: trained on is {there}." in said
    assert "all.zarr lie at" not in said
    with pytest.raises(InvalidData, match=rf"lies outside of the weights {late}, which are in z=2"):
        job(folder, "all", weight_map=late, region=((0, 2), (0, 64), (0, 80)))


def test_further_labels_that_do_not_fit_are_not_told_of_the_offset(folder: Path) -> None:
    pair = f"{folder / 'em.zarr'},{folder / 'mute.zarr'}"
    with pytest.raises(
        InvalidData, match=r"shape.*a crop that states its position.*--label-offset"
    ):
        job(folder, "all", also=[pair])
    with pytest.raises(InvalidData, match="or say where their first voxel lies: --label-offset Z"):
        job(folder, "mute")


@pytest.mark.parametrize("positions", ["uniform", "labelled"])
def test_grey_values_around_the_labels_are_finite_as_far_as_a_patch_reads(
    folder: Path, tmp_path: Path, positions: str
) -> None:
    changes = PLAIN | {"sampling.positions": positions, "augmentation.elastic_std": (0, 0, 1)}
    prepared = job(folder, "crop", changes)
    far = prepared.patches.reachable(0)
    assert far.contains(CROP)
    # Patches read no further.
    reached = []
    for index in range(200):
        _, start = prepared.patches._position(np.random.default_rng([0, index]))
        centre = [a + (n - 1) / 2 for a, n in zip(start, prepared.patches.patch, strict=True)]
        box = prepared.patches._needed(centre, prepared.patches.input_shape)
        reached.append(box.intersect(Box.of_shape(SHAPE)))
    assert all(far.contains(box) for box in reached)
    if positions == "uniform":
        assert far.start[1] == min(box.start[1] for box in reached)
    for place in (far.start, (0, 0, 0)):
        broken = synthetic_em(SHAPE, seed=3).raw.astype(np.float32)
        broken[place] = np.nan
        other = tmp_path / str(place[0])
        store_volume(other / "em.zarr", broken, translation=ORIGIN)
        crop = str(folder / "crop.zarr")
        if place == (0, 0, 0):  # no patch reads it
            assert job(other, crop, changes).volumes
            continue
        with pytest.raises(InvalidData, match=rf"em.zarr in .*: holds 1 values .*--region {CROP}"):
            job(other, crop, changes)
        region = tuple(zip(CROP.start, CROP.stop, strict=True))
        assert job(other, crop, changes, region=region).volumes
        # The statistics of a whole volume read all of it.
        with pytest.raises(NonFiniteValues):
            job(other, crop, changes | {"intensity.rule": "volume"}, region=region)


@pytest.mark.parametrize("rank", [None, "0", "1"])
def test_one_of_several_processes_says_what_is_doubtful(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, rank: str | None,
) -> None:  # fmt: skip
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    raw = synthetic_em(SHAPE, seed=3).raw
    silent = store_volume(tmp_path / "silent.zarr", raw, voxel_size=None)
    arguments = ["train", silent, str(folder / "crop.zarr"), "--label-offset", "1,20,24"]
    small = ("--base-channels", "2", "--depth", "1", "--patch", "1,20,20", "--threads", "1")
    output = ("--output", str(tmp_path / "m.safetensors"), "--preview", str(tmp_path))
    assert cli.run([*arguments, *small, *output]) == 0
    said = capsys.readouterr().err
    for text in ("Warning: ", "trained on is z=1:4", "; classes 0 ("):
        assert (text in said) == (rank != "1")
    # What is wrong is said by each.
    assert cli.run([*arguments[:-1], "9,20,24", *small, *output]) == 1
    assert "do not overlap" in capsys.readouterr().err
