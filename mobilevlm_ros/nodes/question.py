# SPDX-License-Identifier: Apache-2.0
"""From the fields of an AskImage request to checked values: what is asked, about which picture, for how
long.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from mobilevlm_msgs.msg import Status
from rclpy.node import Node

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.types import Frame, Request
from mobilevlm_ros.inference.validate import check_request
from mobilevlm_ros.nodes.cameras import Camera
from mobilevlm_ros.nodes.conversion import compressed_to_rgb, image_to_rgb
from mobilevlm_ros.nodes.status import Refused


@dataclass(frozen=True)
class Question:
    """A request of the service or the action, checked. Durations in seconds; None stands for no limit."""

    fields: Any
    request: Request
    camera: Camera | None
    max_age: float
    wait_for_frame: float
    timeout: float | None

    @property
    def label(self) -> str:
        """Name of the camera for the response."""
        return self.camera.name if self.camera is not None else str(self.fields.camera)

    def frame(self) -> Frame:
        """The picture it is about, cut to the region of interest. Takes it now: call it when its turn has
        come.

        Raises:
            Refused, ImageError: there is no usable picture, or the region lies outside of it.
        """
        return _crop(self._picture(), self.fields.roi)

    def _picture(self) -> Frame:
        if self.camera is not None:
            return self.camera.frame(self.max_age)
        sent = self.fields.image if _has_image(self.fields) else self.fields.compressed_image
        rgb = image_to_rgb(sent) if _has_image(self.fields) else compressed_to_rgb(sent)
        stamp = sent.header.stamp
        return Frame(rgb, stamp.sec * 1_000_000_000 + stamp.nanosec, sent.header.frame_id, self.fields.camera)


def read_question(fields: Any, node: Node, cameras: Mapping[str, Camera]) -> Question:
    """Check the fields of a request (or goal) against the messages' definition and the node's configuration.

    Raises:
        Refused: UNSUPPORTED, UNKNOWN_CAMERA or INVALID_PARAMETER.
        QuestionError, OptionError: the question or one of its options cannot be used.
    """
    _refuse_unsupported(fields)
    parameter = {name: node.get_parameter(name).value for name in ("max_age", "timeout", "max_tokens")}
    for name in ("max_age", "timeout", "wait_for_frame", "abstain_threshold"):
        if not math.isfinite(getattr(fields, name)):
            raise OptionError(f"{name} is {getattr(fields, name)}: give a finite number")
    if not 0 <= fields.abstain_threshold <= 1:
        raise OptionError(
            f"abstain_threshold is {fields.abstain_threshold:g}: give a probability from 0 to 1"
        )
    if fields.wait_for_frame < 0:
        raise OptionError(
            f"wait_for_frame is {fields.wait_for_frame:g}: give 0 (do not wait) or more seconds"
        )
    if fields.temperature > 2:
        raise OptionError(f"temperature is {fields.temperature:g}: give a number from 0 (greedy) to 2")
    timeout = fields.timeout or parameter["timeout"]
    return Question(
        fields=fields,
        request=check_request(
            Request(
                question=fields.question,
                choices=tuple(fields.choices),
                max_tokens=fields.max_tokens or parameter["max_tokens"],
                temperature=fields.temperature,
                top_p=fields.top_p,
                seed=fields.seed or secrets.randbits(63),
                repetition_penalty=fields.repetition_penalty,
                stop=tuple(fields.stop),
            ),
            node.get_parameter("max_question_length").value,
        ),
        camera=_camera(fields, cameras),
        max_age=fields.max_age or parameter["max_age"],
        wait_for_frame=fields.wait_for_frame,
        timeout=None if timeout < 0 else timeout,
    )


def _has_image(fields: Any) -> bool:
    """Whether a raw picture was sent; a size or encoding without data is a picture too, a malformed one."""
    image = fields.image
    return bool(len(image.data) or image.width or image.height or image.encoding)


def _camera(fields: Any, cameras: Mapping[str, Camera]) -> Camera | None:
    """The camera that is meant; None for a picture in the request."""
    compressed = bool(len(fields.compressed_image.data) or fields.compressed_image.format)
    if _has_image(fields) and compressed:
        raise OptionError("both image and compressed_image are filled: send at most one")
    if _has_image(fields) or compressed:
        return None
    if fields.camera == "":
        return next(iter(cameras.values()))
    camera = cameras.get(fields.camera)
    if camera is None:
        known = ", ".join(repr(name) for name in cameras)
        raise Refused(
            Status.UNKNOWN_CAMERA,
            f"no camera {fields.camera!r} is configured: use one of {known}, or add it to "
            "the parameter `cameras`",
        )
    return camera


def _refuse_unsupported(fields: Any) -> None:
    has_roi = fields.roi.width > 0 and fields.roi.height > 0
    asked_for = {
        "camera '*'": fields.camera == "*",
        "answer_format": bool(fields.answer_format),
        "stamp": bool(fields.stamp.sec or fields.stamp.nanosec),
        "roi_with_frame": fields.roi_with_frame and has_roi,
        "session": bool(fields.session),
        "system_prompt": bool(fields.system_prompt),
        "preset": bool(fields.preset),
    }
    for name, used in asked_for.items():
        if used:
            raise Refused(
                Status.UNSUPPORTED, f"{name} is not supported by this version of the node: leave it out"
            )


def _crop(frame: Frame, roi: Any) -> Frame:
    if roi.width == 0 or roi.height == 0:
        return frame
    height, width = frame.image.shape[:2]
    right, bottom = roi.x_offset + roi.width, roi.y_offset + roi.height
    if right > width or bottom > height:
        raise OptionError(
            f"roi {roi.width}x{roi.height} at ({roi.x_offset}, {roi.y_offset}) leaves the {width}x{height} "
            "picture: give pixels of the full picture"
        )
    part = np.ascontiguousarray(frame.image[roi.y_offset : bottom, roi.x_offset : right])
    return replace(frame, image=part)
