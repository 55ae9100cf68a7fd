# SPDX-License-Identifier: Apache-2.0
"""What may be loaded beside a running bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="the module serves ROS")
reload = pytest.importorskip("mobilevlm_ros.nodes.services.reload_server")

from mobilevlm_ros.errors import EngineError  # noqa: E402  after the check for ROS


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    (tmp_path / "decoder.onnx").write_bytes(bytes(1000))
    return str(tmp_path)


def test_a_bundle_that_does_not_fit_is_refused_before_it_is_loaded(bundle: str) -> None:
    with pytest.raises(EngineError, match=r"takes about 2e-06 GB .*deactivate and clean up"):
        reload.check_memory(bundle, 1999)


@pytest.mark.parametrize("available", [2000, None])
def test_one_that_fits_is_not(bundle: str, available: int | None) -> None:
    reload.check_memory(bundle, available)


def test_a_missing_directory_is_left_to_the_loader() -> None:
    reload.check_memory("/no/such/bundle", 0)


def test_a_container_may_have_less_than_its_machine(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 4000 kB\nMemAvailable:    3000 kB\n")
    assert reload.available_memory(meminfo, tmp_path) == 3000 * 1024
    for name, text in (
        ("memory.max", "1000000\n"),
        ("memory.current", "700000\n"),
        ("memory.stat", "anon 400000\ninactive_file 200000\n"),
    ):
        (tmp_path / name).write_text(text)
    assert reload.available_memory(meminfo, tmp_path) == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert reload.available_memory(meminfo, tmp_path) == 3000 * 1024
    assert reload.available_memory(tmp_path / "none", tmp_path / "none") is None
