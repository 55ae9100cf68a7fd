# SPDX-License-Identifier: Apache-2.0
"""Training runs, learns, is killed, goes on, and leaves a checkpoint that loads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilevlm_ros.checkpoints.checkpoint import load
from mobilevlm_ros.cli import main as mobilevlm
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.training.nano import train as nano
from mobilevlm_ros.training.nano.features import encode_pictures
from mobilevlm_ros.training.nano.foreign_pictures import clutter, foreign_picture
from mobilevlm_ros.training.nano.recipe import STAGES, HonestStage, Recipe, ScenesStage
from mobilevlm_ros.training.nano.scenes import OPEN, render_scenes
from mobilevlm_ros.training.nano.train import train_nano

RECIPE = Recipe(
    ScenesStage(steps=4, batch=4, scenes=16, warmup=2),
    HonestStage(steps=4, batch=4, scenes=8, pairs=4, foreign_pictures=4, warmup=2),
    HonestStage(steps=4, batch=4, scenes=8, pairs=4, foreign_pictures=4, warmup=2, choice_questions=0.6),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def trained(work: Path, output: Path, **options: object) -> dict[str, torch.Tensor]:
    train_nano(output, work, RECIPE, compiled=False, checkpoint_every=3, **options)  # type: ignore[arg-type]
    return load(output).state_dict()


@pytest.fixture(scope="module")
def unbroken(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("unbroken") / "nano"
    trained(work, output, resume=False)
    return output


@pytest.mark.parametrize("killed_at", [4, 8, 12])  # in each stage
def test_resumed_run_equals_an_unbroken_one(
    work: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    (work / "state.pt").unlink(missing_ok=True)
    real, calls = nano._Run._step, []

    def killed(*args: object) -> object:
        calls.append(1)
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(nano._Run, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(work, tmp_path / "b")
    state = torch.load(work / "state.pt", weights_only=True)
    assert (state["stage"], state["step"]) == (STAGES[killed_at // 4 - 1], 3)
    monkeypatch.setattr(nano._Run, "_step", real)
    resumed = trained(work, tmp_path / "b")
    for name, value in load(unbroken).state_dict().items():
        assert torch.allclose(value, resumed[name], atol=1e-5), name


def test_second_stage_alone_leaves_the_tower_as_it_was(work: Path, unbroken: Path, tmp_path: Path) -> None:
    after = trained(work, tmp_path / "a", start=unbroken, resume=False)
    changed = {
        name for name, value in load(unbroken).state_dict().items() if not torch.equal(value, after[name])
    }
    assert any("mm_projector" in name for name in changed) and any("layers" in name for name in changed)
    assert not any("vision_tower" in name for name in changed)
    told = json.loads((tmp_path / "a" / "recipe.json").read_text())
    assert told["honest"]["steps"] == 4 and len(told["from"]) == 64
    with pytest.raises(CheckpointError, match="another recipe"):  # the kept state began elsewhere
        trained(work, tmp_path / "b", start=tmp_path / "a")


def test_log_and_recipe_are_kept(work: Path, unbroken: Path) -> None:
    told = json.loads((unbroken / "recipe.json").read_text())
    assert told["scenes"]["steps"] == told["honest"]["steps"] == 4
    first = json.loads((work / "log.jsonl").read_text().splitlines()[0])
    assert first["stage"] == "scenes" and first["loss"] > 5


def test_unknown_settings_of_the_recipe_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert mobilevlm(["train", "nano", "--set", "speed=5"]) != 0
    assert "scenes.steps" in capsys.readouterr().err


def test_rate_rises_holds_and_falls_to_zero() -> None:
    stage = ScenesStage(steps=1000, warmup=100, decay=0.4, learning_rate=1.0)
    rates = [stage.rate(step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[99] == rates[599] == 1.0
    assert rates[800] == pytest.approx(0.5)
    assert rates[1000] == 0.0


def test_features_are_those_of_the_tower_and_are_found_again(unbroken: Path, tmp_path: Path) -> None:
    model = load(unbroken).eval()
    made = encode_pictures(model, tmp_path, "pair", 3)
    found = encode_pictures(model, tmp_path, "pair", 3)
    assert made.features.shape == (3, 2, 144, 192)
    assert np.array_equal(made.features, found.features)
    assert [pair.change for pair in made.truths] == [pair.change for pair in found.truths]
    still = [i for i, pair in enumerate(made.truths) if pair.change.what == "none"]
    moved = [i for i, pair in enumerate(made.truths) if pair.change.what != "none"]
    assert still or moved


def test_rendered_scenes_come_back_from_the_cache(tmp_path: Path) -> None:
    first = render_scenes(3, 8, 144, 12, cache=tmp_path)
    second = render_scenes(3, 8, 144, 12, cache=tmp_path)
    assert np.array_equal(first.pixels, second.pixels)
    assert first.observations[5].seen == second.observations[5].seen
    assert first.pixels.shape == (8, 144, 144, 3)
    for patches, observation in zip(first.patches, first.observations, strict=True):
        assert set(np.unique(patches)) <= {0, OPEN, *range(1, len(observation.seen) + 1)}


def test_clutter_is_never_the_same() -> None:
    rng = np.random.default_rng(1)
    one, two = clutter(rng, 144), clutter(rng, 144)
    assert one.shape == (144, 144, 3) and one.dtype == np.uint8
    assert np.abs(one.astype(int) - two).mean() > 5


def test_foreign_pictures_are_of_many_kinds() -> None:
    rng = np.random.default_rng(1)
    pictures = np.stack([foreign_picture(rng, 144) for _ in range(24)])
    assert pictures.shape == (24, 144, 144, 3) and pictures.dtype == np.uint8
    detail = pictures.astype(float).std((1, 2, 3))
    assert detail.min() < 30 and detail.max() > 60
