# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.errors import ConfigurationError
from mobilevlm_ros.inference.monitoring.monitors import (
    _FIELDS,
    Monitor,
    load_monitors,
    parse_monitors,
    resolve,
)
from mobilevlm_ros.inference.validate import check_request

SHIPPED = Path(__file__).resolve().parents[3] / "config" / "monitors.yaml"


def parse(text: str) -> list[Monitor]:
    return parse_monitors(text.encode(), "m.yaml")


def one(extra: str = "") -> str:
    return f"monitors:\n  - name: door\n    question: Is the door open?\n{extra}"


def test_the_shipped_file_is_read_with_all_its_fields() -> None:
    person, path, light = load_monitors(SHIPPED)
    assert (person.name, person.rate, person.threshold_up, person.threshold_down) == ("person", 2.0, 0.8, 0.2)
    assert person.hold_time == 0.5 and person.evidence and person.severity == "warn"
    assert path.raised == ("no",) and path.severity == "error" and not path.evidence
    assert light.choices == ("red", "yellow", "green", "none")
    assert light.probability([0.5, 0.25, 0.25, 0.0]) == 0.75
    assert person.probability([0.9, 0.1]) == 0.9 and path.probability([0.9, 0.1]) == 0.1


def test_what_is_left_out_has_the_documented_default() -> None:
    (monitor,) = parse(one())
    assert monitor == Monitor("door", "Is the door open?")
    assert monitor.request.choices == ("yes", "no") and monitor.cameras == ("",) and monitor.max_age is None
    assert parse("monitors: []") == []


def test_cameras_are_resolved_one_monitor_each() -> None:
    text = "\n".join(
        f"  - {{name: m{i}, question: 'Is it?', camera: {camera}}}"
        for i, camera in enumerate(["''", "rear", "'*'", "[rear, '', front]"])
    )
    resolved = resolve(parse(f"monitors:\n{text}"), ["front", "rear"])
    assert [(m.name, *m.cameras) for m in resolved] == [
        ("m0", "front"),
        ("m1", "rear"),
        ("m2", "front"),
        ("m2", "rear"),
        ("m3", "rear"),
        ("m3", "front"),
    ]
    assert resolve([Monitor("a", "Is it?")], [""])[0].cameras == ("",)
    with pytest.raises(ConfigurationError, match="'m1': no camera 'rear' is configured: use one of 'front'"):
        resolve(parse(f"monitors:\n{text}"), ["front"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("- a", "line 1: the file must hold"),
        ("monitor: []", "line 1: the file has the unknown field 'monitor'"),
        ("monitors: {}", "line 1: `monitors` must be a list"),
        ("monitors: [", "is not YAML"),
        ("monitors:\n  - just text", "line 2: a monitor must hold"),
        ("monitors:\n  - name: door", "line 2: a monitor has no `question`"),
        (one("    color: red"), "line 4: a monitor has the unknown field 'color'"),
        (one("    rate: 1\n    rate: 2"), "line 5: a monitor has the field 'rate' twice"),
        (one("    rate: 0"), "line 4: rate is 0: give evaluations per second, from 0.001 to 20"),
        (one("    rate: 1.0e+9"), "rate is"),
        (one("    rate: .nan"), "rate is nan"),
        (one("    rate: fast"), "rate is 'fast'"),
        (one("    rate: true"), "rate is True"),
        (one("    hold_time: -1"), "hold_time is -1: give seconds"),
        (one("    threshold_up: 0.2"), r"threshold_down \(0.3\) must be below threshold_up \(0.2\)"),
        (one("    threshold_up: 0.5\n    threshold_down: 0.5"), "line 5: threshold_down"),
        (one("    threshold_up: 70"), "threshold_up is 70: give a probability"),
        (one("    choices: [yes, no]"), "line 4: choices reads as true or false in YAML: put it in quotes"),
        (one("    raised: no"), "line 4: raised reads as true or false in YAML: put it in quotes, 'no'$"),
        (one("    camera: [On, off]"), "camera reads as true or false in YAML: put it in quotes, 'On'$"),
        (one("    choices: [12:30, 1]"), "choices reads as 750 in YAML: put it in quotes, '12:30'$"),
        (one("    choices: [2026-11-28, 1]"), "reads as the date 2026-11-28 in YAML: put it in quotes"),
        (
            "monitors:\n  - {name: 007, question: 'Is it?'}",
            "name reads as 7 in YAML: put it in quotes, '007'",
        ),
        (one("    rate: 010"), "rate is `010`, which YAML reads as 8: write a decimal number"),
        (one("    hold_time: 00:30:00"), "hold_time is"),
        (one("    hold_time: 1:30"), "hold_time is `1:30`, which YAML reads as 90: write a decimal number"),
        (one("    choices: ['one']"), "only one choice"),
        (one("    choices: ['a', 'A']"), "same apart from case"),
        (one("    choices: ['red', 'green']"), "raised is 'yes': name one of the choices, 'red', 'green'"),
        (one("    raised: ['yes', 'no']"), "raised names all choices"),
        (one("    raised: []"), "raised is an empty list"),
        (one("    evidence: 1"), "evidence is 1: give true or false"),
        (one("    severity: bad"), "severity is 'bad': give one of ok, warn, error"),
        (one("    camera: {a: 1}"), "camera must be a single value or a list"),
        (one("    max_age: 2026-99-99"), "max_age cannot be read"),
        (one("    max_age: !!python/object:os.system x"), "max_age cannot be read"),
        ("monitors:\n  - {name: '  ', question: 'Is it?'}", "line 2: name: the name is empty"),
        ("monitors:\n  - {name: 5, question: 'Is it?'}", "name is 5, not text"),
        ("monitors:\n  - {name: a, question: ''}", "question: the question is empty"),
        ("monitors:\n  - {name: a, question: '<image>'}", "reserves"),
        (one() + "  - {name: door, question: 'Is it?'}", "2 monitors are called 'door'"),
        ("monitors: [" + "{name: a, question: b}," * 65 + "]", "65 monitors: keep 64 or fewer"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_a_mistake_is_refused_with_its_line_and_what_to_do(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match="^monitors file m.yaml.*" + reason):
        parse(text)


def test_numbers_and_switches_are_what_everybody_reads() -> None:
    (monitor,) = parse(
        one(
            "    rate: 1e1\n    hold_time: 2.5e-1\n    evidence: yes\n"
            "    choices: ['no', 'off']\n    raised: 'no'"
        )
    )
    assert (monitor.rate, monitor.hold_time, monitor.evidence, monitor.raised) == (10.0, 0.25, True, ("no",))


def test_a_file_that_is_not_there_or_not_a_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path, Path("a\0b")):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_monitors(path)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigurationError, match="right one"):
        load_monitors(large)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))))
def test_any_bytes_give_monitors_or_a_reason(content: bytes) -> None:
    try:
        parse_monitors(content)
    except ConfigurationError as error:
        reason = str(error)
    else:
        return
    assert reason.startswith("monitors file monitors.yaml")


names = st.sampled_from([*_FIELDS, "other"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.binary(max_size=4),
)
good: dict[str, Any] = {
    "rate": 2.0,
    "camera": "*",
    "threshold_up": 0.9,
    "threshold_down": 0.1,
    "choices": ["open", "shut"],
    "raised": "open",
}


@given(
    st.lists(
        st.tuples(
            st.dictionaries(names, st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=3),
            st.dictionaries(st.sampled_from(sorted(good)), st.none(), max_size=6),
        ),
        max_size=3,
    )
)
def test_any_fields_give_monitors_that_can_be_asked_or_a_reason(entries: list[tuple[dict, dict]]) -> None:
    monitors = [
        {"name": f"m{i}", "question": "Is it open?", **{key: good[key] for key in kept}, **odd}
        for i, (odd, kept) in enumerate(entries)
    ]
    try:
        loaded = parse_monitors(yaml.safe_dump({"monitors": monitors}).encode("utf-8", "surrogatepass"))
    except ConfigurationError as error:
        loaded, reason = [], str(error)
    else:
        assert len({monitor.name for monitor in loaded}) == len(loaded) == len(entries)
        reason = ""
    assert not reason or re.match("monitors file monitors.yaml(, line | is not YAML)", reason)
    for monitor in loaded:
        check_request(monitor.request)
        assert 0 <= monitor.threshold_down < monitor.threshold_up <= 1 and 0.001 <= monitor.rate <= 20
        assert 0 <= monitor.hold_time < float("inf") and set(monitor.raised) < set(monitor.choices)
