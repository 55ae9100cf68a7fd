# SPDX-License-Identifier: Apache-2.0
"""Our messages without ROS are those with ROS: same definitions, same hashes, same bytes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.bags.messages import (
    MESSAGES,
    TYPES,
    MonitorSettings,
    definition,
    schema,
    serialize,
    typestore,
)
from mobilevlm_ros.bags.records import Record

MSG = Path(__file__).parents[2] / "msg" / "msg"

CAPTION = Record(
    "caption", -1_500_000_000, 7, "front", "Ein Äpfel.", "Describe the scene.", 0.25, "lens", model_id="m@1",
    finish_reason="stop", generated_tokens=3, calibrated=True,
)  # fmt: skip
ANSWER = Record(
    "answer", 5_000_000_007, 7, "front", "yes", "Is it?", 0.75, "lens", finish_reason="choice",
    probabilities={"yes": 0.75, "no": 0.25},
)  # fmt: skip
MONITOR = Record(
    "monitor", 5_000_000_007, 7, "front", "person: raised", "Is it?", 0.75, "lens", monitor="person",
    probability=0.75, state="raised", changed=True, since_ns=4_000_000_001,
)  # fmt: skip
SETTINGS = MonitorSettings(0.7, 0.3, 0.5)


@pytest.mark.parametrize("name", MESSAGES)
def test_the_definitions_that_come_with_the_package_are_those_of_msg(name: str) -> None:
    assert definition(name) == (MSG / f"{name}.msg").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", TYPES)
def test_ros_has_the_same_hash(kind: str) -> None:
    """As MCAP and discovery tell it (REP 2011)."""
    pytest.importorskip("mobilevlm_msgs")
    prefixes = [*filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), sys.prefix]
    path = f"share/mobilevlm_msgs/msg/{TYPES[kind].rpartition('/')[2]}.json"
    found = [Path(prefix) / path for prefix in prefixes if (Path(prefix) / path).is_file()]
    if not found:
        pytest.skip("this ROS keeps no type descriptions (before Iron)")
    assert f'"{schema(TYPES[kind])[1]}"' in found[0].read_text()


@pytest.mark.parametrize("record", [CAPTION, ANSWER, MONITOR], ids=lambda record: record.kind)
def test_ros_reads_the_bytes(record: Record) -> None:
    pytest.importorskip("rclpy")
    from mobilevlm_msgs import msg
    from rclpy.serialization import deserialize_message, serialize_message

    data = serialize(record, SETTINGS)
    kind = TYPES[record.kind]
    told = deserialize_message(data, getattr(msg, kind.rpartition("/")[2]))
    assert told.header.stamp.sec * 1_000_000_000 + told.header.stamp.nanosec == record.stamp_ns
    assert (told.header.frame_id, told.camera) == ("lens", "front")
    if record is CAPTION:
        assert (told.text, told.prompt, told.confidence) == ("Ein Äpfel.", "Describe the scene.", 0.25)
    elif record is ANSWER:
        assert told.answer == "yes" and list(told.choice_probabilities) == [0.75, 0.25]
        assert told.status.code == msg.Status.OK
    else:
        assert (told.state, told.changed, told.name) == (msg.MonitorState.RAISED, True, "person")
        assert (told.since.sec, told.since.nanosec) == (4, 1)
    # And back: what ROS writes, our definitions read.
    back = typestore().deserialize_cdr(serialize_message(told), kind)
    again = typestore().deserialize_cdr(data, kind)
    assert repr(back) == repr(again) or np.isnan(getattr(back, "probability", 0.0))
