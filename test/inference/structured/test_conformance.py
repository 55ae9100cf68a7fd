# SPDX-License-Identifier: Apache-2.0
"""A finished document is held to its schema, in what a grammar cannot express."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.structured.conformance import check_schema, complaint, matches

pytest.importorskip("jsonschema")
pytest.importorskip("llguidance")

OBJECT = {"type": "object", "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(
    ("text", "schema", "said"),
    [
        ('{"a": 1, "a": 2}', OBJECT, "'a' is there twice"),
        ('{"x": {"a": 1, "a": 1}}', {}, "'a' is there twice"),
        ("{}", {"minProperties": 1}, "should be non-empty|enough properties"),
        ("[1, 1]", {"uniqueItems": True}, "non-unique"),
        ("1", {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "valid under each"),
        ('"ab"', {"const": "a\u0001b"}, "was expected"),
        ('"ab"', {"type": "string", "pattern": "^a\\x01b$"}, "does not match"),
        ("12345678901234567000", {"const": 12345678901234567890}, "was expected"),
        ("1e999", {"type": "number"}, "too large"),
        ('{"b": 1}', {"properties": {"a": {}}, "additionalProperties": False}, "'b' is not allowed"),
        ('{"b": "x"}', {"patternProperties": {"^b": {"type": "integer"}}}, r"is not of type.*at \['b'\]"),
        ("[1, 2", {}, "delimiter"),
        ("1" * 5000, {}, "digits"),
        ("1", {"$ref": "#/nowhere"}, "cannot be applied"),
        ("1", {"$ref": "https://example.org/schema"}, "cannot be applied"),
        ("1", {"$ref": "#"}, "cannot be applied"),
    ],
)
def test_what_does_not_conform_is_told(text: str, schema: dict[str, Any], said: str) -> None:
    assert re.search(said, complaint(text, schema))


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ('{"a": 1, "b": 2}', OBJECT),
        ('"a\\u0001b"', {"const": "a\u0001b"}),
        (
            '{"xa": 1, "b": 2}',
            {"patternProperties": {"^x": {}}, "properties": {"b": {}}, "additionalProperties": False},
        ),
        ('"2026"', {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^[0-9]+$"}),
        ('{"v": "b1"}', {"properties": {"v": {"oneOf": [{"pattern": "^a"}, {"pattern": "^b"}]}}}),
    ],
)
def test_what_conforms_is_not_complained_about(text: str, schema: dict[str, Any]) -> None:
    assert complaint(text, schema) == ""


@given(
    text=st.text(max_size=12), expression=st.sampled_from(["^a", "b$", "^[a-c]*$", ".", "^$", "^[^\\n]*$"])
)
@settings(max_examples=80, deadline=None)
def test_patterns_are_found_as_by_re(text: str, expression: str) -> None:
    if "\n" in text and expression in (".", "b$"):
        return  # whether a dot is a line end, and whether $ is before one, is a matter of taste
    text = text.encode("utf-8", "ignore").decode()
    assert matches(expression, text) == bool(re.search(expression, text)), (expression, text)


def test_a_pattern_that_is_hard_for_re_takes_no_time() -> None:
    schema = {"anyOf": [{"pattern": "^(a+)+$"}, {"pattern": "^a+b$"}]}
    assert complaint(json.dumps("a" * 60 + "b"), schema) == ""
    assert "not valid" in complaint(json.dumps("a" * 60 + "c"), schema)


@pytest.mark.parametrize(
    "schema", [{"type": "strin"}, {"properties": []}, {"required": "a"}, {"minimum": "1"}]
)
def test_what_is_no_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="no JSON Schema"):
        check_schema(schema)
