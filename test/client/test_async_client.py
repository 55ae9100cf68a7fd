# SPDX-License-Identifier: Apache-2.0
"""The asyncio client against real nodes: streams, cancelling, and a crowd of questions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from mobilevlm_msgs.action import AskImage
from mobilevlm_msgs.msg import Status
from rclpy.action import ActionServer
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.task import Future

from mobilevlm_ros.client import AsyncAskImageClient
from mobilevlm_ros.errors import NodeGone, RequestTimeout

ANY = {"max_age": -1.0, "wait_for_frame": 20.0, "timeout": 60.0}


def test_the_pieces_are_the_answer(node: Any) -> None:
    async def talk() -> tuple[list[str], Any]:
        async with AsyncAskImageClient() as client:
            stream = client.stream("What is this?", camera="photo", max_tokens=12, **ANY)
            return [delta async for delta in stream], stream.result

    deltas, result = asyncio.run(talk())
    assert result.status.code == Status.OK and "".join(deltas).strip() == result.answer
    assert len(deltas) > 1


def test_choices_come_as_one_piece_and_refusals_as_a_status(node: Any) -> None:
    async def talk() -> Any:
        async with AsyncAskImageClient() as client:
            stream = client.stream("Is it?", choices=["yes", "no"], **ANY)
            deltas = [delta async for delta in stream]
            return deltas, stream.result, await client.ask("Is it?", camera="rear")

    deltas, chosen, refused = asyncio.run(talk())
    assert deltas == [chosen.answer] and chosen.finish_reason == "choice"
    assert refused.status.code == Status.UNKNOWN_CAMERA


def test_leaving_the_loop_stops_the_model(graph: Any, endless: Any) -> None:
    """Its only inference thread is free again at once: the next question need not wait for the timeout."""

    async def talk() -> Any:
        async with AsyncAskImageClient("endless/ask") as client:
            async for _ in client.stream(
                "Why?", max_tokens=4000, max_age=-1.0, wait_for_frame=20.0, timeout=600.0
            ):
                break
            return await client.ask("Is it?", choices=["yes", "no"], max_age=-1.0, timeout=60.0)

    assert asyncio.run(talk()).status.code == Status.OK


def test_cancelling_the_task_stops_the_model(graph: Any, endless: Any) -> None:
    async def talk() -> Any:
        async with AsyncAskImageClient("endless/ask") as client:
            for _ in range(20):  # on a busy machine the answer may reach the end of the context first
                answer = asyncio.create_task(
                    client.ask("Why?", max_tokens=4000, max_age=-1.0, wait_for_frame=20.0, timeout=600.0)
                )
                await asyncio.wait([answer], timeout=0.05)
                if answer.cancel():
                    break
            with pytest.raises(asyncio.CancelledError):
                await answer
            return await client.ask("Is it?", choices=["yes", "no"], max_age=-1.0, timeout=60.0)

    assert asyncio.run(talk()).status.code == Status.OK


def test_without_a_node_it_says_what_to_start() -> None:
    async def talk() -> None:
        async with AsyncAskImageClient("nobody/ask") as client:
            await client.ask("Is it?", timeout=0.01)

    with pytest.raises(RequestTimeout, match="start mobilevlm_node"):
        asyncio.run(talk())


@contextlib.contextmanager
def serving(name: str, execute: Callable[[Any], Any]) -> Iterator[Callable[[], None]]:
    """A server of the action on a thread of its own; gives what ends it."""
    context = Context()
    rclpy.init(context=context)
    server = rclpy.create_node("server", context=context)
    group = ReentrantCallbackGroup()
    actions = ActionServer(server, AskImage, name, execute, callback_group=group)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(server)

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin)
    thread.start()

    def end() -> None:
        context.try_shutdown()
        thread.join()
        actions.destroy()
        server.destroy_node()

    try:
        yield end
    finally:
        if context.ok():
            end()


@pytest.mark.parametrize("told", [[], ["A red"], ["A red ", "A red car"]])
def test_a_stream_ends_whole_whatever_became_of_the_feedback(told: list[str]) -> None:
    """The middleware orders feedback and result by nothing: the last words may come with the result alone."""

    async def execute(goal: Any) -> Any:
        for text in told if goal.request.question else []:
            goal.publish_feedback(AskImage.Feedback(stage="answering", text=text))
        goal.succeed()
        return AskImage.Result(status=Status(code=Status.OK), answer="A red car on the left.")

    async def talk() -> tuple[str, str]:
        async with AsyncAskImageClient("brief/ask") as client:
            stream = client.stream("What is it?", timeout=60.0)
            return "".join([delta async for delta in stream]), stream.text

    with serving("brief/ask", execute):
        joined, text = asyncio.run(talk())
    assert joined == text == "A red car on the left."


def test_a_node_that_ends_under_a_goal_is_noticed() -> None:
    async def execute(goal: Any) -> Any:
        if goal.request.question:
            goal.publish_feedback(AskImage.Feedback(stage="answering", text="A"))
            await Future()  # for ever
        goal.succeed()
        return AskImage.Result()

    async def talk(end: Callable[[], None]) -> None:
        async with AsyncAskImageClient("mortal/ask") as client:
            with pytest.raises(NodeGone, match="/mortal/ask ended before it answered"):
                async for _ in client.stream("What is it?", timeout=-1.0):
                    await asyncio.get_running_loop().run_in_executor(None, end)

    with serving("mortal/ask", execute) as end:
        asyncio.run(talk(end))


SHORT_LEASE = """<?xml version="1.0" encoding="UTF-8" ?>
<dds xmlns="http://www.eprosima.com"><profiles>
<participant profile_name="p" is_default_profile="true"><rtps><builtin><discovery_config>
<leaseDuration><sec>2</sec></leaseDuration><leaseAnnouncement><sec>0</sec><nanosec>500000000</nanosec>
</leaseAnnouncement></discovery_config></builtin></rtps></participant></profiles></dds>"""
"""So that the others notice within 2 s, instead of 20, that a process was killed."""


def test_a_node_that_is_killed_under_its_questions_is_noticed(
    second_node: Any, endless_bundle: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "lease.xml"
    profile.write_text(SHORT_LEASE)
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.setenv(name, str(profile))
    node = second_node("killed", bundle=endless_bundle)
    assert node.status().code == Status.OK
    picture = np.zeros((8, 8, 3), np.uint8)

    async def talk() -> None:
        async with AsyncAskImageClient("killed/ask") as client:
            with pytest.raises(NodeGone):
                async for _ in client.stream("Why?", image=picture, max_tokens=4000, timeout=-1.0):
                    node.child.process.kill()

    asyncio.run(talk())
    node.close()


CROWD = """
import asyncio, json
from mobilevlm_ros.client import AsyncAskImageClient

async def main():
    async with AsyncAskImageClient() as client:
        asked = [client.ask(f"Is it {i}?", max_age=-1.0, max_tokens=4, timeout=60.0) for i in range(13)]
        print(json.dumps([result.status.code for result in await asyncio.gather(*asked)]))

asyncio.run(main())
"""


def test_a_crowd_of_clients_all_get_an_answer_or_the_reason_why_not(ask: Any, graph: Any) -> None:
    """52 questions at once from four processes, at a queue of 16."""
    assert ask().status.code == Status.OK
    crowd = [
        subprocess.Popen([sys.executable, "-c", CROWD], stdout=subprocess.PIPE, env=os.environ, text=True)
        for _ in range(4)
    ]
    codes: Counter[int] = Counter()
    for process in crowd:
        out, _ = process.communicate(timeout=180)
        codes.update(json.loads(out))
    assert sum(codes.values()) == 52
    assert set(codes) <= {Status.OK, Status.BUSY, Status.TIMEOUT} and codes[Status.OK] > 0
    assert ask().status.code == Status.OK
