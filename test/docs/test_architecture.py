# SPDX-License-Identifier: Apache-2.0
"""docs/architecture.md names files that exist: whoever moves one corrects the walk."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PROSE = sorted(set(re.findall(r"`([\w/]+\.py)`", TEXT)))
PICTURES = sorted(set(re.findall(r'\["([\w/]+\.py)', TEXT)))


def test_it_names_files() -> None:
    assert len(PROSE) > 30 and len(PICTURES) > 10


@pytest.mark.parametrize("name", PROSE)
def test_a_file_of_the_text_exists(name: str) -> None:
    assert (ROOT / "mobilevlm_ros" / name).is_file()


@pytest.mark.parametrize("name", PICTURES)
def test_a_file_of_the_pictures_is_one_of_the_text(name: str) -> None:
    assert [full for full in PROSE if full == name or full.endswith(f"/{name}")], name


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()
