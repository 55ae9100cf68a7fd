# SPDX-License-Identifier: Apache-2.0
"""What `make audit` says of this installation, without its questions to the network."""

from __future__ import annotations

import configparser
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest.importorskip("cyclonedx", reason="pip-audit brings it")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "tools" / "sbom.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def required() -> set[str]:
    """What setup.cfg names for serving."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].splitlines()
    return {canonicalize_name(Requirement(line).name) for line in lines if line and not line.startswith("#")}


def test_the_list_holds_what_serving_needs_with_versions_and_licences(
    sbom: ModuleType, tmp_path: Path
) -> None:
    document, pinned = tmp_path / "sbom.json", tmp_path / "pinned.txt"
    assert sbom.main(["--extras", "typed", "-o", str(document), "--requirements", str(pinned)]) == 0
    told = json.loads(document.read_text())
    assert told["bomFormat"] == "CycloneDX" and told["metadata"]["component"]["name"] == "mobilevlm_ros"
    parts = {part["purl"]: part for part in told["components"]}
    names = {purl.removeprefix("pkg:pypi/").partition("@")[0] for purl in parts}
    assert required() <= names and "torch" not in names and "mobilevlm-ros" not in names
    assert all(part["version"] and part["licenses"][0]["license"]["name"] for part in parts.values())
    assert len(pinned.read_text().splitlines()) == len(parts)


def test_a_robot_serves_without_copyleft(sbom: ModuleType) -> None:
    packages = sbom.closure(["typed", "server", "mcp"])
    terms = {found.name: sbom.licence(found) for found in packages}
    assert "UNKNOWN" not in terms.values()
    assert not {name: text for name, text in terms.items() if "GPL" in text.upper()}


def test_what_is_not_installed_is_named(sbom: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbom, "PRODUCT", "no-such-package")
    with pytest.raises(SystemExit, match="no-such-package is not installed"):
        sbom.closure(["typed"])
