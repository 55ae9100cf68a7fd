# SPDX-License-Identifier: Apache-2.0
"""Each stage, run by our trainer, is the official trainer's: losses, rates, gradients, what moved and how
far."""

import json
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.training.optimizer import Schedule
from mobilevlm_ros.training.recipe import ScheduleSettings

DATA = Path(__file__).parents[1] / "data"
STAGES = sorted((DATA / "train").glob("stage_*.json"))


@pytest.mark.parametrize("file", STAGES, ids=lambda f: f.stem)
def test_stage_equals_the_official_run(file: Path, ckpt: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert main(["train", "replay", str(file), "--checkpoints", str(ckpt), "-o", str(out)]) == 0
    ours, theirs = json.loads(out.read_text()), json.loads(file.read_text())
    steps = theirs.get("steps") or [
        {"loss": s["loss_over_accumulation"], "grad_norm": s["grad_norm_accumulated"], "lr": s["lr"]}
        for s in theirs["micro_steps"]
    ]
    for name, tolerance in (("loss", 1e-5), ("grad_norm", 1e-5), ("lr", 1e-9)):
        mine, reference = ([step[name] for step in run] for run in (ours["steps"], steps))
        np.testing.assert_allclose(mine, reference, rtol=tolerance, err_msg=name)
    assert ours["changed"] == sorted(theirs["delta_norm"])
    for name, norm in theirs["delta_norm"].items():
        assert ours["delta_norm"][name] == pytest.approx(norm, rel=1e-4), name


def test_nine_stages() -> None:
    assert len(STAGES) == 9


@pytest.mark.parametrize("case", json.loads((DATA / "train" / "learning_rate.json").read_text()))
def test_rates(case: dict) -> None:
    settings = ScheduleSettings(warmup_ratio=case["warmup_ratio"])
    schedule = Schedule(settings, case["total_steps"])
    assert schedule.warmup == case["warmup_steps"]
    for step, rate in case["lr_used_by_step_0based"].items():
        assert schedule(int(step)) * case["peak"] == pytest.approx(rate, rel=1e-9)


def test_what_is_no_reference_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    args = [
        "train",
        "replay",
        str(tmp_path / "x.json"),
        "--checkpoints",
        str(tmp_path),
        "-o",
        str(tmp_path / "y"),
    ]
    assert main(args) == 1
    assert "no reference of a stage" in capsys.readouterr().err
