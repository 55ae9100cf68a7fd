# SPDX-License-Identifier: Apache-2.0
"""`launch` comes with an apt ROS, not from PyPI: elsewhere these tests are skipped.

`make accept` runs them where it is, and skips none.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


@pytest.fixture(autouse=True)
def accept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever accepts a release wants to know what is missing rather than to pass over it."""
    if "MOBILEVLM_ACCEPT" in os.environ:
        monkeypatch.setattr(pytest, "skip", pytest.fail)


@pytest.fixture
def description() -> Callable[[str], Any]:
    """Loads a launch file of this repository."""
    for name in ("launch", "launch_ros"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (it comes with an apt ROS)")

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name.replace(".", "_"), LAUNCH / name)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.generate_launch_description()

    return load
