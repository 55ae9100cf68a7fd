# SPDX-License-Identifier: Apache-2.0
"""`--tensorboard`: the events hold what metrics.jsonl holds, also of a run that was gone on with."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.training.run.metrics import read_metrics
from mobilevlm_ros.training.run.state import list_checkpoints


def events(run: Path) -> dict[str, dict[int, float]]:
    """Value by step of every curve that TensorBoard shows of a run."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    shown = accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: {e.step: e.value for e in shown.Scalars(tag)} for tag in shown.Tags()["scalars"]}


def test_events_hold_the_losses(tiny_run: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--set", "lora.r=4", "--set", "schedule.steps=4", "--tensorboard", "-o", str(run)]
    assert main(["train", "lora", *tiny_run, *options]) == 0
    lines = read_metrics(run)
    assert len(lines) == 4
    curves = events(run)
    assert set(curves) == {"loss", "rate", "gradient_norm", "tokens_per_second"}
    for name in ("loss", "rate", "gradient_norm"):
        assert curves[name] == {line["step"]: pytest.approx(line[name], rel=1e-6) for line in lines}
    assert all(value > 0 for value in curves["tokens_per_second"].values())

    shutil.rmtree(list_checkpoints(run)[-1])
    assert main(["train", "lora", "--resume", "--threads", "1", "--quiet", "-o", str(run)]) == 0
    again = {line["step"]: pytest.approx(line["loss"], rel=1e-6) for line in read_metrics(run)}
    assert events(run)["loss"] == again and len(again) == 4


def test_without_tensorboard_nothing_begins(
    tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "tensorboard" else real(name, *more)
    )
    assert main(["train", "lora", *tiny_run, "--tensorboard", "-o", str(tmp_path / "run")]) == 1
    assert "pip install 'mobilevlm_ros[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
