# SPDX-License-Identifier: Apache-2.0
"""Asking the node from Python: `AskImageClient().ask("Is the door open?")`. Import it from
mobilevlm_ros.client.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Any

from mobilevlm_msgs.srv import AskImage
from rclpy.task import Future

from mobilevlm_ros.client.exchange import QUEUE, TIMEOUT, Picture, Server, ServerWatch, filled, patience
from mobilevlm_ros.client.memory import MemoryClient, beside
from mobilevlm_ros.client.memory import filled as memory_request
from mobilevlm_ros.client.own_node import OwnNode
from mobilevlm_ros.errors import RequestTimeout

_SLICE = 0.1  # seconds between looks at Ctrl-C while waiting


class AskImageClient:
    """Asks questions; has its own ROS context and node, so it works in any program. Not thread-safe.

    Before the first question it makes a handshake: an empty question, refused at once, until a response
    arrives. ROS lets a server drop a response to a client that it has not discovered yet, and a question must
    be neither lost nor put twice.

    Attributes:
        node: the client's node, for subscriptions beside the questions; served by `spin` and while asking.
        last_model: what answered last (model id and backend).

    Args:
        service: name of the service, relative or absolute.
        args: ROS arguments, e.g. ['--ros-args', '-r', 'ask_image:=/front/ask_image'].
    """

    def __init__(self, service: str = "ask_image", args: Sequence[str] | None = None) -> None:
        self._own = OwnNode("mobilevlm_client", args)
        self.node = self._own.node
        self._executor = self._own.executor
        self.last_model = ""
        self._client = self.node.create_client(AskImage, service, qos_profile=QUEUE)
        self._server = Server.of_service(self.node, service)
        self._service = service
        self._memories: dict[str, MemoryClient] = {}

    def __enter__(self) -> AskImageClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def missing(self, seconds: float) -> RequestTimeout:
        """The error that says that no node was found in so many seconds."""
        return self._server.missing(seconds)

    def close(self) -> None:
        """Leave the ROS graph."""
        self._own.close()

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
        """The response to a question (mobilevlm_msgs/srv/AskImage.Response; look at its `status.ok` first).

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
            NodeGone: the node ended before it answered.
        """
        request = filled(AskImage.Request(), question, camera, choices, image, timeout, fields)
        return self.call(request, patience(timeout))

    def call(self, request: Any, timeout: float) -> Any:
        """The response to a request that is already filled; see `ask`. `timeout`: seconds, or infinite."""
        end = monotonic() + timeout
        search = timeout if math.isfinite(timeout) else TIMEOUT
        found_by = monotonic() + search
        if not self.wait_for_node(search):
            raise self._server.missing(search)
        if not self._handshake(found_by):
            raise self._server.silent(search)
        future = self._client.call_async(request)
        try:
            response = self._await([future], end, ServerWatch(self._server))
        finally:
            self._client.remove_pending_request(future)
        if response is None:
            raise self._server.late(timeout)
        self.last_model = f"{response.model_id} on {response.backend}"
        return response

    def search_memory(
        self, text: str = "", *, node: str = "mobilevlm", timeout: float = TIMEOUT, **fields: Any
    ) -> Any:
        """What the node remembers of a description or a question
        (mobilevlm_msgs/srv/SearchMemory.Response; look at its `status.ok` first).

        Args:
            text: plain words; empty: the newest.
            node: name of the node, in the namespace of the service or absolute.
            timeout: seconds, for finding the node and for the response.
            fields: any other field of the request: camera, kind, limit, ...

        Raises:
            RequestTimeout: nothing serves it (the node's memory.enabled is false, or it does not run), or no
                response came.
            NodeGone: the node ended before it answered.
        """
        return self.search_memory_of(memory_request(text, fields), node, timeout)

    def search_memory_of(self, request: Any, node: str, timeout: float) -> Any:
        """The response to a request that is already filled; see `search_memory`."""
        name = beside(self._service, node)
        if name not in self._memories:
            self._memories[name] = MemoryClient(self.node, name)
        return self._memories[name].call(request, timeout, self._executor)

    def _handshake(self, end: float) -> bool:
        """Whether the server's responses reach us, trying until `end` (monotonic)."""
        sent: list[Future] = []
        retries = self._server.retries()
        while not self._server.reaches_us and monotonic() < end:
            sent.append(self._client.call_async(AskImage.Request()))
            self._await(sent, min(end, monotonic() + next(retries)))
        for future in sent:
            self._client.remove_pending_request(future)
        return self._server.reaches_us

    def _await(self, futures: list[Future], end: float, watch: ServerWatch | None = None) -> Any:
        """The first result; None when there is none at `end` (monotonic). `watch` is checked meanwhile."""
        while (done := next((future for future in futures if future.done()), None)) is None:
            rest = end - monotonic()
            if rest <= 0:
                return None
            if watch is not None:
                watch.check()
            self._executor.spin_until_future_complete(futures[-1], timeout_sec=min(rest, _SLICE))
        self._server.heard()
        return done.result()
