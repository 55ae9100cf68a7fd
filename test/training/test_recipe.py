# SPDX-License-Identifier: Apache-2.0
"""Recipes: the paper's are valid, every setting is explained, and what is written is read back."""

from pathlib import Path

import pytest
import yaml

from mobilevlm_ros.errors import RecipeError
from mobilevlm_ros.training.recipe import explain, make_recipe, parse_settings, read_yaml
from mobilevlm_ros.training.stages import STAGES

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda f: f.stem)
def test_the_papers_recipes(file: Path) -> None:
    data = read_yaml(file)
    recipe = make_recipe(STAGES[data["stage"]], data, source=file.name)
    assert make_recipe(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe
    sizes = {"sft": 16 * 2 * 8, "align": 32 * 8, "instruct": 16 * 8, "lora": 16 * 8, "pretrain-llm": 16 * 160}
    processes = 160 if recipe.stage == "pretrain-llm" else 8
    assert recipe.batch.size * recipe.batch.accumulation * processes == sizes[recipe.stage]


@pytest.mark.parametrize(
    ("name", "rate", "projector"),
    [
        ("mobilevlm-1.7b-stage1", 1e-3, None),
        ("mobilevlm-3b-stage2", 4e-5, None),
        ("mobilevlm_v2-1.7b-stage1", 2e-5, 1e-3),
        ("mobilevlm_v2-3b-lora", 2e-4, None),
        ("mobilellama-2.7b-chat", 3e-5, None),
        ("mobilellama-1.4b", 3e-4, None),
    ],
)
def test_rates_of_the_official_scripts(name: str, rate: float, projector: float | None) -> None:
    data = read_yaml(next(file for file in RECIPES if file.stem == name))
    optimizer = make_recipe(STAGES[data["stage"]], data).optimizer
    assert (optimizer.learning_rate, optimizer.projector_learning_rate) == (rate, projector)


def test_every_setting_is_explained() -> None:
    rows = explain()
    assert len(rows) > 40
    assert all(len(meaning) > 10 for _, _, meaning in rows)


def test_later_settings_win() -> None:
    recipe = make_recipe(STAGES["lora"], {"lora": {"r": 8}}, parse_settings(["lora.r=4", "run.seed=7"]))
    assert (recipe.lora.r, recipe.lora.alpha, recipe.run.seed) == (4, 256, 7)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.path=no", "model.path reads as true or false in YAML: put it in quotes, 'no'"),
        ("model.path=007", "model.path reads as 7 in YAML: put it in quotes, '007'"),
        ("data.mixture=2026-11-28", "data.mixture reads as the date 2026-11-28 in YAML: put it in quotes"),
        ("stage=on", "stage reads as true or false in YAML: put it in quotes, 'on'"),
        ("schedule.steps=010", "schedule.steps is `010`, which YAML reads as 8: write a decimal number"),
        ("optimizer.learning_rate=1:30", "is `1:30`, which YAML reads as 90: write a decimal number"),
    ],
)
def test_a_word_that_yaml_reads_as_something_else_is_refused(setting: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        make_recipe(parse_settings([setting]))
    assert said in str(error.value)


def test_numbers_and_switches_are_what_everybody_reads() -> None:
    recipe = make_recipe(
        parse_settings(["optimizer.learning_rate=1e-4", "run.compile=yes", "model.path='no'"])
    )
    assert (recipe.optimizer.learning_rate, recipe.run.compile, recipe.model.path) == (1e-4, True, "no")
