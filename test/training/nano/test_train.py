# SPDX-License-Identifier: Apache-2.0
"""Training runs, learns, is killed, goes on, and leaves a checkpoint that loads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilevlm_ros.checkpoints.checkpoint import load
from mobilevlm_ros.training.nano import train as nano
from mobilevlm_ros.training.nano.scenes import OPEN, clutter, render_scenes
from mobilevlm_ros.training.nano.train import Recipe, train_nano

RECIPE = Recipe(steps=6, batch=4, scenes=16, warmup=2)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def trained(work: Path, output: Path, recipe: Recipe = RECIPE, **options: bool) -> dict[str, torch.Tensor]:
    train_nano(output, work, recipe, compiled=False, checkpoint_every=3, **options)
    return load(output).state_dict()


def test_resumed_run_equals_an_unbroken_one(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = trained(work, tmp_path / "a", resume=False)
    (work / "state.pt").unlink()
    real, calls = nano.losses, []

    def killed(*args: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(nano, "losses", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(work, tmp_path / "b")
    assert torch.load(work / "state.pt", weights_only=True)["step"] == 3
    monkeypatch.setattr(nano, "losses", real)
    resumed = trained(work, tmp_path / "b")
    for name, value in unbroken.items():
        assert torch.allclose(value, resumed[name], atol=1e-5), name


def test_log_and_recipe_are_kept(work: Path, tmp_path: Path) -> None:
    trained(work, tmp_path / "a", resume=False)
    assert json.loads((tmp_path / "a" / "recipe.json").read_text())["steps"] == 6
    first = json.loads((work / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] > 5


def test_rate_rises_holds_and_falls_to_zero() -> None:
    recipe = Recipe(steps=1000, warmup=100, decay=0.4, learning_rate=1.0)
    rates = [recipe.rate(step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[99] == rates[599] == 1.0
    assert rates[800] == pytest.approx(0.5)
    assert rates[1000] == 0.0


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
