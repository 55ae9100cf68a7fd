# SPDX-License-Identifier: Apache-2.0
"""Records survive their line, and nothing else passes for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.bags.records import Record, from_line, read_records, to_line
from mobilevlm_ros.errors import BagError

_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
_NUMBER = st.integers(0, 2**63 - 1)
_SHARE = st.floats(0, 1)

records = st.builds(
    Record,
    kind=st.sampled_from(["caption", "answer", "monitor"]),
    stamp_ns=st.integers(-(2**63), 2**63 - 1),
    bag_time_ns=_NUMBER,
    camera=_TEXT,
    text=_TEXT,
    question=_TEXT,
    confidence=_SHARE,
    frame_id=_TEXT,
    topic=_TEXT,
    bag=_TEXT,
    index=_NUMBER,
    model_id=_TEXT,
    probabilities=st.dictionaries(_TEXT, _SHARE, max_size=3),
    generated_tokens=st.integers(0, 4096),
    calibrated=st.booleans(),
    abstained=st.booleans(),
    monitor=_TEXT,
    probability=st.none() | _SHARE,
    state=st.sampled_from(["", "raised", "clear", "unknown"]),
    changed=st.booleans(),
    since_ns=_NUMBER,
)


@given(records)
def test_a_record_survives_its_line(record: Record) -> None:
    line = to_line(record)
    assert "\n" not in line
    assert from_line(line) == record


@given(st.text(max_size=60) | st.dictionaries(st.text(max_size=9), st.integers()).map(json.dumps))
def test_nothing_else_passes_for_a_record(line: str) -> None:
    with pytest.raises(BagError):
        from_line(line)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stamp_ns", "1"),
        ("stamp_ns", True),
        ("confidence", None),
        ("kind", "poem"),
        ("changed", 1),
        ("probabilities", {"yes": "often"}),
        ("version", 2),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, field: str, value: object) -> None:
    good = Record("caption", 1, 2, "front", "A road.", "Describe the scene.", 0.5)
    path = tmp_path / "r.jsonl"
    path.write_text(to_line(good) + "\n" + json.dumps({**json.loads(to_line(good)), field: value}) + "\n")
    read = read_records(path)
    assert next(read) == good
    with pytest.raises(BagError, match=f"r.jsonl, line 2,.*{field}"):
        next(read)


def test_only_changes_of_monitors_are_events() -> None:
    base = {"stamp_ns": 0, "bag_time_ns": 7, "camera": "", "text": "", "question": "", "confidence": 1.0}
    assert Record("caption", **base).is_event and Record("answer", **base).is_event
    assert not Record("monitor", **base).is_event and Record("monitor", **base, changed=True).is_event
    assert Record("caption", **base).time_ns == 7
