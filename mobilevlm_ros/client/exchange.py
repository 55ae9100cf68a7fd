# SPDX-License-Identifier: Apache-2.0
"""What both clients share: how a request is filled, how long to wait, and when to give up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

import mobilevlm_ros.ros.status  # noqa: F401  gives every response its `status.ok`
from mobilevlm_ros.errors import NodeGone, RequestTimeout
from mobilevlm_ros.inference.arguments import text_list
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.inference.validate import check_frame
from mobilevlm_ros.ros.images.messages import image_message

TIMEOUT = 30.0
"""Seconds for a question that names no other, and for finding the node where there is no limit."""

GRACE = 5.0
"""Seconds that the client waits longer than the node may take: the node's own TIMEOUT says more than ours."""

DISCOVERY_TTL = 1.0
"""Seconds for which a response proves that the server's responses reach us. A new server (a node that was
started again) has to find us first, and drops what it sends before.
"""

FIRST_RETRY, LAST_RETRY = 0.25, 2.0
"""Seconds until a handshake is sent again: at first, and at most (it doubles)."""

LOOK_PERIOD = 0.5
"""Seconds between looks whether the server that was asked is still in the graph."""

QUEUE = QoSProfile(depth=256, reliability=QoSReliabilityPolicy.RELIABLE)
"""DDS brings every client the responses to all of a service's clients, and it throws the others' away when it
looks: with the default depth of 10 a burst of theirs can push ours out before.
"""

Picture: TypeAlias = "NDArray[np.uint8] | Image | CompressedImage"
"""RGB u8[H, W, 3], or a message."""


def filled(
    request: Any,
    question: str,
    camera: str,
    choices: Sequence[str],
    image: Picture | None,
    timeout: float,
    fields: dict[str, Any],
) -> Any:
    """The request (or goal) itself with its fields set; see `AskImageClient.ask`.

    Raises:
        AttributeError: a request has no such field.
        ImageError: the picture is no u8[H, W, 3].
        QuestionError: choices or stop is one text, not a list of texts.
    """
    values = {
        "question": question,
        "camera": camera,
        "choices": choices,
        "timeout": float(timeout),
        **fields,
    }
    kinds = request.get_fields_and_field_types()
    for name, value in values.items():
        texts = kinds.get(name) == "sequence<string>"
        setattr(request, name, list(text_list(value, name)) if texts else value)
    if isinstance(image, Image):
        request.image = image
    elif isinstance(image, CompressedImage):
        request.compressed_image = image
    elif image is not None:
        request.image = image_message(check_frame(Frame(image)).image, Header())
    return request


def patience(timeout: float) -> float:
    """Seconds that a client waits for the response to a request with this `timeout`; it may be infinite."""
    return timeout + GRACE if timeout > 0 else math.inf


class Server:
    """The server of the questions, as a client sees it.

    Args:
        name: of the service or action, resolved; for messages.
        endpoints: the ids of those in the graph that can answer now; empty where the middleware does not
            tell.
    """

    def __init__(self, name: str, endpoints: Callable[[], frozenset[bytes]]) -> None:
        self.name = name
        self.endpoints = endpoints
        self._heard = -math.inf  # monotonic: the last response

    @classmethod
    def of_service(cls, node: Node, service: str) -> Server:
        """The server of a service, which is known by the topic of its responses (in DDS: rr/<name>Reply)."""
        name = node.resolve_service_name(service)
        return cls(name, lambda: _publishers(node, f"rr{name}Reply", no_mangle=True))

    @classmethod
    def of_action(cls, node: Node, action: str) -> Server:
        """The server of an action, which is known by its topic `status`."""
        name = node.resolve_topic_name(action)
        return cls(name, lambda: _publishers(node, f"{name}/_action/status"))

    def heard(self) -> None:
        """A response arrived."""
        self._heard = monotonic()

    @property
    def reaches_us(self) -> bool:
        """Whether its responses are known to reach this client."""
        return monotonic() - self._heard < DISCOVERY_TTL

    @staticmethod
    def retries() -> Iterator[float]:
        """Seconds until a handshake is sent again, for ever."""
        seconds = FIRST_RETRY
        while True:
            yield seconds
            seconds = min(2 * seconds, LAST_RETRY)

    def missing(self, seconds: float) -> RequestTimeout:
        """Nothing of that name was found."""
        return RequestTimeout(
            f"nothing serves {self.name} after {seconds:.0f} s: start mobilevlm_node, and check ROS_DOMAIN_ID"
        )

    def silent(self, seconds: float) -> RequestTimeout:
        """It is there, but no handshake succeeded."""
        return RequestTimeout(
            f"{self.name} is there, but no response of it arrived within {seconds:.0f} s: check its log, and "
            "that both run the same RMW_IMPLEMENTATION"
        )

    def late(self, seconds: float) -> RequestTimeout:
        """It was asked, and did not answer in time."""
        return RequestTimeout(f"no response from {self.name} within {seconds:.0f} s: check the node's log")


class ServerWatch:
    """Notices that the server leaves before it has answered. Make one when a request is sent."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._asked = server.endpoints()  # who could answer
        self._looked = monotonic()
        self._missing_since = math.inf

    def check(self) -> None:
        """Call it now and then while waiting for the response.

        Raises:
            NodeGone: none of those that could answer is in the graph any more. The middleware says so at
                once where a node ends, and after its lease (20 s with Fast DDS) where it was killed.
        """
        now = monotonic()
        if not self._asked or now - self._looked < LOOK_PERIOD:
            return
        self._looked = now
        if self._asked & self._server.endpoints():
            self._missing_since = math.inf
            return
        self._missing_since = min(self._missing_since, now)
        if now - self._missing_since >= LOOK_PERIOD:  # what it sent just before it left has arrived by now
            raise NodeGone(
                f"the node that serves {self._server.name} ended before it answered: ask again when it is "
                "back; its log says why it ended"
            )


def _publishers(node: Node, topic: str, no_mangle: bool = False) -> frozenset[bytes]:
    found = node.get_publishers_info_by_topic(topic, no_mangle=no_mangle)
    return frozenset(bytes(info.endpoint_gid) for info in found)
