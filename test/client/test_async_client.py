# SPDX-License-Identifier: Apache-2.0
"""The asyncio client against real nodes: streams, cancelling, and a crowd of questions."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from mobilevlm_msgs.msg import Status

from mobilevlm_ros.client import AsyncAskImageClient
from mobilevlm_ros.errors import RequestTimeout

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
            await client._meet(0.0)

    with pytest.raises(RequestTimeout, match="start mobilevlm_node"):
        asyncio.run(talk())


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
