# SPDX-License-Identifier: Apache-2.0
"""What a response says, for people and for programs."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time
from mobilevlm_msgs.msg import MonitorState, Status
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from mobilevlm_ros.client.printing import answer_lines, logprob_lines
from mobilevlm_ros.ros.status import name_of

_STATES = {MonitorState.UNKNOWN: "UNKNOWN", MonitorState.CLEAR: "CLEAR", MonitorState.RAISED: "RAISED"}


def as_dict(message: Any) -> dict[str, Any]:
    """What a message of mobilevlm_msgs says, as JSON takes it: any response, result, feedback or topic's.

    As the message's fields, but for: `status` is the name of its code, its sentence is `message`; the parts
    of `header` are `stamp` and `frame_id`; stamps are seconds (float); `choice_probabilities` is a mapping
    from the choices; NaN is None; the state of a monitor is its name; pictures are base64, None where there
    is none.
    """
    told: dict[str, Any] = {}
    for field in message.get_fields_and_field_types():
        value = getattr(message, field)
        if isinstance(value, Status):
            told |= {"status": name_of(value.code), "message": value.message}
        elif isinstance(value, Header):
            told |= {"stamp": _plain(value.stamp), "frame_id": value.frame_id}
        else:
            told[field] = _plain(value)
    if "choice_probabilities" in told and "choices" in told:
        odds = told["choice_probabilities"]
        told["choice_probabilities"] = dict(zip(told.pop("choices"), odds, strict=True))
    if isinstance(message, MonitorState):
        told["state"] = _STATES.get(message.state, str(message.state))
    return told


def _plain(value: Any) -> Any:
    """A field's value as JSON takes it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, bool, int, Mapping)):
        return value
    if isinstance(value, Time):
        return value.sec + value.nanosec * 1e-9
    if isinstance(value, CompressedImage):
        picture = base64.b64encode(bytes(value.data)).decode()
        return {"format": value.format, "data": picture} if picture else None
    if hasattr(value, "get_fields_and_field_types"):
        return as_dict(value)
    return [_plain(item.item() if hasattr(item, "item") else item) for item in value]


def as_text(response: Any, answer: bool = True) -> str:
    """What a response says, for people; without the answer itself where that was shown already."""
    if not (response.status.ok or response.answers):
        return _outcome(response)
    latency = {
        part: getattr(response.latency, part) for part in response.latency.get_fields_and_field_types()
    }
    odds = dict(zip(response.choices, response.choice_probabilities, strict=True))
    model = f"{response.model_id} on {response.backend}"
    first, cost, *rest = answer_lines(_outcome(response), response.confidence, odds, latency, model)
    parts = [f"  {part.camera or 'camera'}: {_outcome(part)}{_confidence(part)}" for part in response.answers]
    tokens = logprob_lines([as_dict(token) for token in response.logprobs])
    return "\n".join([*([first] if answer or not response.status.ok else []), *parts, cost, *rest, *tokens])


def _outcome(part: Any) -> str:
    if not part.status.ok:
        return f"{name_of(part.status.code)}: {part.status.message}"
    return f"(abstained) {part.status.message}" if part.abstained else str(part.answer)


def _confidence(part: Any) -> str:
    return f" ({part.confidence:.3f})" if part.status.ok else ""
