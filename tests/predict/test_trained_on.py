"""A prediction says what its model was trained on, and that decides nothing."""

from __future__ import annotations

from pathlib import Path

from pipelines.outputs import Prediction
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
    assert volume["held_out"] is None


def test_what_was_held_out_is_of_the_first_volume() -> None:
    volumes = {n: {"raw": n, "labels": "l", "weights": None, "region": "r"} for n in ("0", "1")}
    recipe = {"validation": {"region": [[1, 2], [0, 40], [3, 44]]}}
    architecture = UNetArchitecture(
        channels=(2, 3), kernels=((1, 3, 3), (1, 3, 3)), pools=((1, 2, 2),)
    )
    header = ModelHeader(architecture, training={"volumes": volumes, "recipe": recipe})
    assert trained_on(header) == [
        {"raw": "0", "labels": "l", "region": "r", "held_out": "z=1:2,y=0:40,x=3:44"},
        {"raw": "1", "labels": "l", "region": "r", "held_out": None},
    ]
    assert trained_on(ModelHeader(architecture)) == []


def test_an_output_that_does_not_say_it_goes_on() -> None:
    stated = dict(open_volume(str(OLD / "whole.zarr")).attributes)
    before = Prediction.from_attributes(stated)
    now = Prediction.from_attributes({**stated, "trained_on": [{"raw": "0"}]})
    assert now.to_attributes()["trained_on"] == [{"raw": "0"}]
    assert now.determinants() == before.determinants()
