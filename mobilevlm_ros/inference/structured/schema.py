# SPDX-License-Identifier: Apache-2.0
"""What a model writes for a JSON Schema: nothing but the properties that it lists."""

from __future__ import annotations

from typing import Any


def close_objects(schema: Any) -> Any:
    """The schema whose objects have no properties but those it lists, unless it says otherwise.

    By JSON Schema's default any others may follow, and a small model would invent them without end. Whatever
    conforms to the result conforms to the schema. Schemas that are merged with others stay as they are.
    """
    if not isinstance(schema, dict) or "allOf" in schema:
        return schema
    listed = schema.get("properties")
    if isinstance(listed, dict) and schema.keys() & {"anyOf", "oneOf", "$ref"}:
        return schema
    closed = dict(schema)
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict):
            closed[key] = {name: close_objects(part) for name, part in value.items()}
        elif key in ("anyOf", "oneOf", "prefixItems") and isinstance(value, list):
            closed[key] = [close_objects(part) for part in value]
        elif key == "items":
            closed[key] = close_objects(value)
    required = schema.get("required", [])
    known = (
        isinstance(listed, dict) and isinstance(required, list) and all(str(n) in listed for n in required)
    )
    if known and "minProperties" not in schema:
        closed.setdefault("additionalProperties", False)
    return closed
