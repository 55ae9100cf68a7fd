# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.errors import ConfigurationError
from mobilevlm_ros.inference.prompt.presets import Preset, load_presets

SHIPPED = Path(__file__).resolve().parents[3] / "config" / "presets.yaml"


def written(path: Path, text: str) -> Path:
    path = path / "presets.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_presets_load() -> None:
    presets = load_presets(SHIPPED)
    assert list(presets) == ["driving", "inspection", "domestic"]
    assert all(preset.description and preset.name == name for name, preset in presets.items())


def test_a_preset_is_its_text(tmp_path: Path) -> None:
    path = written(tmp_path, "presets:\n  a: {system_prompt: ' You see. ', description: what for}\n")
    assert load_presets(path) == {"a": Preset("a", "You see.", "what for")}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("presets: [", "is not YAML"),
        ("presets: 2026-99-99", "is not YAML"),
        ("", "must hold one mapping"),
        ("presets: [a]", "must hold one mapping"),
        ("presets: {}\nother: 1", "must hold one mapping"),
        ("presets: {1: {system_prompt: a}}", "preset 1 in .* name must be text"),
        ("presets: {a: text}", "preset 'a' in .* needs a `system_prompt`"),
        ("presets: {a: {description: b}}", "needs a `system_prompt`"),
        ("presets: {a: {system_prompt: b, promt: c}}", "unknown field 'promt'"),
        ("presets: {a: {system_prompt: yes}}", "system_prompt is bool, not text.*put it in quotes, 'yes'"),
        ("presets: {a: {system_prompt: 12:30}}", "system_prompt is int, not text.*put it in quotes, '12:30'"),
        ("presets: {off: {system_prompt: a}}", "name must be text"),
        ("presets: {a: {system_prompt: ''}}", "system_prompt is empty"),
        ("presets: {a: {system_prompt: 'x <image>'}}", "preset 'a' .*<image>"),
        ("presets: {a: {system_prompt: b}, a: {system_prompt: c}}", "'a' is there twice"),
        ("presets: {" + ", ".join(f"p{i}: {{system_prompt: b}}" for i in range(65)) + "}", "keep 64"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_place(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        load_presets(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml cannot be read"):
        load_presets(tmp_path / "nowhere.yaml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"presets: \xff\xfe")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_presets(tmp_path / "p.yaml")


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3)
)


@given(st.text(max_size=60) | documents.map(lambda d: yaml.safe_dump({"presets": d})))
def test_any_file_loads_or_is_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("presets") / "p.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        presets = load_presets(path)
    except ConfigurationError:
        return
    assert all(preset.system_prompt for preset in presets.values())
