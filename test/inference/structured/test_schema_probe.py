# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from mobilevlm_ros.inference.structured import schema_probe

pytest.importorskip("llguidance")


def probe(text: str, seconds: int) -> str:
    steps = schema_probe.probe(text, seconds)
    while True:
        try:
            assert next(steps) == ""
        except StopIteration as end:
            complaint: str = end.value
            return complaint


def grammar(schema: object) -> str:
    return f'start: " " value\nvalue: %json {json.dumps(schema)}\n'


def test_a_usable_grammar_has_no_complaint() -> None:
    assert probe(grammar({"type": "object", "properties": {"a": {"type": "string"}}}), 60) == ""


def test_an_impossible_one_is_named() -> None:
    assert "greater than maximum" in probe(grammar({"type": "integer", "minimum": 5, "maximum": 3}), 60)


def test_one_that_would_compile_for_hours_is_given_up() -> None:
    hostile = {"allOf": [{"type": "integer", "multipleOf": 10007}, {"multipleOf": 10009}]}
    assert "too complex" in probe(grammar(hostile), 1)


def test_one_that_is_given_up_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    popen = schema_probe.subprocess.Popen
    monkeypatch.setattr(
        schema_probe.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0]
    )
    steps = schema_probe.probe(grammar({"type": "integer"}))
    assert next(steps) == ""
    steps.close()
    assert started[0].poll() is not None


def test_a_grammar_longer_than_a_pipe_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe(grammar({"enum": ["x" * 200_000]}), 60) == ""


def test_one_beyond_the_limits_of_the_parser_is_refused() -> None:
    many = {"type": "object", "properties": {f"k{i}": {"type": "integer"} for i in range(3000)}}
    assert probe(grammar(many), 60)
