# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm checks` and `mobilevlm completion`."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.commands.checks import MISSING, OK, OPTIONAL, SERVING
from mobilevlm_ros.commands.verbs import VERBS

Captured = pytest.CaptureFixture[str]


def test_it_says_what_is_here(nano: Path, capsys: Captured) -> None:
    assert main(["checks", "--json"]) == 0
    told = {(check["name"]): check for check in json.loads(capsys.readouterr().out)}
    assert {told[package]["state"] for package in SERVING.values()} == {OK}
    assert "(nano, " in told["bundle"]["detail"] and "onnxruntime" in told["backend"]["detail"]
    assert "ball" in told["self-test"]["detail"]
    assert told["rclpy"]["state"] == (OK if importlib.util.find_spec("rclpy") else OPTIONAL)
    assert main(["checks", "--bundle", "nano"]) == 0
    assert "\n  ok       bundle: " in capsys.readouterr().out


def test_a_missing_bundle_fails(capsys: Captured) -> None:
    assert main(["checks", "--bundle", "/no/such", "--json"]) == 1
    missing = [check for check in json.loads(capsys.readouterr().out) if check["state"] == MISSING]
    assert [check["name"] for check in missing] == ["bundle"] and "/no/such" in missing[0]["detail"]


WITHOUT = """
import sys
for name in ("simplejpeg", "rclpy", "torch"):
    sys.modules[name] = None  # as if it were not installed
from mobilevlm_ros.cli import main
sys.exit(main(["checks"]))
"""


def test_it_says_how_to_get_what_is_missing(nano: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "  MISSING  simplejpeg: " in done.stdout and "pip install simplejpeg" in done.stdout
    assert "  -        torch: " in done.stdout and "pip install 'mobilevlm_ros[build]'" in done.stdout
    assert "  -        rclpy: " in done.stdout and "source the setup.bash" in done.stdout


def test_completion(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert all(verb in script for verb in VERBS) and "--choices" in script
    syntax = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, timeout=60)
    assert syntax.returncode == 0, syntax.stderr
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "zsh"]) == 1
    assert "pip install shtab" in capsys.readouterr().err


def test_a_wrong_geometry_lists_the_names(tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("torch")
    assert main(["make-checkpoint", "--like", "MobileVLM-2B", "--random", str(tmp_path / "c")]) == 1
    error = capsys.readouterr().err
    assert "--like MobileVLM-2B" in error and "MobileVLM_V2-1.7B" in error and "tiny" in error
