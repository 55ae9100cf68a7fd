# SPDX-License-Identifier: Apache-2.0
"""The random client of soak.py: what it asks, and how it puts it over the service and the action."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from builtin_interfaces.msg import Time
from mobilevlm_msgs.action import AskImage as AskAction
from mobilevlm_msgs.srv import AskImage
from rclpy.action import ActionClient
from sensor_msgs.msg import RegionOfInterest
from soak_scenes import COUNT, DESCRIBE, FREE, PLACES, YES_NO, Question

from mobilevlm_ros.client import AskImageClient
from mobilevlm_ros.client.exchange import QUEUE
from mobilevlm_ros.ros.stamps import to_message

PATIENCE = 60.0
"""Seconds after which a question without any response is lost; each gives the node 20."""

BUSY = {"BUSY", "TIMEOUT", "STALE_FRAME"}
"""Refusals that a machine without time to spare explains."""

BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"question": ""}, "INVALID_QUESTION"),
    ({"question": "x" * 3000}, "INVALID_QUESTION"),
    ({"question": "Is it?", "camera": "nope"}, "UNKNOWN_CAMERA"),
    ({"question": "Is it?", "temperature": 9.0}, "INVALID_PARAMETER"),
    ({"question": "Is it?", "choices": ["a"]}, "INVALID_QUESTION"),
    ({"question": "Is it?", "answer_format": "json"}, "INVALID_PARAMETER"),
)


@dataclass
class Asked:
    """A request on its way, and what came of it."""

    kind: str
    fields: dict[str, Any]
    question: Question | None = None
    expected: frozenset[str] = frozenset({"OK"})
    cancel_after: int | None = None  # pieces of the stream
    sent: float = field(default_factory=monotonic)
    pieces: list[str] = field(default_factory=list)
    handle: Any = None
    withdrawn: bool = False


class Draw:
    """Draws requests of all kinds."""

    def __init__(self, seed: int, cameras: tuple[str, ...], sessions: int) -> None:
        self._rng = random.Random(seed)  # nosec B311
        self._cameras = cameras
        self._free_sessions = [f"s{index}" for index in range(sessions)]
        self.stamps: list[tuple[str, int]] = []  # camera and stamp of frames that were answered about

    def wait(self, rate: float) -> float:
        """Seconds until the next one."""
        return self._rng.expovariate(rate)

    def draw(self) -> Asked:
        """The next request."""
        kinds = ("plain", "choices", "session", "region", "past", "integer", "every camera", "bad")
        kind = self._rng.choices((*kinds, "stream", "cancel"), (26, 18, 16, 8, 5, 4, 4, 4, 10, 5))[0]
        question = self._rng.choice(FREE)
        made = Asked(
            kind, {"camera": self._rng.choice(self._cameras), "max_age": 2.0, "timeout": 20.0}, question
        )
        getattr(self, f"_{kind.replace(' ', '_')}", lambda _: None)(made)
        if made.question is not None:
            made.fields["question"] = made.question.text
        return made

    def done(self, asked: Asked) -> None:
        """Its session may be continued: one question at a time belongs to a conversation."""
        if "session" in asked.fields:
            self._free_sessions.append(asked.fields["session"])

    def _choices(self, asked: Asked) -> None:
        asked.question = self._rng.choice([q for q in FREE if q.family in ("existence", "path")])
        asked.fields["choices"] = list(YES_NO)

    def _session(self, asked: Asked) -> None:
        if self._free_sessions:
            name = self._free_sessions.pop(self._rng.randrange(len(self._free_sessions)))
            new = self._rng.random() < 0.5
            asked.fields["camera"] = self._cameras[int(name[1:]) % len(self._cameras)]
            asked.fields |= {"session": name, "new_frame": new, "reset_session": self._rng.random() < 0.2}

    def _region(self, asked: Asked) -> None:
        # The truth about a part is a matter of opinion: its answer is held against the same model's.
        x, y = self._rng.choice((0, 320, 640)), self._rng.choice((0, 180))
        asked.fields["roi"] = RegionOfInterest(x_offset=x, y_offset=y, width=640, height=540)
        asked.fields["roi_with_frame"] = self._rng.random() < 0.4

    def _past(self, asked: Asked) -> None:
        if self.stamps:
            camera, stamp = self._rng.choice(self.stamps[-20:])
            asked.fields |= {"camera": camera, "stamp": to_message(stamp), "max_age": 0.001}
            asked.expected = frozenset({"OK", "FRAME_NOT_FOUND"})

    def _integer(self, asked: Asked) -> None:
        asked.question = COUNT
        asked.fields |= {"answer_format": "integer", "minimum": 0.0, "maximum": 9.0}

    def _every_camera(self, asked: Asked) -> None:
        asked.fields["camera"] = "*"

    def _bad(self, asked: Asked) -> None:
        asked.question = None
        fields, code = self._rng.choice(BAD)
        asked.fields |= fields
        asked.expected = frozenset({code})

    def _stream(self, asked: Asked) -> None:
        asked.question = self._rng.choice((DESCRIBE, *PLACES))

    def _cancel(self, asked: Asked) -> None:
        asked.question = DESCRIBE
        asked.cancel_after = self._rng.choice((0, 1, 3))
        asked.expected = frozenset({"OK", "CANCELLED"})


class Load:
    """Puts requests and hands each response to `judge(asked, response)`.

    Attributes:
        waiting: requests without a response.
        lost: of those that nobody answered.
    """

    def __init__(self, client: AskImageClient, judge: Callable[[Asked, Any], None]) -> None:
        self._judge = judge
        self._service = client.node.create_client(AskImage, "ask_image", qos_profile=QUEUE)
        self._action = ActionClient(
            client.node,
            AskAction,
            "ask",
            goal_service_qos_profile=QUEUE,
            result_service_qos_profile=QUEUE,
            cancel_service_qos_profile=QUEUE,
            feedback_sub_qos_profile=QUEUE,
        )
        self.waiting: set[int] = set()
        self.lost: list[Asked] = []
        self._asked: dict[int, Asked] = {}
        self._count = 0

    def ready(self) -> bool:
        """Whether service and action are there."""
        return bool(self._service.service_is_ready() and self._action.server_is_ready())

    def send(self, asked: Asked) -> None:
        """Put a request; its response comes while the client's node is spun."""
        self._count += 1
        key = self._count
        self.waiting.add(key)
        self._asked[key] = asked
        if asked.kind in ("stream", "cancel"):
            self._send_goal(key, asked)
            return
        future = self._service.call_async(_filled(AskImage.Request(), asked.fields))
        future.add_done_callback(lambda done: self._finish(key, done.result()))

    def look(self) -> None:
        """Give up on those that have waited too long."""
        for key in list(self.waiting):
            if monotonic() - self._asked[key].sent > PATIENCE:
                self.waiting.discard(key)
                self.lost.append(self._asked.pop(key))

    def _send_goal(self, key: int, asked: Asked) -> None:
        def heard(message: Any) -> None:
            asked.pieces.append(message.feedback.delta)
            self._withdraw(asked)

        def accepted(sent: Any) -> None:
            asked.handle = sent.result()
            asked.handle.get_result_async().add_done_callback(
                lambda done: self._finish(key, done.result().result)
            )
            self._withdraw(asked)

        goal = _filled(AskAction.Goal(), asked.fields)
        self._action.send_goal_async(goal, feedback_callback=heard).add_done_callback(accepted)

    def _withdraw(self, asked: Asked) -> None:
        due = asked.cancel_after is not None and len(asked.pieces) >= asked.cancel_after
        if due and not asked.withdrawn and asked.handle is not None:
            asked.withdrawn = True
            asked.handle.cancel_goal_async()

    def _finish(self, key: int, response: Any) -> None:
        if key in self.waiting:
            self.waiting.discard(key)
            self._judge(self._asked.pop(key), response)


def _filled(request: Any, fields: dict[str, Any]) -> Any:
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def plain(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request as JSON takes them."""

    def of(value: Any) -> Any:
        if isinstance(value, Time):
            return value.sec * 10**9 + value.nanosec
        if isinstance(value, RegionOfInterest):
            return [value.x_offset, value.y_offset, value.width, value.height]
        return value[:80] if isinstance(value, str) else value

    return {name: of(value) for name, value in fields.items()}
