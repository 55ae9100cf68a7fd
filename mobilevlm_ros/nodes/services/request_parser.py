# SPDX-License-Identifier: Apache-2.0
"""From the fields of an AskImage request to checked values: what is asked, about which picture, for how
long.
"""

from __future__ import annotations

import math
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mobilevlm_msgs.msg import Status
from rclpy.node import Node

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.cache.sessions import Session, SessionStore
from mobilevlm_ros.inference.prompt.presets import Preset, system_prompt
from mobilevlm_ros.inference.types import AnswerFormat, Frame, Region, Request, SamplingParams
from mobilevlm_ros.inference.validate import check_request, clean_text
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.cameras.image_buffer import StampedImage
from mobilevlm_ros.nodes.services.messages import AskFields
from mobilevlm_ros.ros.image_conversion import compressed_to_rgb, image_to_rgb
from mobilevlm_ros.ros.image_encodings import Encodings, parse_encodings
from mobilevlm_ros.ros.stamps import to_nanoseconds
from mobilevlm_ros.ros.status import Refused

EVERY = "*"
"""Name that stands for all cameras."""

MAX_SESSION_NAME = 200
"""Characters."""

MAX_LABEL = 200
"""Characters of `camera` where a picture was sent: it comes back in the response."""

LONGEST_WAIT = 600.0
"""Seconds of wait_for_frame."""

_NOT_PLAIN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control and invisible characters, halves of pairs, and separators of lines."""


@dataclass(eq=False)
class AskRequest:
    """A request of the service or the action, checked, to one camera or about the picture that it carries.

    Attributes:
        session: key of the conversation; empty without one.
        arrival_ns: of the request, nanoseconds of the node's clock.
        stamp_ns: of the frame that is meant, nanoseconds; 0 = the newest.
        max_age, wait_for_frame: seconds.
        timeout: seconds; None = no limit.
        encodings: how to read encodings of the picture that it carries.
        picture: the one that it carries, once it is decoded.
    """

    fields: AskFields
    request: Request
    camera: Camera | None
    session: str
    arrival_ns: int
    stamp_ns: int
    max_age: float
    wait_for_frame: float
    timeout: float | None
    encodings: Encodings = field(default_factory=dict)
    picture: Frame | None = field(default=None, init=False)
    _kept: StampedImage | None = field(default=None, init=False)

    @property
    def source(self) -> str:
        """Whose question it is, as far as ROS tells: that of a conversation, else about a camera. Sources
        take turns, and none can take all places in a queue.
        """
        return f"session {self.session}" if self.session else f"camera {self.label}"

    @property
    def patience(self) -> float:
        """Seconds from its arrival for which it waits for a frame."""
        return min(self.wait_for_frame, math.inf if self.timeout is None else self.timeout)

    @property
    def label(self) -> str:
        """Name of the camera for the response."""
        return self.camera.name if self.camera is not None else str(self.fields.camera)

    def ready(self, sessions: SessionStore) -> bool:
        """Whether there is a picture for it, as far as can be told before its turn. An image that is meant by
        its stamp is held from now on, however long its turn takes to come.

        Args:
            sessions: those that go on.
        """
        known = sessions.camera(self.session) if self.session else None
        if self.camera is None or (known is not None and self._same_picture(known)):
            return True
        if self.stamp_ns:
            try:
                self._kept = self.camera.find(self.stamp_ns, self.max_age)
            except Refused:
                return False
            return True
        age = self.camera.age(self.arrival_ns)
        return age is not None and (self.max_age < 0 or age <= self.max_age)

    def frame(self, session: Session | None) -> Frame:
        """The picture it is about. Takes it now: call it when its turn has come.

        Raises:
            Refused, ImageError: there is no usable picture.
        """
        if session is not None and session.frame is not None and self._same_picture(session.frame.camera):
            return session.frame
        if self.camera is None:
            return self.picture or self.decode()
        if self.stamp_ns:
            kept = self._kept or self.camera.find(self.stamp_ns, self.max_age)
            return self.camera.converted(kept)
        return self.camera.frame(self.max_age, self.arrival_ns)

    def _same_picture(self, camera: str) -> bool:
        """Whether a follow-up is about the frame of the question before, which that camera sent."""
        asked = self.fields
        other = asked.camera not in ("", EVERY, camera)
        return not (self.camera is None or other or self.stamp_ns or asked.new_frame or asked.reset_session)

    def decode(self) -> Frame:
        """The picture that it carries; may take long. Raises ImageError."""
        raw = _has_image(self.fields)
        sent = self.fields.image if raw else self.fields.compressed_image
        rgb = (image_to_rgb if raw else compressed_to_rgb)(sent, self.encodings)
        return Frame(rgb, to_nanoseconds(sent.header.stamp), sent.header.frame_id, self.fields.camera)


def parse_request(
    fields: AskFields, node: Node, cameras: Mapping[str, Camera], presets: Mapping[str, Preset]
) -> list[AskRequest]:
    """Check the fields of a request (or goal) against the messages' definition and the node's configuration.

    Returns:
        one question; for camera '*' one to each camera, in the order of the configuration.

    Raises:
        Refused: UNSUPPORTED or UNKNOWN_CAMERA.
        QuestionError, OptionError: the question or one of its options cannot be used.
    """
    parameter = {name: node.get_parameter(name).value for name in _DEFAULTS}
    for name in ("max_age", "timeout", "wait_for_frame"):
        if not math.isfinite(getattr(fields, name)):
            raise OptionError(f"{name} is {getattr(fields, name)}: give a finite number")
    if fields.wait_for_frame < 0:
        raise OptionError(
            f"wait_for_frame is {fields.wait_for_frame:g}: give 0 (do not wait) or more seconds"
        )
    if fields.wait_for_frame > LONGEST_WAIT:
        raise OptionError(
            f"wait_for_frame is {fields.wait_for_frame:g}: give at most {LONGEST_WAIT:.0f} seconds, and ask "
            "again"
        )
    if fields.temperature > 2:
        raise OptionError(f"temperature is {fields.temperature:g}: give a number from 0 (greedy) to 2")
    request = check_request(
        Request(
            question=fields.question,
            choices=tuple(fields.choices),
            abstain_threshold=fields.abstain_threshold,
            system_prompt=system_prompt(fields.system_prompt, fields.preset, presets),
            region=_region(fields.roi),
            region_with_frame=fields.roi_with_frame and _region(fields.roi) is not None,
            sampling=SamplingParams(
                max_tokens=fields.max_tokens or parameter["max_tokens"],
                temperature=fields.temperature,
                top_p=fields.top_p,
                seed=fields.seed or secrets.randbits(63),
                repetition_penalty=fields.repetition_penalty,
                stop=tuple(fields.stop),
            ),
            answer_format=AnswerFormat(
                fields.answer_format,
                minimum=fields.minimum,
                maximum=fields.maximum,
                json_schema=fields.json_schema,
            ),
        ),
        parameter["max_question_length"],
    )
    session = _session(fields, parameter["sessions_max"])
    timeout = fields.timeout or parameter["timeout"]
    targets = _cameras(fields, cameras)
    each = len(targets) > 1 or (fields.camera == EVERY and targets != [None])
    return [
        AskRequest(
            fields=fields,
            request=request,
            camera=camera,
            # Put to all cameras, a conversation is one with each: it is about each one's own pictures.
            session=f"{session}\n{camera.name}" if session and each and camera is not None else session,
            arrival_ns=node.get_clock().now().nanoseconds,
            stamp_ns=to_nanoseconds(fields.stamp),
            max_age=fields.max_age or parameter["max_age"],
            wait_for_frame=fields.wait_for_frame,
            timeout=None if timeout < 0 else timeout,
            encodings=parse_encodings(parameter["encodings"]),
        )
        for camera in targets
    ]


def _session(fields: AskFields, sessions_max: int) -> str:
    if not fields.session:
        if fields.reset_session:
            raise OptionError("reset_session is set without a session: name the session")
        return ""
    if sessions_max == 0:
        raise Refused(
            Status.UNSUPPORTED,
            "this node keeps no sessions (its parameter sessions_max is 0): raise it, or leave session empty",
        )
    # Before `clean_text` makes spaces of some: no two names may become one, and '\n' joins our own parts.
    if any(unicodedata.category(char) in _NOT_PLAIN for char in fields.session):
        raise OptionError("the session's name holds a control character or line end: choose a plain name")
    return clean_text(fields.session, "session", MAX_SESSION_NAME)


def _cameras(fields: AskFields, cameras: Mapping[str, Camera]) -> list[Camera | None]:
    """The cameras that are meant; [None] for a picture in the request."""
    compressed = bool(len(fields.compressed_image.data) or fields.compressed_image.format)
    if _has_image(fields) and compressed:
        raise OptionError("both image and compressed_image are filled: send at most one")
    if _has_image(fields) or compressed:
        if len(fields.camera) > MAX_LABEL:
            raise OptionError(
                f"camera is a label of {len(fields.camera)} characters: give at most {MAX_LABEL}"
            )
        if to_nanoseconds(fields.stamp):
            raise OptionError("a stamp names a camera's frame, but a picture was sent: leave one of them out")
        return [None]
    if fields.camera == EVERY:
        return list(cameras.values())
    if fields.camera == "":
        return [next(iter(cameras.values()))]
    camera = cameras.get(fields.camera)
    if camera is None:
        known = ", ".join(repr(name) for name in cameras)
        raise Refused(
            Status.UNKNOWN_CAMERA,
            f"no camera {fields.camera!r} is configured: use one of {known}, or add it to "
            "the parameter `cameras`",
        )
    return [camera]


def _has_image(fields: AskFields) -> bool:
    """Whether a raw picture was sent; a size or encoding without data is a picture too, a malformed one."""
    image = fields.image
    return bool(len(image.data) or image.width or image.height or image.encoding)


def _region(roi: Any) -> Region | None:
    if roi.width == 0 or roi.height == 0:
        return None
    return Region(roi.x_offset, roi.y_offset, roi.width, roi.height)


_DEFAULTS = ("max_age", "timeout", "max_tokens", "max_question_length", "sessions_max", "encodings")
