# SPDX-License-Identifier: Apache-2.0
"""When setup.py builds the interfaces, when it need not, and when it must refuse."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "build_interfaces.py"
spec = importlib.util.spec_from_file_location("build_interfaces", TOOL)
assert spec and spec.loader
tool: ModuleType = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def prefix_with(folder: Path, *packages: str) -> Path:
    index = folder / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True, exist_ok=True)
    for package in packages:
        (index / package).touch()
    return folder


@pytest.fixture(autouse=True)
def nothing_sourced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    monkeypatch.delenv(tool.SKIP, raising=False)
    monkeypatch.setattr(sys, "real_prefix", str(tmp_path / "python"), raising=False)


def source(monkeypatch: pytest.MonkeyPatch, *prefixes: Path) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(map(str, prefixes)))


def test_without_ros_there_is_nothing_to_build() -> None:
    assert "no ROS 2 here" in tool.reason_to_skip()


def test_builds_with_a_sourced_ros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(monkeypatch, prefix_with(tmp_path / "ros", "rclpy", "rosidl_default_generators"))
    assert tool.reason_to_skip() == ""


def test_builds_with_ros_from_wheels_where_nothing_is_sourced(tmp_path: Path) -> None:
    prefix_with(tmp_path / "python", "rclpy", "rosidl_default_generators")
    assert tool.reason_to_skip() == ""


def test_a_ros_without_generators_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source(monkeypatch, prefix_with(tmp_path / "ros", "rclpy"))
    with pytest.raises(tool.InterfaceBuildError, match=r"rosdep install .*MOBILEVLM_SKIP_INTERFACES=1"):
        tool.reason_to_skip()
    monkeypatch.setenv(tool.SKIP, "1")
    assert tool.reason_to_skip() == "MOBILEVLM_SKIP_INTERFACES is set"


def test_a_separately_built_package_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ros = prefix_with(tmp_path / "ros", "rclpy", "rosidl_default_generators")
    other = prefix_with(tmp_path / "other", tool.PACKAGE)
    source(monkeypatch, other, ros)
    assert tool.reason_to_skip() == f"{tool.PACKAGE} is already in {other}"


def test_its_own_earlier_install_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A second `colcon build` after `source install/setup.bash`, or an upgrade by pip, must build again.
    ros = prefix_with(tmp_path / "ros", "rclpy", "rosidl_default_generators")
    own = prefix_with(tmp_path / "install", tool.PACKAGE)
    (own / tool.OURS).parent.mkdir(parents=True)
    (own / tool.OURS).touch()
    source(monkeypatch, own, ros)
    assert tool.reason_to_skip() == ""


def test_the_generators_see_no_foreign_sitecustomize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "override").mkdir()
    (tmp_path / "override" / "sitecustomize.py").touch()
    (tmp_path / "kept").mkdir()
    paths = [str(tmp_path / "override"), str(tmp_path / "kept")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("MAKEFLAGS", "-j --jobserver-auth=3,4")
    env = tool._environment()
    assert env["PYTHONPATH"] == paths[1]
    assert "MAKEFLAGS" not in env
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
