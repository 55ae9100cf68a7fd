# SPDX-License-Identifier: Apache-2.0
"""An agent of a running node, over stdio."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

mcp = pytest.importorskip("mcp", reason="the official client is what this is about")


def test_an_agent_sees_through_a_node(node) -> None:
    async def run():
        arguments = ["-m", "mobilevlm_ros.cli", "mcp", "--ros"]
        server = mcp.StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
        async with mcp.Client(server, read_timeout_seconds=120) as client:
            cameras = (await client.call_tool("list_cameras")).structured_content["result"]
            assert [camera["name"] for camera in cameras] == ["", "photo", "odd", "silent"]
            answer = (
                await client.call_tool("ask_camera", {"question": "Is there a ball?"})
            ).structured_content
            assert answer["answer"].startswith("Yes")
            assert answer["frame_id"] == "camera_optical_frame"
            caption = (await client.call_tool("latest_caption")).structured_content
            assert caption["text"].startswith("A white ball")
            assert caption["age"] < 60
            image, _ = (await client.call_tool("look", {"camera": "photo"})).content
            assert image.mime_type == "image/jpeg"
            told = await client.call_tool("search_memory", {"text": "a ball"})
            assert told.is_error and "memory.enabled" in told.content[0].text
            told = await client.call_tool("ask_camera", {"question": "Hm?", "camera": "rear"})
            assert told.is_error
            assert "rear" in told.content[0].text

    asyncio.run(run())
