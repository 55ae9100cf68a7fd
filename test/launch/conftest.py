# SPDX-License-Identifier: Apache-2.0
"""`launch` comes with an apt ROS, not from PyPI: elsewhere these tests are skipped."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


@pytest.fixture
def description() -> Callable[[str], Any]:
    """Loads a launch file of this repository."""
    pytest.importorskip("launch.actions", reason="launch is not installed (it comes with an apt ROS)")
    pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed (it comes with an apt ROS)")

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name.replace(".", "_"), LAUNCH / name)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.generate_launch_description()

    return load
