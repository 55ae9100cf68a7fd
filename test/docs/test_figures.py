# SPDX-License-Identifier: Apache-2.0
"""Figures in README and docs are those of benchmarks/results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import figures  # noqa: E402
import result_tables  # noqa: E402


def test_no_page_has_drifted() -> None:
    checked = subprocess.run(
        [sys.executable, "tools/figures.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_figure_stands_in_a_page() -> None:
    text = "".join(page.read_text() for page in figures.pages())
    assert [name for name in figures.FIGURES if f"<!-- figure: {name} -->" not in text] == []
    assert text.count("<!-- figure: ") == text.count("<!-- /figure -->")


def test_a_wrong_number_is_put_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(figures.FIGURES, "size", lambda: "6.0 MB")
    page = "A <!-- figure: size -->5.8 MB<!-- /figure --> model, and <!-- figure: size --><!-- /figure -->."
    assert figures.filled(page).count("6.0 MB") == 2 and "5.8" not in figures.filled(page)
    with pytest.raises(KeyError, match="unknown"):
        figures.filled("<!-- figure: unknown -->1<!-- /figure -->")


def test_tables_of_a_results_page_are_read() -> None:
    tables = result_tables.markdown_tables("a\n\n| x | y |\n|---|---|\n| 1 | two |\n\n| z |\n|---|\n| 3 |\n")
    assert tables == [[{"x": "1", "y": "two"}], [{"z": "3"}]]
    assert result_tables.row(tables, "y", x="1")["y"] == "two"
    with pytest.raises(KeyError, match="no row"):
        result_tables.row(tables, "y", x="2")
