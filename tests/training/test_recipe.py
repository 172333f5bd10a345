"""Recipes: ours are legal, and what cannot be meant is refused."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from pipelines.train import TrainingOptions
from pipelines.train.job import find_recipe, read_recipe, recipe_names
from tilenet.errors import InvalidRecipe
from tilenet.strict_toml import validate
from tilenet.training import Recipe
from tilenet.training.loop import learning_rate
from tilenet.training.recipe import Optimization


def make_recipe(values: dict[str, Any], where: str) -> Recipe:
    return validate(Recipe, values, where, InvalidRecipe)


def test_every_recipe_of_ours_is_legal() -> None:
    assert set(recipe_names()) >= {"isbi2012", "isbi2012-cpu", "dic-hela", "fib25-3d"}
    for name in recipe_names():
        recipe = read_recipe(TrainingOptions(output="", config=name))
        architecture = recipe.network.architecture(1, 2)
        assert recipe.optimization.patch is not None
        architecture.input_for(recipe.optimization.patch)
        assert make_recipe(recipe.to_dict(), "again") == recipe


def test_the_isbi_recipe_is_the_papers_network() -> None:
    recipe = read_recipe(TrainingOptions(output="", config="isbi2012"))
    assert recipe.network.architecture(1, 2).parameter_count == 31_030_658
    assert recipe.optimization.inertia == 0.99
    assert recipe.optimization.batch == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"optimization": {"momentun": 0.9}},
            "momentun: unknown key; did you mean momentum",
        ),
        ({"optimisation": {}}, "optimisation: unknown key; did you mean optimization"),
        ({"network": {"zzz": 1}}, "known are kind, base_channels"),
        ({"optimization": {"steps": 0}}, "optimization.steps = 0"),
        ({"optimization": {"optimizer": "adam"}}, "optimization.optimizer = 'adam'"),
        ({"targets": {"gap": 2}}, "binary = true belongs to it"),
        ({"augmentation": {"elastic_spacing": [0, 0, 0]}}, "nothing would be deformed"),
        ({"augmentation": {"elastic_std": [-1, 0, 0]}}, "cannot be negative"),
        ({"optimization": 3}, "optimization = 3"),
        ({"augmentation": {"elastic_std": [0, math.nan, 0]}}, "elastic_std.1 = nan: input should"),
        ({"augmentation": {"elastic_spacing": [0, math.inf, 9]}}, "elastic_spacing.1 = inf"),
        ({"augmentation": {"elastic_spacing": [0, 9, 0.5]}}, "is 0 or at least 1 voxel"),
        ({"optimization": {"learning_rate": math.inf}}, "learning_rate = inf"),
        ({"optimization": {"optimizer": "adamw", "momentum": 0.9}}, "momentum 0.9 belongs to sgd"),
        ({"network": {"kind": "planar", "planar_levels": 1}}, "a planar network has no planar_lev"),
        ({"network": {"kind": "volumetric", "planar_levels": 2}}, "a volumetric network has no"),
        (
            {"network": {"kind": "anisotropic", "planar_levels": 3, "depth": 2}},
            "planar_levels 3 of depth 2 leave nothing in 3-D",
        ),
        ({"targets": {"names": ["a", "b", "a"]}}, "names a, b, a: name each class once"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRecipe) as caught:
        make_recipe(values, "mine.toml")
    assert words in str(caught.value)
    assert "Recipe mine.toml" in str(caught.value)
    assert "value error" not in str(caught.value)


def test_every_belongs_to_a_held_out_box() -> None:
    changes = {"validation.every": 5}
    with pytest.raises(InvalidRecipe, match=r"every = 5: no box is held out \(--validation\)"):
        read_recipe(TrainingOptions(output="", config="isbi2012", changes=changes))
    region = ((0, 1), (0, 512), (0, 512))
    both = {**changes, "validation.region": region}
    assert read_recipe(TrainingOptions(output="", changes=both)).validation.every == 5


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_an_anisotropic_network_is_never_planar(depth: int) -> None:
    recipe = make_recipe({"network": {"kind": "anisotropic", "depth": depth}}, "mine")
    architecture = recipe.network.architecture(1, 2)
    assert not architecture.is_planar
    assert architecture.pools[: min(2, depth)] == ((1, 2, 2),) * min(2, depth)
    assert make_recipe(recipe.to_dict(), "again") == recipe


def test_a_recipe_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match="isbi2012-cpu"):
        find_recipe("isbi2013")
    (tmp_path / "broken.toml").write_text("steps = = 3")
    with pytest.raises(InvalidRecipe, match="is not TOML"):
        read_recipe(TrainingOptions(output="", config=str(tmp_path / "broken.toml")))


def test_the_users_own_recipe_comes_before_ours(tmp_path: Path) -> None:
    mine = tmp_path / "isbi2012.toml"
    mine.write_text("[optimization]\nsteps = 7\n")
    chosen = TrainingOptions(output="", config=str(mine))
    assert read_recipe(chosen).optimization.steps == 7
    assert find_recipe("isbi2012") != mine


def test_the_learning_rate_rises_and_falls() -> None:
    chosen = Optimization(steps=100, learning_rate=1.0, warm_up=0.1)
    rates = [learning_rate(chosen, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.001
