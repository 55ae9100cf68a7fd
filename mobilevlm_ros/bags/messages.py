# SPDX-License-Identifier: Apache-2.0
"""Our messages in recordings, without ROS: definitions come with the package, bytes from `rosbags`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from mobilevlm_ros.bags.records import Record

PACKAGE = "mobilevlm_msgs"
MESSAGES = ("Status", "Latency", "Caption", "CameraAnswer", "MonitorState")
TYPES = {
    "caption": f"{PACKAGE}/msg/Caption",
    "answer": f"{PACKAGE}/msg/CameraAnswer",
    "monitor": f"{PACKAGE}/msg/MonitorState",
}
"""Of each kind of record."""

TOPICS = {"caption": "/mobilevlm/captions", "answer": "/mobilevlm/answers", "monitor": "/mobilevlm/monitors"}
"""Where records of each kind are written: captions and monitors where the node publishes them."""

_STATES = {"unknown": 0, "clear": 1, "raised": 2}
_OK = 1
_SECOND = 1_000_000_000


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """ROS 2's common messages and ours."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    types: dict[str, Any] = {}
    for name in MESSAGES:
        types.update(get_types_from_msg(definition(name), f"{PACKAGE}/msg/{name}"))
    store.register(types)
    return store


def definition(name: str) -> str:
    """The text of a .msg file of ours."""
    return (files("mobilevlm_ros.bags") / "msg" / f"{name}.msg").read_text(encoding="utf-8")


@lru_cache(maxsize=16)
def schema(kind: str) -> tuple[str, str]:
    """(definition with all that it uses, hash of the type) of a message's type, as MCAP keeps them."""
    store = typestore()
    return store.generate_msgdef(kind, ros_version=2)[0], store.hash_rihs01(kind)


@dataclass(frozen=True)
class MonitorSettings:
    """What a MonitorState says of its monitor's configuration."""

    threshold_up: float
    threshold_down: float
    hold_time: float


def serialize(record: Record, settings: MonitorSettings | None = None) -> bytes:
    """The record as CDR bytes of its message. Durations are 0: a recording has no time of its own to spend.

    Args:
        settings: of the monitor, for a record of that kind.
    """
    kind = TYPES[record.kind]
    return bytes(typestore().serialize_cdr(_MAKERS[record.kind](record, settings), kind))


def message_type(name: str) -> Any:
    """The class of a message's type, as in message_type('std_msgs/msg/Header')."""
    return typestore().types[name]


def time_message(stamp_ns: int) -> Any:
    """builtin_interfaces/Time of nanoseconds."""
    seconds, nanoseconds = divmod(stamp_ns, _SECOND)
    return message_type("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)


def _header(record: Record) -> Any:
    return message_type("std_msgs/msg/Header")(stamp=time_message(record.stamp_ns), frame_id=record.frame_id)


def _latency() -> Any:
    return message_type(f"{PACKAGE}/msg/Latency")(queue=0.0, encode=0.0, prefill=0.0, decode=0.0, total=0.0)


def _status() -> Any:
    return message_type(f"{PACKAGE}/msg/Status")(code=_OK, message="")


def _caption(record: Record, _: MonitorSettings | None) -> Any:
    return message_type(TYPES["caption"])(
        header=_header(record),
        camera=record.camera,
        prompt=record.question,
        text=record.text,
        confidence=record.confidence,
        calibrated=record.calibrated,
        finish_reason=record.finish_reason,
        generated_tokens=record.generated_tokens,
        latency=_latency(),
        model_id=record.model_id,
    )


def _answer(record: Record, _: MonitorSettings | None) -> Any:
    return message_type(TYPES["answer"])(
        status=_status(),
        header=_header(record),
        camera=record.camera,
        answer=record.text,
        confidence=record.confidence,
        choice_probabilities=np.array(list(record.probabilities.values()), np.float32),
        abstained=record.abstained,
        finish_reason=record.finish_reason,
        prompt_tokens=0,
        cached_tokens=0,
        generated_tokens=record.generated_tokens,
        latency=_latency(),
    )


def _monitor(record: Record, settings: MonitorSettings | None) -> Any:
    assert settings is not None
    empty = message_type("sensor_msgs/msg/CompressedImage")(
        header=message_type("std_msgs/msg/Header")(stamp=time_message(0), frame_id=""),
        format="",
        data=np.array([], np.uint8),
    )
    return message_type(TYPES["monitor"])(
        header=_header(record),
        camera=record.camera,
        name=record.monitor,
        question=record.question,
        status=_status(),
        probability=float("nan") if record.probability is None else record.probability,
        state=_STATES[record.state],
        changed=record.changed,
        since=time_message(record.since_ns),
        threshold_up=settings.threshold_up,
        threshold_down=settings.threshold_down,
        hold_time=settings.hold_time,
        latency=_latency(),
        model_id=record.model_id,
        evidence=empty,
    )


_MAKERS = {"caption": _caption, "answer": _answer, "monitor": _monitor}
