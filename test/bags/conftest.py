# SPDX-License-Identifier: Apache-2.0
"""A short recording of simulated scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilevlm_ros.bags.demo_recording import DemoOptions, record_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "demo.mcap"
    record_demo(path, DemoOptions(seconds=8, rate=2, scene_seconds=2, seed=3))
    return path
