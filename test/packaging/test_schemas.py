# SPDX-License-Identifier: Apache-2.0
"""The JSON Schemas for editors say what the code says: same files accepted, same mistakes refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import jsonschema
import pytest
import yaml
from hypothesis import given, settings

from mobilevlm_ros.engine.manifest import Manifest
from mobilevlm_ros.errors import BundleError, ConfigurationError, RecipeError
from mobilevlm_ros.inference.monitoring.monitors import parse_monitors
from mobilevlm_ros.inference.prompt.presets import load_presets
from mobilevlm_ros.training.recipe import make_recipe

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import schemas  # noqa: E402

CHECKS = {name: jsonschema.Draft7Validator(body) for name, body in schemas.schemas().items()}
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
MONITORS = [ROOT / "config" / "monitors.yaml", ROOT / "examples" / "warehouse" / "monitors.yaml"]
PRESETS = [ROOT / "config" / "presets.yaml"]


@pytest.mark.parametrize("name", CHECKS)
def test_the_files_are_those_that_the_code_makes(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(CHECKS[name].schema)
    stored = (schemas.FOLDER / f"{name}.schema.json").read_text(encoding="utf-8")
    assert stored == schemas.text_of(schemas.schemas()[name]), "run python tools/schemas.py"


@pytest.mark.parametrize("path", [*RECIPES, *MONITORS, *PRESETS], ids=lambda path: path.name)
def test_shipped_files_conform_and_name_their_schema(path: Path) -> None:
    kind = "recipe" if path in RECIPES else "monitors" if path in MONITORS else "presets"
    text = path.read_text(encoding="utf-8")
    CHECKS[kind].validate(yaml.safe_load(text))
    named = next(line for line in text.splitlines() if line.startswith("# yaml-language-server: $schema="))
    assert (path.parent / named.partition("=")[2]).resolve() == schemas.FOLDER / f"{kind}.schema.json"


def test_the_shipped_bundle_conforms(nano: Path) -> None:
    CHECKS["bundle"].validate(json.loads((nano / "bundle.json").read_text()))


def accepted(load: Any, *arguments: Any) -> bool:
    try:
        load(*arguments)
    except (ConfigurationError, RecipeError, BundleError):
        return False
    return True


ODD = st.sampled_from(
    [None, True, -1, 0, 0.5, 3, 1e9 + 0.5, "", "  ", "x", "yes", [], ["a"], ["a", "b"], {"a": 1}]
)
GOOD = {
    "question": st.just("Is it?"),
    "camera": st.sampled_from(["", "front", ["front", "rear"], "*"]),
    "rate": st.sampled_from([0.001, 1, 20.0]),
    "hold_time": st.sampled_from([0, 0.5, 86400]),
    "evidence": st.booleans(),
    "severity": st.sampled_from(["ok", "warn", "error"]),
    "system_prompt": st.sampled_from(["", "Look."]),
    "max_age": st.sampled_from([-1, 0, 86400]),
}


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_monitor_is_refused_by_both_or_neither(data: st.DataObject) -> None:
    good = {key: data.draw(value) for key, value in GOOD.items()}
    field = data.draw(st.sampled_from([*GOOD, "name", "threshold", "colour"]))
    monitor = {**good, "name": "m", field: data.draw(ODD)}
    content = {"monitors": [monitor]}
    assert accepted(parse_monitors, yaml.safe_dump(content).encode()) == CHECKS["monitors"].is_valid(
        content
    ), monitor


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_preset_is_refused_by_both_or_neither(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    field = data.draw(st.sampled_from(["system_prompt", "description", "colour"]))
    preset = {"system_prompt": "Look.", field: data.draw(ODD)}
    content = {"presets": {data.draw(st.sampled_from(["driving", ""])): preset}}
    path = tmp_path_factory.getbasetemp() / "presets.yaml"
    path.write_text(yaml.safe_dump(content))
    assert accepted(load_presets, path) == CHECKS["presets"].is_valid(content), content


def settings_of(schema: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, body in schema["properties"].items():
        found += settings_of(body, (*above, name)) if "properties" in body else [(*above, name)]
    return found


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(settings_of(CHECKS["recipe"].schema)),
    ODD | st.sampled_from(["1e-4", 4097, "pad", "bf16"]),
)
def test_a_setting_of_a_recipe_is_refused_by_both_or_neither(path: tuple[str, ...], value: Any) -> None:
    content = value
    for name in reversed(path):
        content = {name: content}
    assert accepted(make_recipe, content) == CHECKS["recipe"].is_valid(content), content


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_manifest_is_refused_by_both_or_neither(data: st.DataObject) -> None:
    whole = json.loads((ROOT / "models" / "nano" / "bundle" / "bundle.json").read_text())
    field = data.draw(st.sampled_from(sorted(whole)))
    if data.draw(st.booleans()):
        whole[field] = data.draw(ODD)
    else:
        del whole[field]
    said = accepted(Manifest.from_json, json.dumps(whole), "bundle.json")
    assert said == CHECKS["bundle"].is_valid(whole), (field, whole.get(field))
