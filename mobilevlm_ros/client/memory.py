# SPDX-License-Identifier: Apache-2.0
"""Searching what a node remembers: the service `~/search_memory`, waited for or from asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from time import monotonic
from typing import Any

from mobilevlm_msgs.srv import SearchMemory
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.task import Future

from mobilevlm_ros.client.exchange import QUEUE, Server, ServerWatch
from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.memory.record import Match, Position, Query, Record
from mobilevlm_ros.ros.stamps import to_message, to_nanoseconds
from mobilevlm_ros.ros.status import name_of

_SLICE = 0.1  # seconds between looks while waiting


class MemoryClient:
    """Calls the service of one node. A search changes nothing there, so a request whose response does not
    come is simply sent again: ROS lets a server drop a response to a client that it has not discovered yet.

    Args:
        node: that the client belongs to.
        name: of the node that remembers, relative or absolute.
    """

    def __init__(self, node: Node, name: str) -> None:
        service = f"{name}/search_memory"
        self._node = node
        self._client = node.create_client(SearchMemory, service, qos_profile=QUEUE)
        self._server = Server.of_service(node, service)

    def call(self, request: Any, timeout: float, executor: Executor) -> Any:
        """The response, while the executor that the node is in is spun here.

        Raises:
            RequestTimeout: nothing serves it, or no response came within `timeout` seconds.
            NodeGone: the node ended before it answered.
        """
        end = monotonic() + timeout
        if not self._client.wait_for_service(timeout):
            raise self._server.missing(timeout)
        retries, watch = self._server.retries(), ServerWatch(self._server)
        sent: list[Future] = []
        try:
            while monotonic() < end:
                sent.append(self._client.call_async(request))
                again = monotonic() + next(retries)
                while (rest := min(end, again) - monotonic()) > 0:
                    executor.spin_until_future_complete(sent[-1], timeout_sec=min(rest, _SLICE))
                    for future in sent:
                        if future.done():
                            return future.result()
                    watch.check()
        finally:
            for future in sent:
                self._client.remove_pending_request(future)
        raise self._server.late(timeout)

    async def call_async(
        self, request: Any, timeout: float, post: Callable[[Callable[[], Any]], None]
    ) -> Any:
        """The response, while another thread spins the node; `post` runs something there. Raises as `call`
        does.
        """
        end = monotonic() + timeout
        while not self._client.service_is_ready():
            if monotonic() >= end:
                raise self._server.missing(timeout)
            await asyncio.sleep(_SLICE / 2)
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Any] = loop.create_future()
        sent: list[Future] = []

        def arrived(future: Future) -> None:
            if not future.cancelled():
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(_settle, answered, future.result())

        def send() -> None:
            sent.append(self._client.call_async(request))
            sent[-1].add_done_callback(arrived)

        def forget() -> None:
            for future in sent:
                self._client.remove_pending_request(future)

        retries, watch = self._server.retries(), ServerWatch(self._server)
        again = -math.inf
        try:
            while monotonic() < end:
                if monotonic() >= again:
                    post(send)
                    again = monotonic() + next(retries)
                with contextlib.suppress(asyncio.TimeoutError):
                    return await asyncio.wait_for(asyncio.shield(answered), _SLICE)
                watch.check()
        finally:
            post(forget)
        raise self._server.late(timeout)

    def close(self) -> None:
        """Remove the client from its node."""
        self._node.destroy_client(self._client)


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def beside(service: str, node: str) -> str:
    """The name of a node in the namespace of a service (or action): 'front/mobilevlm' for 'front/ask'."""
    namespace, slash, _ = service.rpartition("/")
    return node if node.startswith("/") else f"{namespace}{slash}{node}"


def filled(text: str, fields: dict[str, Any]) -> Any:
    """The request. Raises AttributeError where it has no such field."""
    request = SearchMemory.Request(text=text)
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def request_of(query: Query) -> Any:
    """The request that asks for the same."""
    return SearchMemory.Request(
        text=query.text,
        camera=query.camera,
        kind=query.kind,
        start_time=to_message(query.start_ns),
        end_time=to_message(query.end_ns),
        x=float(query.x),
        y=float(query.y),
        radius=float(query.radius),
        limit=query.limit,
        thumbnails=query.thumbnails,
    )


def matches_of(response: Any) -> list[Match]:
    """What a response holds. Raises MobileVLMError where its status is another than OK."""
    if not response.status.ok:
        raise MobileVLMError(f"{name_of(response.status.code)}: {response.status.message}")
    return [_match(message) for message in response.matches]


def _match(message: Any) -> Match:
    place = None
    if message.position_frame:
        place = Position(message.position_frame, message.x, message.y, message.z)
    record = Record(
        stamp_ns=to_nanoseconds(message.header.stamp),
        camera=message.camera,
        kind=message.kind,
        text=message.text,
        confidence=message.confidence,
        frame_id=message.header.frame_id,
        position=place,
        thumbnail=bytes(message.thumbnail.data) or None,
    )
    return Match(record, message.score)
