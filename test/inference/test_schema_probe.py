# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from mobilevlm_ros.inference.schema_probe import probe

pytest.importorskip("llguidance")


def grammar(schema: object) -> str:
    return f'start: " " value\nvalue: %json {json.dumps(schema)}\n'


def test_a_usable_grammar_has_no_complaint() -> None:
    assert probe(grammar({"type": "object", "properties": {"a": {"type": "string"}}}), 60) == ""


def test_an_impossible_one_is_named() -> None:
    assert "greater than maximum" in probe(grammar({"type": "integer", "minimum": 5, "maximum": 3}), 60)


def test_one_that_would_compile_for_hours_is_given_up() -> None:
    hostile = {"allOf": [{"type": "integer", "multipleOf": 10007}, {"multipleOf": 10009}]}
    assert "too complex" in probe(grammar(hostile), 1.0)


def test_one_beyond_the_limits_of_the_parser_is_refused() -> None:
    many = {"type": "object", "properties": {f"k{i}": {"type": "integer"} for i in range(3000)}}
    assert probe(grammar(many), 60)
