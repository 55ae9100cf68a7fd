# SPDX-License-Identifier: Apache-2.0
"""From the fields of an AskImage request to checked values: what is asked, about which picture, for how
long.
"""

from __future__ import annotations

import math
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mobilevlm_msgs.msg import Status
from rclpy.node import Node

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.prompt.conversation import turns_of
from mobilevlm_ros.inference.prompt.presets import Preset, system_prompt
from mobilevlm_ros.inference.types import AnswerFormat, Region, Request, SamplingParams
from mobilevlm_ros.inference.validate import MAX_FRAMES, check_request, clean_text
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.services.ask_request import EVERY, AskRequest, has_image
from mobilevlm_ros.nodes.services.messages import AskFields
from mobilevlm_ros.ros.images.encodings import parse_encodings
from mobilevlm_ros.ros.stamps import to_nanoseconds
from mobilevlm_ros.ros.status import Refused

MAX_SESSION_NAME = 200
"""Characters."""

MAX_LABEL = 200
"""Characters of `camera` where a picture was sent: it comes back in the response."""

LONGEST_WAIT = 600.0
"""Seconds of wait_for_frame."""

_NOT_PLAIN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control and invisible characters, halves of pairs, and separators of lines."""


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
    for name in ("max_age", "timeout", "wait_for_frame", "frame_interval"):
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
                logprobs=fields.logprobs,
                top_logprobs=fields.top_logprobs,
            ),
            answer_format=AnswerFormat(
                fields.answer_format,
                minimum=fields.minimum,
                maximum=fields.maximum,
                json_schema=fields.json_schema,
                pattern=fields.pattern,
                grammar=fields.grammar,
            ),
        ),
        parameter["max_question_length"],
    )
    said = turns_of(fields.history)
    session = _session(fields, parameter["sessions_max"])
    timeout = fields.timeout or parameter["timeout"]
    targets = _cameras(fields, cameras)
    _check_together(fields, targets)
    each = len(targets) > 1 or (fields.camera == EVERY and targets != [None])
    return [
        AskRequest(
            fields=fields,
            request=request,
            camera=camera,
            # Put to all cameras, a conversation is one with each: it is about each one's own pictures.
            session=f"{session}\n{camera.name}" if session and each and camera is not None else session,
            said=said,
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
    if has_image(fields) and compressed:
        raise OptionError("both image and compressed_image are filled: send at most one")
    if has_image(fields) or compressed:
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


def _check_together(fields: AskFields, targets: Sequence[Camera | None]) -> None:
    """Raises OptionError for fields that do not go together, Refused for frames that are not kept."""
    if fields.history and fields.session:
        raise OptionError(
            "history and session are both given: leave one of them out; the node keeps what was said in a "
            "session itself"
        )
    if fields.logprobs and (fields.choices or fields.camera == EVERY):
        other = "choices, which are not written" if fields.choices else "camera '*': ask one camera"
        raise OptionError(f"logprobs is given with {other}; leave it false")
    if fields.frames > MAX_FRAMES:
        raise OptionError(f"frames is {fields.frames}: give at most {MAX_FRAMES}")
    if fields.frames <= 1 and fields.frame_interval != 0:
        raise OptionError(
            f"frame_interval is {fields.frame_interval:g} and frames {fields.frames}: say how many frames "
            "(2 or more), or leave frame_interval 0"
        )
    if fields.frame_interval < 0:
        raise OptionError(
            f"frame_interval is {fields.frame_interval:g}: give 0 (as they are kept) or more seconds"
        )
    if fields.frames <= 1:
        return
    others = {
        "a picture in the request": targets == [None],
        "a roi": _region(fields.roi) is not None,
        "a session": bool(fields.session),
        "camera '*'": fields.camera == EVERY,
    }
    for what, given in others.items():
        if given:
            raise OptionError(f"frames is {fields.frames} with {what}: ask about one frame, or leave it out")
    for camera in targets:
        if camera is not None and not camera.remembers:
            raise Refused(
                Status.UNSUPPORTED,
                f"{camera.label} keeps its newest frame only, and {fields.frames} are wanted: set the "
                "parameters history_mb (MiB of earlier frames to keep) and history_rate (frames in a second)",
            )


def _region(roi: Any) -> Region | None:
    if roi.width == 0 or roi.height == 0:
        return None
    return Region(roi.x_offset, roi.y_offset, roi.width, roi.height)


_DEFAULTS = ("max_age", "timeout", "max_tokens", "max_question_length", "sessions_max", "encodings")
