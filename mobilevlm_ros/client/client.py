# SPDX-License-Identifier: Apache-2.0
"""Asking the node from Python: `AskImageClient().ask("Is the door open?")`. Import it from
mobilevlm_ros.client.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import rclpy
from mobilevlm_msgs.srv import AskImage
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mobilevlm_ros.errors import RequestTimeout
from mobilevlm_ros.inference.arguments import text_list
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.inference.validate import check_frame
from mobilevlm_ros.ros.image_messages import image_message

TIMEOUT = 30.0
"""Seconds for a question that names no other, and for finding the node where there is no limit."""

GRACE = 5.0
"""Seconds that the client waits longer than the node may take: the node's own TIMEOUT says more than ours."""

DISCOVERY_TTL = 1.0
"""Seconds for which a response proves that the server's responses reach us. A new server (a node that was
started again) has to find us first, and drops what it sends before.
"""

FIRST_PATIENCE, LAST_PATIENCE = 0.25, 2.0
"""Seconds until a greeting is sent again: at first, and at most (it doubles)."""

RESPONSES = QoSProfile(depth=256, reliability=QoSReliabilityPolicy.RELIABLE)
"""DDS brings every client the responses to all of a service's clients, and it throws the others' away when it
looks: with the default depth of 10 a burst of theirs can push ours out before.
"""

Picture: TypeAlias = "NDArray[np.uint8] | Image | CompressedImage"
"""RGB u8[H, W, 3], or a message."""

_SLICE = 0.1  # seconds between looks at Ctrl-C while waiting


class AskImageClient:
    """Asks questions; has its own ROS context and node, so it works in any program. Not thread-safe.

    Before the first question it greets the server (an empty question, refused at once) until a response
    arrives: ROS lets a server drop a response to a client that it has not discovered yet, and a question must
    be neither lost nor put twice.

    Attributes:
        node: the client's node, for subscriptions beside the questions; served by `spin` and while asking.
        last_model: what answered last (model id and backend).

    Args:
        service: name of the service, relative or absolute.
        args: ROS arguments, e.g. ['--ros-args', '-r', 'ask_image:=/front/ask_image'].
    """

    def __init__(self, service: str = "ask_image", args: Sequence[str] | None = None) -> None:
        self._context = Context()
        rclpy.init(args=list(args or []), context=self._context)
        self.node = rclpy.create_node("mobilevlm_client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.last_model = ""
        self._client = self.node.create_client(AskImage, service, qos_profile=RESPONSES)
        self._heard = -DISCOVERY_TTL  # monotonic: the last response

    def __enter__(self) -> AskImageClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the ROS graph."""
        if self._context.ok():
            self._executor.remove_node(self.node)
            self.node.destroy_node()
            self._context.try_shutdown()

    def spin(self, seconds: float) -> None:
        """Serve the node's subscriptions for some time."""
        self._executor.spin_once(timeout_sec=seconds)

    def wait_for_node(self, timeout: float) -> bool:
        """Whether something serves the questions, waiting for it up to `timeout` seconds."""
        return bool(self._client.wait_for_service(timeout))

    def ask(
        self,
        question: str,
        *,
        camera: str = "",
        choices: Sequence[str] = (),
        image: Picture | None = None,
        timeout: float = TIMEOUT,
        **fields: Any,
    ) -> Any:
        """The response to a question (mobilevlm_msgs/srv/AskImage.Response; look at its status first).

        Args:
            question: plain language.
            camera: name of a configured camera; empty for the default one, '*' for all.
            choices: possible answers; empty for free text.
            image: picture to ask about instead of a camera's.
            timeout: seconds, for finding the node and for the answer. 0: the node's own limit holds;
                negative: none. With these the client waits for the answer as long as it takes.
            fields: any other field of the request.

        Raises:
            ImageError: the picture is no u8[H, W, 3].
            QuestionError: choices or stop is one text, not a list of texts.
            RequestTimeout: nothing serves the questions, or no response came.
        """
        request = filled(AskImage.Request(), question, camera, choices, image, timeout, fields)
        return self.call(request, patience(timeout))

    def call(self, request: Any, timeout: float) -> Any:
        """The response to a request that is already filled; see `ask`. `timeout`: seconds, or infinite."""
        name = self._client.srv_name
        meeting = timeout if math.isfinite(timeout) else TIMEOUT
        end, met_by = monotonic() + timeout, monotonic() + meeting
        if not self.wait_for_node(meeting):
            raise RequestTimeout(
                f"nothing serves {name} after {meeting:.0f} s: start mobilevlm_node, and check ROS_DOMAIN_ID"
            )
        if not self._greet(met_by):
            raise RequestTimeout(
                f"{name} is there, but no response of it arrived within {meeting:.0f} s: check its log, and "
                "that both run the same RMW_IMPLEMENTATION"
            )
        future = self._client.call_async(request)
        response = self._await([future], end)
        if response is None:
            self._client.remove_pending_request(future)
            raise RequestTimeout(f"no response from {name} within {timeout:.0f} s: check the node's log")
        self.last_model = f"{response.model_id} on {response.backend}"
        return response

    def _greet(self, end: float) -> bool:
        """Whether the server's responses reach us, trying until `end` (monotonic)."""
        greetings: list[Future] = []
        patience = FIRST_PATIENCE
        while monotonic() - self._heard >= DISCOVERY_TTL and monotonic() < end:
            greetings.append(self._client.call_async(AskImage.Request()))
            self._await(greetings, min(end, monotonic() + patience))
            patience = min(2 * patience, LAST_PATIENCE)
        for future in greetings:
            self._client.remove_pending_request(future)
        return monotonic() - self._heard < DISCOVERY_TTL

    def _await(self, futures: list[Future], end: float) -> Any:
        """The first result; None when there is none at `end` (monotonic)."""
        while (done := next((future for future in futures if future.done()), None)) is None:
            rest = end - monotonic()
            if rest <= 0:
                return None
            self._executor.spin_until_future_complete(futures[-1], timeout_sec=min(rest, _SLICE))
        self._heard = monotonic()
        return done.result()


def patience(timeout: float) -> float:
    """Seconds that a client waits for the response to a request with this `timeout`; it may be infinite."""
    return timeout + GRACE if timeout > 0 else math.inf


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
        if kinds.get(name) == "sequence<string>":
            value = list(text_list(value, name))
        setattr(request, name, value)
    if isinstance(image, Image):
        request.image = image
    elif isinstance(image, CompressedImage):
        request.compressed_image = image
    elif image is not None:
        request.image = image_message(check_frame(Frame(image)).image, Header())
    return request
