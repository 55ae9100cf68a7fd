# SPDX-License-Identifier: Apache-2.0
"""The demo as a user starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2

from mobilevlm_ros.demo.table import Table, TableRow


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mobilevlm_ros.demo.run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, env=os.environ, check=False)


def test_it_asks_judges_and_draws(any_bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "demo.png"
    demo = run("--seed", "3", "--rate", "10", "--bundle", str(any_bundle), "--output", str(picture))
    last = demo.stdout.rstrip().splitlines()[-1]
    score = re.fullmatch(r"demo: (\d+) of (\d+) answers match the truth", last)
    assert score, demo.stdout + demo.stderr
    right, asked = map(int, score.groups())
    assert asked >= 6
    assert demo.returncode == (0 if right == asked else 1)
    assert "caption of" in demo.stdout and str(picture) in demo.stdout
    image = cv2.imread(str(picture))
    assert image.shape[1] == 1280 and image.shape[0] > 960


def test_a_node_that_cannot_start_ends_it_with_the_reason(tmp_path: Path) -> None:
    demo = run("--bundle", "/no/such/bundle", "--output", str(tmp_path / "x.png"))
    assert demo.returncode == 1
    assert "/no/such/bundle" in demo.stdout + demo.stderr


def test_table_wraps_long_cells_and_marks_rows() -> None:
    table = Table(100)
    good = table.line(TableRow("Is it?", "Yes, it is.", "yes", 0.987, 0.0123, True))
    bad = table.line(TableRow("What? " * 20, "No " * 30, "yes", 0.5, 1.0, False))
    assert good.startswith("✓ Is it?") and "0.99" in good and good.endswith("12")
    assert bad.startswith("✗") and len(bad.splitlines()) > 2
    assert max(map(len, (table.header() + "\n" + bad).splitlines())) <= 100
