# SPDX-License-Identifier: Apache-2.0
"""What is installed: one version everywhere, commands that exist, and a wheel for machines without ROS."""

import ast
import configparser
import os
import shutil
import stat
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import mobilevlm_ros

ROOT = Path(__file__).parents[2]
setup_cfg = configparser.ConfigParser()
setup_cfg.read(ROOT / "setup.cfg")
SCRIPTS = dict(
    line.replace(" ", "").split("=")
    for line in setup_cfg["options.entry_points"]["console_scripts"].strip().splitlines()
)


def test_one_version() -> None:
    for manifest in (ROOT / "package.xml", ROOT / "msg" / "package.xml"):
        version = ElementTree.parse(manifest).getroot().findtext("version")
        assert version == mobilevlm_ros.__version__, manifest
    assert f"\n{mobilevlm_ros.__version__} (" in (ROOT / "CHANGELOG.rst").read_text()


def test_the_root_package_depends_on_what_the_interfaces_need() -> None:
    # setup.py builds them, so rosdep must find their dependencies in the root's package.xml.
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    interfaces = ElementTree.parse(ROOT / "msg" / "package.xml").getroot()
    here = {e.text for e in root if e.tag.endswith("depend")}
    needed = {e.text for e in interfaces if e.tag.endswith("depend")}
    assert needed <= here
    groups = {e.text for e in interfaces.iter("member_of_group")}
    assert {e.text for e in root.iter("group_depend")} <= groups


def test_every_command_has_its_function() -> None:
    nodes = {"mobilevlm_node", "camera_node", "mobilevlm_client", "mobilevlm_demo"}
    assert set(SCRIPTS) == nodes | {"mobilevlm"}
    for target in SCRIPTS.values():
        module, function = target.split(":")
        source = ROOT / (module.replace(".", "/") + ".py")
        names = {n.name for n in ast.parse(source.read_text()).body if isinstance(n, ast.FunctionDef)}
        assert function in names, target


def test_every_source_file_names_its_license() -> None:
    for path in [*ROOT.glob("mobilevlm_ros/**/*.py"), *ROOT.glob("test/**/*.py"), *ROOT.glob("tools/*.py")]:
        assert "SPDX-License-Identifier: Apache-2.0" in path.read_text().split("\n\n", 1)[0], path


def test_wheel_without_ros(tmp_path: Path) -> None:
    source = tmp_path / "source"
    keep = ["setup.py", "setup.cfg", "pyproject.toml", "package.xml", "LICENSE", "MANIFEST.in"]
    for folder in ("mobilevlm_ros", "msg", "tools", "resource", "launch", "config", "models/nano/bundle"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in keep:
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(tmp_path)],
        cwd=source,
        env={**os.environ, "MOBILEVLM_SKIP_INTERFACES": "1"},
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"mobilevlm_ros-{mobilevlm_ros.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        modes = {i.filename: i.external_attr >> 16 for i in archive.infolist()}
    data = f"mobilevlm_ros-{mobilevlm_ros.__version__}.data/data/"
    assert data + "share/mobilevlm_ros/package.xml" in modes
    assert data + "share/ament_index/resource_index/packages/mobilevlm_ros" in modes
    for script in SCRIPTS:  # what `ros2 run` starts
        assert modes[data + "lib/mobilevlm_ros/" + script] & stat.S_IXUSR
    assert "mobilevlm_ros/py.typed" in modes
    shipped = {str(p.relative_to(ROOT)) for p in ROOT.glob("mobilevlm_ros/**/*.py")}
    assert shipped <= set(modes)
    page = {str(p.relative_to(ROOT)) for p in ROOT.glob("mobilevlm_ros/server/page/*")}
    assert "mobilevlm_ros/server/page/index.html" in page <= set(modes)
    for folder in ("launch", "config", "models/nano/bundle"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".pyc", ".md"):
                assert f"{data}share/mobilevlm_ros/{path.relative_to(ROOT)}" in modes
