"""A prediction says what its model was trained on, and that decides nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.outputs import Prediction
from pipelines.predict.intensity_rule import IntensityRule, unclipped_warning
from pipelines.predict.job import trained_on
from tilenet.inference import ModelHeader, read_header
from tilenet.networks import UNetArchitecture
from tilenet.volumes import open_volume

OLD = Path(__file__).parents[1] / "old" / "0.1.0"


def test_it_is_what_the_models_file_says() -> None:
    (volume,) = trained_on(read_header(OLD / "planar.safetensors"))
    assert volume["region"] == "z=0:4,y=0:40,x=0:44"
    assert volume["raw"].startswith("d943099f")
    assert volume["labels"].startswith("a8741d42")


def header(training: dict[str, Any]) -> ModelHeader:
    architecture = UNetArchitecture(
        channels=(2, 3), kernels=((1, 3, 3), (1, 3, 3)), pools=((1, 2, 2),)
    )
    return ModelHeader(architecture, training=training)


def test_it_is_of_every_volume() -> None:
    volumes = {n: {"raw": n, "labels": "l", "weights": None, "region": "r"} for n in ("0", "1")}
    assert trained_on(header({"volumes": volumes})) == [
        {"raw": "0", "labels": "l", "region": "r"},
        {"raw": "1", "labels": "l", "region": "r"},
    ]


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"volumes": "em.zarr"},
        {"volumes": ["em.zarr"]},
        {"volumes": {"0": "em.zarr"}},
        {"recipe": "mine", "volumes": {}},
        {"recipe": {"validation": "none"}, "volumes": {"0": None}},
    ],
)
def test_a_record_that_people_wrote_says_nothing(training: dict[str, Any]) -> None:
    assert trained_on(header(training)) == []
    assert unclipped_warning(header(training), IntensityRule("volume")) is None


def test_what_else_a_record_holds_does_not_matter() -> None:
    volumes = {"0": {"raw": "a"}}
    for recipe in ("mine", {"validation": {"region": [0, 1]}}):
        found = trained_on(header({"recipe": recipe, "volumes": volumes}))
        assert found == [{"raw": "a", "labels": None, "region": None}]


def test_an_output_that_does_not_say_it_goes_on() -> None:
    stated = dict(open_volume(str(OLD / "whole.zarr")).attributes)
    before = Prediction.from_attributes(stated)
    now = Prediction.from_attributes({**stated, "trained_on": [{"raw": "0"}]})
    assert now.to_attributes()["trained_on"] == [{"raw": "0"}]
    assert now.determinants() == before.determinants()
