# SPDX-License-Identifier: Apache-2.0
"""Recipes: the paper's are valid, every setting is explained, and what is written is read back."""

from pathlib import Path

import pytest
import yaml

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
