# SPDX-License-Identifier: Apache-2.0
"""A checked request, and the pictures that it is about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mobilevlm_ros.inference.cache.sessions import Session, SessionStore
from mobilevlm_ros.inference.prompt.conversation import Turn
from mobilevlm_ros.inference.types import Frame, Request
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.cameras.image_buffer import StampedImage
from mobilevlm_ros.nodes.services.messages import AskFields
from mobilevlm_ros.ros.images.conversion import compressed_to_rgb, image_to_rgb
from mobilevlm_ros.ros.images.encodings import Encodings
from mobilevlm_ros.ros.stamps import to_nanoseconds
from mobilevlm_ros.ros.status import Refused

EVERY = "*"
"""Name that stands for all cameras."""


@dataclass(eq=False)
class AskRequest:
    """A request of the service or the action, checked, to one camera or about the picture that it carries.

    Attributes:
        session: key of the conversation; empty without one.
        said: what was said before, of a conversation that the client keeps.
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
    said: tuple[Turn, ...]
    arrival_ns: int
    stamp_ns: int
    max_age: float
    wait_for_frame: float
    timeout: float | None
    encodings: Encodings = field(default_factory=dict)
    picture: Frame | None = field(default=None, init=False)
    _kept: Sequence[StampedImage] = field(default=(), init=False)

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
        if not self.stamp_ns:
            age = self.camera.age(self.arrival_ns)
            fresh = age is not None and (self.max_age < 0 or age <= self.max_age)
            if self.fields.frames <= 1 or not fresh:
                return fresh
        try:
            kept = self._images(self.camera)
        except Refused:
            return False
        self._kept = kept if self.stamp_ns else ()
        return True

    def frames(self, session: Session | None) -> tuple[Frame, ...]:
        """The pictures it is about, oldest first; most questions have one. Takes them now: call it when its
        turn has come.

        Raises:
            Refused, ImageError: there is no usable picture, or too few.
        """
        if session is not None and session.frame is not None and self._same_picture(session.frame.camera):
            return session.frames
        if self.camera is None:
            return (self.picture or self.decode(),)
        return tuple(map(self.camera.converted, self._kept or self._images(self.camera)))

    def _images(self, camera: Camera) -> list[StampedImage]:
        """What is meant of the frames that the camera keeps now. Raises Refused."""
        if self.stamp_ns:
            end = camera.find(self.stamp_ns, self.max_age)
        else:
            end = camera.newest(self.max_age, self.arrival_ns)
        if self.fields.frames <= 1:
            return [end]
        return camera.window(end, self.fields.frames, self.fields.frame_interval)

    def _same_picture(self, camera: str) -> bool:
        """Whether a follow-up is about the frame of the question before, which that camera sent."""
        asked = self.fields
        other = asked.camera not in ("", EVERY, camera)
        return not (self.camera is None or other or self.stamp_ns or asked.new_frame or asked.reset_session)

    def decode(self) -> Frame:
        """The picture that it carries; may take long. Raises ImageError."""
        raw = has_image(self.fields)
        sent = self.fields.image if raw else self.fields.compressed_image
        rgb = (image_to_rgb if raw else compressed_to_rgb)(sent, self.encodings)
        return Frame(rgb, to_nanoseconds(sent.header.stamp), sent.header.frame_id, self.fields.camera)


def has_image(fields: AskFields) -> bool:
    """Whether a raw picture was sent; a size or encoding without data is a picture too, a malformed one."""
    image = fields.image
    return bool(len(image.data) or image.width or image.height or image.encoding)
