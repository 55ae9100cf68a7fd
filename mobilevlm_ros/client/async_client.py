# SPDX-License-Identifier: Apache-2.0
"""Asking the node from asyncio: many questions at once, and answers that stream. Import it from
mobilevlm_ros.client.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import Any

from mobilevlm_msgs.action import AskImage
from rclpy.action import ActionClient
from rclpy.task import Future

from mobilevlm_ros.client.exchange import (
    LOOK_PERIOD,
    QUEUE,
    TIMEOUT,
    Picture,
    Server,
    ServerWatch,
    filled,
    patience,
)
from mobilevlm_ros.client.memory import MemoryClient, beside
from mobilevlm_ros.client.memory import filled as memory_request
from mobilevlm_ros.client.own_node import OwnNode
from mobilevlm_ros.errors import RequestTimeout

_POLL = 0.05  # seconds between looks whether the server is there


class AsyncAskImageClient:
    """Asks through the action: whoever stops listening stops the model at the next token.

    Its ROS node lives on a thread of its own; all methods belong to one asyncio loop at a time. Use it as an
    asynchronous context manager, or call `close`.

    Args:
        action: name of the action, relative or absolute.
        args: ROS arguments, e.g. ['--ros-args', '-r', '__ns:=/front'].
    """

    def __init__(self, action: str = "ask", args: Sequence[str] | None = None) -> None:
        self._own = OwnNode("mobilevlm_async_client", args)
        self._node = self._own.node
        self._actions = ActionClient(
            self._node,
            AskImage,
            action,
            goal_service_qos_profile=QUEUE,
            result_service_qos_profile=QUEUE,
            cancel_service_qos_profile=QUEUE,
            feedback_sub_qos_profile=QUEUE,
        )
        self._server = Server.of_action(self._node, action)
        self._action = action
        self._memories: dict[str, MemoryClient] = {}
        self._own.start()

    async def __aenter__(self) -> AsyncAskImageClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def missing(self, seconds: float) -> RequestTimeout:
        """The error that says that no node was found in so many seconds."""
        return self._server.missing(seconds)

    def close(self) -> None:
        """Leave the ROS graph."""
        self._own.close(self._actions)

    async def ask(
        self,
        question: str,
        *,
        camera: str = "",
        choices: Sequence[str] = (),
        image: Picture | None = None,
        timeout: float = TIMEOUT,
        **fields: Any,
    ) -> Any:
        """The result (mobilevlm_msgs/action/AskImage.Result; look at its status first). Cancelling the task
        cancels the question. Arguments and errors as for `AskImageClient.ask`.
        """
        stream = self.stream(question, camera=camera, choices=choices, image=image, timeout=timeout, **fields)
        async for _ in stream:
            pass
        return stream.result

    def stream(
        self,
        question: str,
        *,
        camera: str = "",
        choices: Sequence[str] = (),
        image: Picture | None = None,
        timeout: float = TIMEOUT,
        **fields: Any,
    ) -> Stream:
        """The answer, piece by piece: `async for piece in client.stream("Describe the scene.")`. Leaving the
        loop cancels the question. Arguments and errors as for `AskImageClient.ask`.
        """
        goal = filled(AskImage.Goal(), question, camera, choices, image, timeout, fields)
        return Stream(self, goal, patience(timeout))

    async def search_memory(
        self, text: str = "", *, node: str = "mobilevlm", timeout: float = TIMEOUT, **fields: Any
    ) -> Any:
        """What the node remembers. Arguments, response and errors as for `AskImageClient.search_memory`."""
        return await self.search_memory_of(memory_request(text, fields), node, timeout)

    async def search_memory_of(self, request: Any, node: str, timeout: float) -> Any:
        """The response to a request that is already filled; see `search_memory`."""
        name = beside(self._action, node)
        if name not in self._memories:
            self._memories[name] = MemoryClient(self._node, name)
        return await self._memories[name].call_async(request, timeout, self._post)

    async def wait_for_node(self, timeout: float) -> bool:
        """Whether something serves the questions, waiting for it up to `timeout` seconds."""
        end = monotonic() + timeout
        while not self._actions.server_is_ready():
            if monotonic() >= end:
                return False
            await asyncio.sleep(_POLL)
        return True

    async def _handshake(self, seconds: float) -> None:
        """Wait until the server is there and its responses reach us; see AskImageClient.

        Raises RequestTimeout when that takes longer than so many seconds.
        """
        end = monotonic() + seconds
        while not self._actions.server_is_ready():
            if monotonic() >= end:
                raise self._server.missing(seconds)
            await asyncio.sleep(_POLL)
        retries = self._server.retries()
        while not self._server.reaches_us:
            if monotonic() >= end:
                raise self._server.silent(seconds)
            empty = _Goal(self, AskImage.Goal(), asyncio.get_running_loop())
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(empty.result, min(next(retries), max(0.0, end - monotonic())))

    def _post(self, work: Callable[[], Any]) -> None:
        """Run on the node's thread: rclpy's clients are not safe beside a spinning executor everywhere."""
        self._own.executor.create_task(work)


class Stream:
    """An answer as it grows; iterate over it once.

    Attributes:
        text: what there is so far; with camera '*', of the camera that answers now.
        camera: which one that is.
        result: the whole result once the iteration is over, with its status; None before.
    """

    def __init__(self, client: AsyncAskImageClient, goal: Any, timeout: float) -> None:
        self.text = ""
        self.camera = ""
        self.result: Any = None
        self._client = client
        self._goal = goal
        self._timeout = timeout
        self._shown: dict[str, str] = {}  # by camera

    async def __aiter__(self) -> AsyncIterator[str]:
        end = monotonic() + self._timeout
        await self._client._handshake(self._timeout if math.isfinite(self._timeout) else TIMEOUT)
        goal = _Goal(self._client, self._goal, asyncio.get_running_loop())
        try:
            while (heard := await self._next(goal, end)) is not None:
                for delta in self._grown(heard.camera, heard.text):
                    yield delta
        finally:
            goal.cancel()
        self.result = goal.result.result()
        # The middleware does not order feedback and result: the end of the text may be in the result only.
        for part in self.result.answers or [self.result]:
            for delta in self._grown(part.camera, part.answer):
                yield delta

    async def _next(self, goal: _Goal, end: float) -> Any:
        """The goal's next feedback; None when its result is there.

        Raises:
            RequestTimeout: there was neither at `end` (monotonic).
            NodeGone: the node ended.
        """
        while (rest := end - monotonic()) > 0:
            try:
                return await asyncio.wait_for(goal.next(), min(rest, LOOK_PERIOD))
            except asyncio.TimeoutError:
                goal.watch.check()
        raise self._client._server.late(self._timeout)

    def _grown(self, camera: str, text: str) -> list[str]:
        """What is new, without the space that answers begin with."""
        text, shown = text.lstrip(), self._shown.get(camera, "")
        if not text.startswith(shown) or len(text) <= len(shown):
            return []
        self.camera, self.text = camera, text
        self._shown[camera] = text
        return [text[len(shown) :]]


class _Goal:
    """A goal on its way. Its ROS side runs on the client's thread; `next`, `result` and `cancel` are for the
    loop's.
    """

    def __init__(self, client: AsyncAskImageClient, goal: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.result: asyncio.Future[Any] = loop.create_future()
        self.watch = ServerWatch(client._server)
        self._client = client
        self._loop = loop
        self._feedback: asyncio.Queue[Any] = asyncio.Queue()
        self._handle: Any = None
        self._cancelled = False
        client._post(lambda: self._send(goal))

    async def next(self) -> Any:
        """The next feedback; None when the result is there."""
        return await self._feedback.get()

    def cancel(self) -> None:
        """Stop it, unless the result is there."""
        if not self.result.done():
            self._client._post(self._cancel)

    def _send(self, goal: Any) -> None:
        sent: Future = self._client._actions.send_goal_async(
            goal, lambda message: self._tell(self._feedback.put_nowait, message.feedback)
        )
        sent.add_done_callback(self._on_accepted)

    def _on_accepted(self, sent: Future) -> None:
        self._handle = sent.result()  # the node accepts every goal
        if self._cancelled:
            self._handle.cancel_goal_async()
        self._handle.get_result_async().add_done_callback(self._on_result)

    def _on_result(self, got: Future) -> None:
        self._tell(self._finish, got.result().result)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._handle is not None:
            self._handle.cancel_goal_async()

    def _finish(self, result: Any) -> None:
        self._client._server.heard()
        if not self.result.done():
            self.result.set_result(result)
        self._feedback.put_nowait(None)

    def _tell(self, act: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(act, value)
