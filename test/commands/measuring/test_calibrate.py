# SPDX-License-Identifier: Apache-2.0
import json
import shutil
from pathlib import Path

import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.inference.choices.calibration import CALIBRATION, Calibration


def test_fits_measures_draws_writes_and_removes(
    nano: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, plot = tmp_path / "bundle", tmp_path / "plot.png"
    shutil.copytree(nano, path)
    common = ["calibrate", "--bundle", str(path), "--threads", "1"]
    assert main([*common, "nano-hard", "--count", "48", "--json", "--plot", str(plot)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["questions"], found["before"]["questions"]) == (24, 24)
    assert found["before"]["accuracy"] == found["after"]["accuracy"]
    assert plot.stat().st_size > 1000
    fitted = Calibration.load(Bundle.open(path))
    assert (fitted is not None) == found["better"]
    assert fitted is None or fitted.temperature == found["temperature"]
    assert main([*common, "--remove"]) == 0
    assert CALIBRATION not in Bundle.open(path).manifest.files


def test_without_labels_says_what_to_name(nano: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--bundle", str(nano)]) == 1
    assert "JSONL or CSV" in capsys.readouterr().err


def test_too_few_labels_says_how_many_to_give(nano: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--bundle", str(nano), "--threads", "1", "nano", "--count", "24"]) == 1
    error = capsys.readouterr().err
    assert "24 labelled questions are too few: give at least 40" in error
