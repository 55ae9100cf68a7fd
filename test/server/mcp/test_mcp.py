# SPDX-License-Identifier: Apache-2.0
"""The official client, over stdio and HTTP, of the command as an agent starts it."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobilevlm_ros.memory.record import Position, Record
from mobilevlm_ros.memory.store import MemoryStore

mcp = pytest.importorskip("mcp", reason="the official client is what this is about")

COMMAND = ["-m", "mobilevlm_ros.cli", "mcp", "--threads", "1"]


def agent(work, *options: str):
    """The result of `work(client)`, a client of the command with these options."""

    async def run():
        server = mcp.StdioServerParameters(
            command=sys.executable, args=[*COMMAND, *options], env=dict(os.environ)
        )
        async with mcp.Client(server, read_timeout_seconds=120) as client:
            return await work(client)

    return asyncio.run(run())


def test_an_agent_searches_a_memory(any_bundle, tmp_path) -> None:
    with MemoryStore(tmp_path / "memory.db", writable=True) as store:
        seen = ["A red ball on the left.", "The road is empty.", "A red ball ahead."]
        place = Position("map", 1.0, 2.0)
        store.add(
            [Record(at * 10**9, "front", "caption", text, position=place) for at, text in enumerate(seen, 1)],
            None,
        )

    async def work(client):
        assert "search_memory" in {tool.name for tool in (await client.list_tools()).tools}
        question = {"text": "where did you last see a red ball?", "limit": 1}
        (found,) = (await client.call_tool("search_memory", question)).structured_content["result"]
        assert (found["text"], found["stamp"], found["camera"]) == (seen[2], "3.000000000", "front")
        assert found["score"] > 0.9 and found["position"] == {"frame": "map", "x": 1.0, "y": 2.0, "z": 0.0}
        for arguments, count in (
            ({"text": "a red ball", "end": 2.0}, 1),
            ({"text": "a red ball", "x": 50.0, "radius": 3.0}, 0),
            ({"text": "when did you last see an elephant"}, 0),
        ):
            told = await client.call_tool("search_memory", arguments)
            assert len(told.structured_content["result"]) == count
        told = await client.call_tool("search_memory", {"kind": "video"})
        assert told.is_error and "caption, monitor, answer" in told.content[0].text

    agent(work, "--memory", str(tmp_path / "memory.db"), "--bundle", str(any_bundle))


def test_an_agent_sees_a_simulated_camera(nano) -> None:
    progress: list[str] = []

    async def note(done, total, message):
        progress.append(message)

    async def work(client):
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert tools == {"list_cameras", "ask_camera", "look", "latest_caption", "monitors"}
        cameras = (await client.call_tool("list_cameras")).structured_content["result"]
        assert [camera["name"] for camera in cameras] == ["front"]

        told = await client.call_tool(
            "ask_camera", {"question": "What is in the image?"}, progress_callback=note
        )
        answer = told.structured_content
        assert answer["answer"] == "A white ball on the left and a green traffic light on the right."
        assert answer["camera"] == "front" and float(answer["stamp"]) > 1e9

        arguments = {
            "question": "Is there a green traffic light?",
            "choices": ["yes", "no"],
            "camera": "front",
        }
        answer = (await client.call_tool("ask_camera", arguments)).structured_content
        assert answer["answer"] == "yes" and answer["choice_probabilities"]["yes"] > 0.9
        told = await client.call_tool("ask_camera", {"question": "Did it move?", "frames": 2})
        assert told.is_error and "keep their newest frame only" in told.content[0].text
        told = await client.call_tool("ask_camera", {"question": "Did it move?", "frame_interval": 1.0})
        assert told.is_error and "say how many frames" in told.content[0].text

        image, about = (await client.call_tool("look", {"width": 320})).content
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(image.data), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (240, 320, 3)
        assert '"width": 640' in about.text

        for name, arguments, words in (
            ("ask_camera", {"question": ""}, "question is empty"),
            ("ask_camera", {"question": "Hm?", "camera": "rear"}, "cameras are: 'front'"),
            (
                "ask_camera",
                {"question": "Hm?", "region": {"x": 0, "y": 0, "width": 9999, "height": 9}},
                "leaves",
            ),
            ("look", {"camera": "rear"}, "cameras are: 'front'"),
            ("latest_caption", {}, "running node"),
        ):
            told = await client.call_tool(name, arguments)
            assert told.is_error and words in told.content[0].text

        frame = await client.read_resource("mobilevlm://cameras/front/frame")
        assert base64.b64decode(frame.contents[0].blob).startswith(b"\xff\xd8")
        listed = await client.read_resource("mobilevlm://cameras")
        assert "simulation:3" in listed.contents[0].text

    agent(work, "--camera", "front=simulation:3")
    assert progress[-1] == "A white ball on the left and a green traffic light on the right."


def test_a_cancelled_question_makes_room_for_the_next(endless_bundle, tmp_path) -> None:
    async def work(client):
        endless = {"question": "Describe the scene.", "max_tokens": 1024}
        begun = asyncio.Event()

        async def note(*_):
            begun.set()

        question = asyncio.create_task(client.call_tool("ask_camera", endless, progress_callback=note))
        await begun.wait()
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        told = await client.call_tool("ask_camera", {"question": "Is it?", "choices": ["yes", "no"]})
        assert told.structured_content["answer"] in ("yes", "no")

    agent(work, "--bundle", str(endless_bundle), "--camera", "front=simulation:3")


def test_over_http(nano, make_service) -> None:
    import threading

    from mobilevlm_ros.server import run
    from mobilevlm_ros.server.mcp.http import make_mcp_app
    from mobilevlm_ros.server.services.local_cameras import SimulatedCamera

    service = make_service(nano, cameras={"front": SimulatedCamera("front", 3)})
    bound = run.listen("127.0.0.1", 0)
    server = run.make_uvicorn(make_mcp_app(service))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()

    async def ask():
        async with mcp.Client(f"{run.address_of(bound)}/mcp") as client:
            return await client.call_tool("ask_camera", {"question": "Is there a person?"})

    assert asyncio.run(ask()).structured_content["answer"] == "No, there is no person."
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def test_the_package_is_named_where_it_is_missing(tmp_path: Path) -> None:
    import subprocess

    script = (
        "import sys; sys.modules['mcp'] = None; from mobilevlm_ros.cli import main; sys.exit(main(['mcp']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "pip install 'mobilevlm_ros[mcp]'" in done.stderr
