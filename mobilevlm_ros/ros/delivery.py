# SPDX-License-Identifier: Apache-2.0
"""Sends a response again that the middleware could not deliver, so that no caller waits for ever.

A client's request may arrive before the server has discovered the client's reader of responses. Fast DDS then
waits a moment (0.1 s unless its profile says otherwise) and drops the response; rclpy only warns.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from rclpy.action import ActionServer
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

RETRY_PERIOD = 0.25
"""Seconds between two tries. A try that fails holds up the executor for the middleware's own wait."""

RETRY_FOR = 10.0
"""Seconds after which nobody is taken to wait any more; discovery on a busy machine took up to 3 s."""

MOST_PENDING = 256
"""Responses that wait for another try; beyond it the oldest is given up."""

_SENDS = ("send_goal_response", "send_cancel_response", "send_result_response")
"""Of rclpy's action server: those that answer a request of a client."""


@dataclass
class _Response:
    """A response that was not delivered yet."""

    send: Callable[[], None]
    service: str
    until: float  # monotonic


class Redelivery:
    """Redelivers the responses of a node's services and actions. Everything runs on the executor's thread.

    Attributes:
        redelivered, given_up: responses that arrived after all, and those that never did.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._pending: deque[_Response] = deque()
        self._timer: Any = None
        self.redelivered = self.given_up = 0

    @property
    def pending(self) -> int:
        """Responses that wait for another try."""
        return len(self._pending)

    def cover(self, service: Any) -> None:
        """From now on this service's responses are sent until they arrive."""
        send = service.send_response
        service.send_response = lambda response, header: self._send(
            lambda: send(response, header), service.srv_name
        )

    def action_server(self, *args: Any, **options: Any) -> ActionServer:
        """An rclpy ActionServer of the node whose responses are sent until they arrive; arguments as its own,
        but for the node.
        """
        redelivery = self
        cpp: Any = rclpy_implementation
        original: Any = cpp.ActionServer

        class Handle(original):
            """The C++ part: sends the responses to goals, cancels and requests of results."""

        def sender(name: str) -> Callable[[Any, Any, Any], None]:
            once = getattr(original, name)

            def send(handle: Any, header: Any, response: Any) -> None:
                redelivery._send(lambda: once(handle, header, response), f"{args[1]}: {name}")

            return send

        for name in _SENDS:
            setattr(Handle, name, sender(name))
        # rclpy makes this part itself and hands it to C++, so only a class of its kind can take its place.
        cpp.ActionServer = Handle
        try:
            return ActionServer(self._node, *args, **options)
        finally:
            cpp.ActionServer = original

    def _send(self, send: Callable[[], None], service: str) -> None:
        if _delivered(send):
            return
        if len(self._pending) >= MOST_PENDING:
            self._give_up(self._pending.popleft())
        self._pending.append(_Response(send, service, monotonic() + RETRY_FOR))
        if self._timer is None:
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._timer = self._node.create_timer(RETRY_PERIOD, self._retry, clock=steady)

    def _retry(self) -> None:
        """Try until one fails again: each failure costs everybody time."""
        for _ in range(len(self._pending)):
            response = self._pending.popleft()
            if _delivered(response.send):
                self.redelivered += 1
                continue
            if monotonic() < response.until:
                self._pending.append(response)
            else:
                self._give_up(response)
            break
        if not self._pending:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def _give_up(self, response: _Response) -> None:
        self.given_up += 1
        self._node.get_logger().warning(
            f"{response.service}: a client never became reachable for its response ({RETRY_FOR:.0f} s): "
            "it ended, or it runs another RMW_IMPLEMENTATION or network configuration",
            throttle_duration_sec=10.0,
        )


def _delivered(send: Callable[[], None]) -> bool:
    """Whether the middleware took the response; it did too where the client has gone meanwhile.

    Of a response that ran into the middleware's timeout rclpy makes a RuntimeWarning, before Jazzy an
    RCLError.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")  # else one place warns once only
        try:
            send()
        except rclpy_implementation.RCLError as error:
            if not _is_timeout(error):
                raise
            return False
    others = [warning for warning in told if not _is_timeout(warning.message)]
    for warning in others:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return len(others) == len(told)


def _is_timeout(message: Warning | Exception | str) -> bool:
    text = str(message)
    return "failed to send" in text and ("timeout" in text or "will not receive" in text)
