"""Grey values of training volumes: other scales, hot pixels, void, and the model's rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.cluster import ClusterOptions
from pipelines.outputs import GreyRule
from pipelines.predict.command import run_prediction
from pipelines.predict.intensity_rule import IntensityRule, unclipped_warning
from pipelines.predict.job import Choices
from pipelines.train.findings import warnings
from tests.support.runs import run_tilenet, store_volume
from tests.train.test_train_job import cells, em, job
from tilenet.errors import InvalidData, InvalidRecipe
from tilenet.geometry import Box
from tilenet.inference import ModelHeader, read_header, save_model
from tilenet.synthetic import synthetic_em
from tilenet.volumes import Intensity, OwnStatistics, VolumeReference, open_volume

__all__ = ["em"]

RAW = synthetic_em((6, 64, 72), seed=3).raw


@pytest.fixture
def labels(tmp_path: Path) -> str:
    return store_volume(tmp_path / "labels.zarr", cells())


@pytest.fixture
def other(tmp_path: Path, labels: str) -> str:
    """The same volume at another grey scale, with its labels."""
    raw = RAW.astype(np.uint16) * 100 + 20_000
    return f"{store_volume(tmp_path / 'other.zarr', raw)},{labels}"


def test_another_grey_scale_is_said_and_cured(em: str, labels: str, other: str) -> None:
    (warning,) = warnings(job(em, labels, also=[other]))
    assert warning.startswith(f"In {em}, grey values have mean -0.")
    assert "and standard deviation 0.0" in warning
    assert "--intensity volume" in warning
    cured = job(em, labels, {"intensity.rule": "volume"}, also=[other])
    assert list(warnings(cured)) == []
    first, second = (volume.grey.intensity for volume in cured.statistics.volumes)
    assert (first.mean, first.std) == pytest.approx((RAW.mean(), RAW.std()))
    assert second.mean == pytest.approx(100 * RAW.mean() + 20_000)
    assert second.std == pytest.approx(100 * RAW.std())
    # Patches of both look alike.
    drawn = cured.patches
    for number in (0, 1):
        grey = drawn._grey(number, Box((2, 10, 10), (3, 40, 40)))[0]
        expected = (RAW[2:3, 10:40, 10:40] - RAW.mean()) / RAW.std()
        assert grey == pytest.approx(expected, abs=1e-4)


def test_pooled_statistics_are_those_of_all_voxels(em: str, labels: str, other: str) -> None:
    both = np.concatenate([RAW.ravel(), RAW.ravel().astype(np.uint16) * 100 + 20_000])
    for volume in job(em, labels, also=[other]).statistics.volumes:
        rule = volume.grey.intensity
        assert (rule.mean, rule.std) == pytest.approx((both.mean(), both.std()))
        assert (rule.low, rule.high) == (None, None)
    clip = {"intensity.clip": (1, 70)}
    low, high = np.percentile(both, (1, 70), method="inverted_cdf")
    for volume in job(em, labels, clip, also=[other]).statistics.volumes:
        rule = volume.grey.intensity
        assert (rule.low, rule.high) == (low, high)
        assert rule.mean == pytest.approx(both.clip(low, high).mean())
        assert rule.std == pytest.approx(both.clip(low, high).std())


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_hot_pixels_are_said_and_clipped(tmp_path: Path, labels: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    raw = rng.normal(2000, 400, RAW.shape).astype(dtype)
    hot = rng.random(raw.shape) < 0.002
    raw[hot] = 65_535 if dtype == "uint16" else 1e30
    path = store_volume(tmp_path / "hot.zarr", raw)
    (warning,) = warnings(job(path, labels))
    assert warning.startswith(f"In {path}, 0.5% of the voxels carry ")
    assert "--clip 0.5,99.5" in warning
    cured = job(path, labels, {"intensity.clip": (0.5, 99.5)})
    assert list(warnings(cured)) == []
    rule = cured.statistics.intensity
    assert (rule.low, rule.high) == tuple(np.percentile(raw, (0.5, 99.5), method="inverted_cdf"))
    assert rule.std == pytest.approx(raw[~hot].std(), rel=0.05)
    assert abs(cured.patches.sample(0).grey).max() < 4
    # Too little is clipped, which is said again.
    assert len(list(warnings(job(path, labels, {"intensity.clip": (0.1, 99.9)})))) == 1


def test_void_is_left_out_of_the_statistics(tmp_path: Path, labels: str) -> None:
    raw = RAW.copy()
    raw[raw == 0] = 1
    raw[:, :, 50:] = 0
    path = store_volume(tmp_path / "void.zarr", raw)
    rule = job(path, labels, {"intensity.void": 0}).statistics.intensity
    assert (rule.mean, rule.std) == pytest.approx((raw[raw > 0].mean(), raw[raw > 0].std()))
    assert rule.mean != pytest.approx(job(path, labels).statistics.intensity.mean)


def test_a_rule_may_be_given_in_numbers(em: str, labels: str) -> None:
    for text, rule in (("120,30", Intensity(120, 30)), ("window:0,200", Intensity.window(0, 200))):
        assert job(em, labels, {"intensity.rule": text}).statistics.intensity == rule
    (warning,) = warnings(job(em, labels, {"intensity.rule": "20000,5"}))
    assert "have mean -" in warning
    for changes, words in (
        ({"intensity.rule": "model"}, "Give pooled, volume, MEAN,STD or window"),
        ({"intensity.rule": "1,0"}, "not positive"),
        ({"intensity.clip": (9, 3)}, "lipping 9,3: is not a range"),
        ({"intensity.rule": "120,30", "intensity.clip": (1, 99)}, "the rule 120,30 has none"),
    ):
        with pytest.raises(InvalidRecipe, match=words):
            job(em, labels, changes)


@pytest.mark.parametrize("clip", [None, (2, 90)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_volumes_own_statistics_are_of_all_of_it_as_predict_takes_them(
    tmp_path: Path, dtype: str, clip: tuple[float, float] | None
) -> None:
    raw = RAW // 2
    raw[:, 40:] += 120
    path = store_volume(tmp_path / "em.zarr", raw.astype(dtype))
    crop = store_volume(tmp_path / "crop.zarr", cells()[:, :40])
    rule = {"intensity.rule": "volume", "intensity.clip": clip}
    held_out = {"validation.region": ((4, 6), (0, 40), (0, 72))}
    found = [
        job(path, crop, rule, label_offset=(0, 0, 0)),
        job(path, crop, rule | held_out, label_offset=(0, 0, 0)),
        job(path, crop, rule, label_offset=(0, 0, 0), region=((1, 3), (0, 40), (0, 72))),
        job(path, store_volume(tmp_path / "all.zarr", cells()), rule),
    ]
    header = ModelHeader(found[0].architecture, own=found[0].recipe.intensity.own)
    from tilenet.inference import UNet

    save_model(tmp_path / "m.safetensors", UNet(header.architecture), header)
    stated = predict(path, tmp_path / "m.safetensors", tmp_path / "p.zarr").attributes["intensity"]
    assert stated["rule"] == "volume"
    for prepared in found:
        numbers = prepared.statistics.intensity
        assert numbers.to_dict() == pytest.approx(stated["numbers"])
    kept = raw if clip is None else raw.clip(*np.percentile(raw, clip, method="inverted_cdf"))
    assert (numbers.mean, numbers.std) == pytest.approx((kept.mean(), kept.std()))
    # The figures of the region say how it looks to the network.
    grey = found[0].statistics.volumes[0].grey
    assert grey.mean == pytest.approx((kept[:, :40].mean() - kept.mean()) / kept.std())


def test_a_region_unlike_its_whole_volume_is_said(tmp_path: Path) -> None:
    raw = RAW.astype(np.float32)
    raw[:, 40:] = 1e6
    path = store_volume(tmp_path / "em.zarr", raw)
    crop = store_volume(tmp_path / "crop.zarr", cells()[:, :40])
    rule = {"intensity.rule": "volume"}
    (warning,) = warnings(job(path, crop, rule, label_offset=(0, 0, 0)))
    assert warning.startswith(f"In the training region of {path}, grey values have mean -0.7")
    assert "by the statistics of the whole volume" in warning
    cured = job(path, crop, rule | {"intensity.void": 1e6}, label_offset=(0, 0, 0))
    assert list(warnings(cured)) == []


# --- the rule in a model, and in predict -----------------------------------------------------


def predict(volume: str, model: Path, output: Path, **rule: Any) -> Any:
    run_prediction(
        VolumeReference(volume), str(output), model=str(model),
        cluster=ClusterOptions(workers=1, slots=1, threads=1, memory=2**30),
        choices=Choices(intensity=IntensityRule(**rule), dtype="float32"),
    )  # fmt: skip
    return open_volume(str(output))


@pytest.fixture
def own(em: str, labels: str, tmp_path: Path) -> Path:
    """A model of the rule that every volume has its own statistics, clipped."""
    network = load_model_of(em, labels, tmp_path)
    header = ModelHeader(network.architecture, own=OwnStatistics((2, 98)))
    save_model(tmp_path / "own.safetensors", network, header)
    return tmp_path / "own.safetensors"


def load_model_of(em: str, labels: str, folder: Path) -> Any:
    from tilenet.inference import UNet

    return UNet(job(em, labels).architecture)


def test_a_trained_model_keeps_the_rule(em: str, labels: str, other: str, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    options = ("--base-channels", "2", "--depth", "1", "--patch", "1,20,20", "--threads", "1")
    done = run_tilenet(
        "train", em, labels, "--also", other, *options, "--steps", "1", "--output", output,
        "--intensity", "volume", "--clip", "1,99", "--void", "3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    header = read_header(output)
    assert header.own == OwnStatistics((1, 99), 3)
    recipe = header.training["recipe"]["intensity"]
    assert recipe == {"rule": "volume", "clip": [1, 99], "void": 3}
    shown = json.loads(run_tilenet("info", output, "--json").stdout)
    assert shown["intensity"] == {"rule": "volume", "clip": [1, 99], "void": 3}


def test_predict_uses_the_volumes_own_where_the_model_says_so(
    em: str, own: Path, other: str, tmp_path: Path
) -> None:
    plain = predict(em, own, tmp_path / "plain.zarr")
    scaled = predict(other.split(",")[0], own, tmp_path / "scaled.zarr")
    whole = Box.of_shape(plain.shape)
    assert plain.read(whole) == pytest.approx(scaled.read(whole), abs=1e-4)
    stated = plain.attributes["intensity"]
    assert (stated["rule"], stated["clip"], stated["void"]) == ("volume", [2, 98], None)
    low, high = np.percentile(RAW, (2, 98), method="inverted_cdf")
    assert (stated["numbers"]["low"], stated["numbers"]["high"]) == (low, high)
    assert stated["numbers"]["std"] == pytest.approx(RAW.clip(low, high).std())
    # Continued, the numbers are those that it was begun with.
    header, said = read_header(own), GreyRule(**stated)
    rule = IntensityRule().of_model(header)
    assert rule.known(header, said) == Intensity.from_dict(stated["numbers"])
    for other_rule in (IntensityRule(clip=(5, 95)), IntensityRule("volume", void=3)):
        assert other_rule.of_model(header).known(header, said) is None
    done = run_tilenet("verify", tmp_path / "plain.zarr", "--model", own, "--source", em)
    assert done.returncode == 0, done.stdout + done.stderr


def test_clipping_goes_with_the_volumes_own_statistics_alone(
    em: str, labels: str, tmp_path: Path
) -> None:
    architecture = load_model_of(em, labels, tmp_path).architecture
    recipe = {"intensity": {"rule": "pooled", "clip": [1, 99.5], "void": None}}
    header = ModelHeader(
        architecture, Intensity(9, 3, 1.0, 80.0), training={"recipe": recipe, "steps": 3}
    )
    with pytest.raises(InvalidData, match=r"--clip 1,99: .* Say --intensity volume"):
        IntensityRule(clip=(1, 99)).of_model(header)
    warning = unclipped_warning(header, IntensityRule("volume"))
    assert warning is not None
    assert "was trained on grey values clipped at the percentiles 1,99.5, and" in warning
    assert "Say --clip 1,99.5 " in warning
    # A window's limits are no percentiles.
    window = replace(header, intensity=Intensity.window(0, 200))
    for training in ({}, {"recipe": "mine"}, {"recipe": {"intensity": {"rule": "window:0,200"}}}):
        own = IntensityRule("volume")
        assert unclipped_warning(replace(window, training=training), own) is None
    for rule in (IntensityRule(), IntensityRule("volume", clip=(1, 99))):
        assert unclipped_warning(header, rule) is None


def test_a_model_without_the_rule_is_written_as_version_1(
    em: str, labels: str, own: Path, tmp_path: Path
) -> None:
    header = read_header(own)
    assert json.loads(header.to_json())["format_version"] == 2
    pooled = json.loads(replace(header, own=None).to_json())
    assert pooled["format_version"] == 1
    assert "own_statistics" not in pooled
    clipped = replace(header, own=None, intensity=Intensity(1, 2, 0.0, 9.0))
    assert json.loads(clipped.to_json())["format_version"] == 1
    assert ModelHeader.from_json(header.to_json()) == header
