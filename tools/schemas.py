# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas for editors, made of what the code itself checks: config/schemas/*.schema.json.

python tools/schemas.py            # writes them; a test says when they are behind
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mobilevlm_ros.engine import manifest_check  # noqa: E402
from mobilevlm_ros.engine.manifest import SCHEMA_VERSION, Manifest  # noqa: E402
from mobilevlm_ros.inference.monitoring import monitors  # noqa: E402
from mobilevlm_ros.inference.prompt.presets import MAX_PRESETS  # noqa: E402
from mobilevlm_ros.inference.validate import (  # noqa: E402
    MAX_CHOICE,
    MAX_CHOICES,
    MAX_QUESTION,
    MAX_SYSTEM_PROMPT,
)
from mobilevlm_ros.processing.prompt_template import TEMPLATES  # noqa: E402
from mobilevlm_ros.training.recipe import Recipe  # noqa: E402

FOLDER = ROOT / "config" / "schemas"
_DRAFT = "http://json-schema.org/draft-07/schema#"  # what yaml-language-server reads best
_VISIBLE = r"\S"


def schemas() -> dict[str, dict[str, Any]]:
    """Each schema by the name of what it describes."""
    made = {"monitors": _monitors(), "presets": _presets(), "recipe": _recipe(Recipe), "bundle": _bundle()}
    return {
        name: {"$schema": _DRAFT, "title": f"mobilevlm_ros: {name}", **body} for name, body in made.items()
    }


def _object(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    closed = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**closed, **({"required": list(required)} if required else {}), **more}


def _text(limit: int, description: str, pattern: str | None = _VISIBLE) -> dict[str, Any]:
    text = {"type": "string", "maxLength": limit, "description": description}
    return {**text, "pattern": pattern} if pattern else text


def _number(bounds: tuple[float, float], description: str) -> dict[str, Any]:
    return {"type": "number", "minimum": bounds[0], "maximum": bounds[1], "description": description}


def _monitors() -> dict[str, Any]:
    name: dict[str, Any] = {"type": "string"}
    several = {"type": "array", "items": name, "minItems": 1}
    choice = _text(MAX_CHOICE, "one of the answers")
    monitor = _object(
        {
            "name": _text(monitors.MAX_NAME, "of the monitor, in ~/monitors and /diagnostics; each its own"),
            "question": _text(MAX_QUESTION, "what is asked"),
            "camera": {"anyOf": [name, several], "description": "one camera, several, or '*' for all"},
            "rate": _number(monitors.RATES, "evaluations per second"),
            "threshold_up": _number((0, 1), "raised once the probability has been at least this"),
            "threshold_down": _number((0, 1), "clear once it has been at most this; below threshold_up"),
            "hold_time": _number((0, monitors.LONGEST_HOLD), "for so many seconds of the pictures' clock"),
            "choices": {
                "type": "array",
                "items": choice,
                "minItems": 2,
                "maxItems": MAX_CHOICES,
                "uniqueItems": True,
                "description": "what the model chooses from; quote yes and no",
            },
            "raised": {
                "anyOf": [choice, {"type": "array", "items": choice, "minItems": 1}],
                "description": "the choice, or the choices, that raise it; quote yes and no",
            },
            "evidence": {"type": "boolean", "description": "the picture comes with a change of state"},
            "severity": {
                "enum": list(monitors.SEVERITIES),
                "description": "level in /diagnostics while raised",
            },
            "system_prompt": _text(MAX_SYSTEM_PROMPT, "text before the question", None),
            "max_age": _number((-1, 86400), "oldest picture to look at, seconds; negative: any"),
        },
        "name",
        "question",
    )
    entries = {"type": "array", "items": monitor, "maxItems": monitors.MAX_MONITORS}
    return _object({"monitors": entries}, "monitors")


def _presets() -> dict[str, Any]:
    preset = _object(
        {
            "system_prompt": _text(MAX_SYSTEM_PROMPT, "text before the conversation"),
            "description": {"type": "string", "description": "for people"},
        },
        "system_prompt",
    )
    names = {"type": "object", "additionalProperties": preset, "maxProperties": MAX_PRESETS}
    return _object({"presets": {**names, "propertyNames": {"minLength": 1}}}, "presets")


_KINDS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
}


def _recipe(kind: Any) -> dict[str, Any]:
    """Of a dataclass of settings, from its types, bounds and help."""
    hints = typing.get_type_hints(kind)
    properties = {}
    for item in dataclasses.fields(kind):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            properties[item.name] = _recipe(hint)
            continue
        body = _value(hint, item.metadata["at_least"], item.metadata["at_most"])
        properties[item.name] = {**body, "description": item.metadata["help"], "default": item.default}
    return _object(properties, description=(kind.__doc__ or "").strip())


def _value(hint: Any, low: float | None, high: float | None) -> dict[str, Any]:
    if isinstance(hint, types.UnionType):
        inner = next(option for option in typing.get_args(hint) if option is not type(None))
        return {"anyOf": [_value(inner, low, high), {"type": "null"}]}
    if typing.get_origin(hint) is typing.Literal:
        return {"enum": list(typing.get_args(hint))}
    bounds = {"minimum": low, "maximum": high}
    number = {**_KINDS[hint], **{key: bound for key, bound in bounds.items() if bound is not None}}
    if hint is not float:
        return number
    # YAML 1.1 reads 1e-4, without a point, as text; the recipe takes it for the number that is meant.
    return {"anyOf": [number, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]*)?[eE]-[0-9]{1,2}$"}]}


def _bundle() -> dict[str, Any]:
    whole = {"type": "integer", "minimum": 0}
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    file = {
        "type": "object",
        "properties": {"bytes": whole, "sha256": {"type": "string"}},
        "required": ["bytes", "sha256"],
    }
    names = {"pattern": r"^[^/\u0000]{1,63}$", "not": {"enum": [".", ".."]}}
    kinds: dict[str, dict[str, Any]] = {
        "str": {"type": "string"},
        "int": whole,
        "Aspect": {"enum": ["pad", "crop"]},
        "float": {"type": "number"},
        "tuple[int, ...]": {"type": "array", "items": whole},
        "dict[str, Any]": {"type": "object"},
        "dict[str, str]": texts,
        "dict[str, dict[str, Any]]": {"type": "object", "additionalProperties": file, "propertyNames": names},
    }
    properties = {item.name: kinds[str(item.type)] for item in dataclasses.fields(Manifest)}
    for name, body in properties.items():
        if body is whole:  # every number of a manifest is a size
            most = manifest_check.LARGEST_IMAGE if name == "image_size" else manifest_check.LARGEST - 1
            properties[name] = {"type": "integer", "minimum": 1, "maximum": most}
    properties["name"] = {"type": "string", "minLength": 1, "maxLength": manifest_check.LONGEST_NAME}
    properties["template"] = {"enum": list(TEMPLATES)}
    properties["temperature"] = {"type": "number", "minimum": 0, "maximum": manifest_check.HOTTEST}
    properties["stop_ids"] = {**properties["stop_ids"], "maxItems": manifest_check.MANY_STOPS}
    required = ["schema_version", *(name for name in properties if name != "quality")]
    body = {"type": "object", "properties": {"schema_version": {"const": SCHEMA_VERSION}, **properties}}
    return {**body, "required": required}


def text_of(schema: dict[str, Any]) -> str:
    """As it stands in its file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes all."""
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (FOLDER / f"{name}.schema.json").write_text(text_of(schema), encoding="utf-8")


if __name__ == "__main__":
    main()
