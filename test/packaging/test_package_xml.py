# SPDX-License-Identifier: Apache-2.0
"""The package.xml files are ready for the ROS index: valid, one version and licence, keys of rosdep."""

from __future__ import annotations

import configparser
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import mobilevlm_ros

package = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg comes with ROS and colcon")

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "package.xml", ROOT / "msg" / "package.xml", ROOT / "bt" / "package.xml"]
KEYS = yaml.safe_load((ROOT / "test" / "data" / "ros" / "rosdep_keys.yaml").read_text())
by_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)


@by_file
def test_it_is_valid(path: Path) -> None:
    warnings: list[str] = []
    read = package.parse_package(str(path), warnings=warnings)
    assert not warnings and read.package_format == 3
    read.validate(warnings=warnings)
    assert not warnings
    assert read.description and not read.description.endswith("TODO")
    assert read.get_build_type() in ("ament_python", "ament_cmake")


@by_file
def test_version_licence_and_maintainer_are_those_of_setup_cfg(path: Path) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    about = config["metadata"]
    read = package.parse_package(str(path))
    assert read.version == mobilevlm_ros.__version__
    assert about["version"] == "attr: mobilevlm_ros.version.__version__"
    assert [str(one) for one in read.licenses] == [about["license"]]
    assert [(one.name, one.email) for one in read.maintainers] == [
        (about["maintainer"], about["maintainer_email"])
    ]
    for url in read.urls:
        assert url.url == about["url"]


def test_the_changelog_is_one_that_bloom_reads() -> None:
    """`catkin_generate_changelog` and bloom want this title, and versions as headings (REP 132)."""
    lines = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "Changelog for package mobilevlm_ros" and set(lines[0]) == set(lines[2]) == {"^"}
    versions = [
        (re.fullmatch(r"(\d+\.\d+\.\d+) \((unreleased|\d{4}-\d\d-\d\d)\)", line), below)
        for line, below in pairwise(lines)
        if below and set(below) == {"-"}
    ]
    assert versions and all(match and len(match[0]) <= len(below) for match, below in versions)
    assert versions[0][0] is not None and versions[0][0][1] == mobilevlm_ros.__version__


@by_file
def test_rosdep_knows_every_key(path: Path) -> None:
    ours = {package.parse_package(str(file)).name for file in FILES}
    known = {*KEYS["system"], *KEYS["ros"]}
    if path.parent.name == "bt":
        known |= {*KEYS["from_source"]}
    read = package.parse_package(str(path))
    names = {
        one.name
        for kind in ("build", "build_export", "buildtool", "buildtool_export", "exec", "test", "doc")
        for one in getattr(read, f"{kind}_depends")
    }
    assert names <= known | ours, sorted(names - known - ours)
    assert not [name for name in names if name.endswith("-pip")], "the build farm installs nothing by pip"


def test_what_apt_lacks_is_named_where_it_is_installed() -> None:
    """Serving needs these, and no key of rosdep brings them from apt."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    needed = re.findall(r"(?m)^([\w-]+)", config["options"]["install_requires"])
    apt = {"numpy", "opencv-python-headless", "pillow", "pyyaml", "tqdm"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"&& pip install ([\w -]+)\n", readme)
    assert set(line.split()) == set(needed) - apt
