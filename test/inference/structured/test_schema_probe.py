# SPDX-License-Identifier: Apache-2.0
import json
import threading

import pytest

from mobilevlm_ros.errors import Busy
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
    pause = next(steps)
    while not started:
        pause.wait(0.01)
    steps.close()
    assert started[0].wait(60) is not None
    assert pause.until.result(60) == ""


def test_so_many_are_tried_at_once_and_the_next_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(schema_probe._Trial, "_tried", lambda _: "" if go.wait(60) else "late")
    waiting = [schema_probe.probe(f"start: {number}") for number in range(schema_probe.WAITING)]
    pauses = [next(steps) for steps in waiting]
    with pytest.raises(Busy, match="too many new formats"):
        next(schema_probe.probe("start: more"))
    assert not any(pause.until.done() for pause in pauses)
    go.set()
    assert {pause.until.result(60) for pause in pauses} == {""}
    for trial in [thread for thread in threading.enumerate() if thread.name == "schema-probe"]:
        trial.join(60)
    assert "Busy" not in probe(grammar({"type": "integer"}), 60)  # there is room again


def test_a_grammar_longer_than_a_pipe_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe(grammar({"enum": ["x" * 200_000]}), 60) == ""


def test_one_beyond_the_limits_of_the_parser_is_refused() -> None:
    many = {"type": "object", "properties": {f"k{i}": {"type": "integer"} for i in range(3000)}}
    assert probe(grammar(many), 60)
