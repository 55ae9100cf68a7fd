# SPDX-License-Identifier: Apache-2.0
"""The documentation's site: it builds, every link leads somewhere, and the generated pages are complete."""

from __future__ import annotations

import html
import logging
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("mkdocs", reason="pip install '.[docs]'")
sys.path.insert(0, str(ROOT / "tools"))
import docs_site  # noqa: E402


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("rclpy", reason="the table of parameters needs ROS 2")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert built.returncode == 0, built.stderr
    return target


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_parameter_is_on_its_page(site: Path) -> None:
    from mobilevlm_ros.nodes.parameters.table import SPECS

    page = text_of(site / "parameters" / "index.html")
    told = {spec.name: spec.description.replace("`", "")[:40] for spec in SPECS}
    missing = [name for name, text in told.items() if name not in page or text not in page]
    assert not missing


def test_every_field_of_every_message_is_on_its_page(site: Path) -> None:
    page = text_of(site / "messages" / "index.html")
    for path in (ROOT / "msg").glob("*/*.*"):
        for line in path.read_text().splitlines():
            if found := re.match(r"([a-zA-Z][\w/\[\]]*)\s+(\w+)", line):
                assert f"{found[1]} {found[2]}" in page, f"{path.name}: {line}"


def test_every_verb_is_on_its_page(site: Path) -> None:
    from mobilevlm_ros.commands.verbs import VERBS

    page = text_of(site / "commands" / "index.html")
    assert all(f"usage: mobilevlm {verb}" in page for verb in VERBS)


def test_the_front_door_has_its_docstrings(site: Path) -> None:
    page = text_of(site / "api" / "index.html")
    assert "ask_many" in page and "AsyncAskImageClient" in page and "RequestTimeout" in page


def test_links_become_those_of_the_site(caplog: pytest.LogCaptureFixture) -> None:
    page = (
        "[a](../README.md) [b](../config/nano.yaml#x) [c](speed.md#captions) [d](https://x.org/) [e](#here)"
    )
    there = docs_site.rewrite_links(page, "docs/server.md", "https://host/repository")
    assert there == (
        "[a](index.md) [b](https://host/repository/blob/main/config/nano.yaml#x) [c](speed.md#captions) "
        "[d](https://x.org/) [e](#here)"
    )
    assert docs_site.rewrite_links("![p](docs/page.png)", "README.md", "") == "![p](page.png)"
    assert docs_site.rewrite_links("[f](../faq.md)", "docs/tutorials/own_node.md", "") == "[f](../faq.md)"
    with caplog.at_level(logging.WARNING, "mkdocs"):
        docs_site.rewrite_links("[gone](../no/such.py)", "docs/server.md", "")
    assert "docs/server.md links to ../no/such.py, which does not exist" in caplog.text


def test_one_place_says_where_the_repository_is() -> None:
    urls = ElementTree.parse(ROOT / "package.xml").getroot().findall("url")
    assert {url.text for url in urls if url.get("type") == "repository"} == {docs_site.repository_url()}
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    for page in pages:
        assert "example.org" not in page.read_text().replace(docs_site.repository_url(), ""), page
