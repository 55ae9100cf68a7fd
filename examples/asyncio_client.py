# SPDX-License-Identifier: Apache-2.0
"""asyncio: several questions to a running node at once, and an answer that streams.

ros2 run mobilevlm_ros mobilevlm_node          # in another terminal, with a camera on /image
python examples/asyncio_client.py
"""

from __future__ import annotations

import asyncio
from typing import Any

from mobilevlm_msgs.msg import Status

from mobilevlm_ros.client import AsyncAskImageClient

QUESTIONS = ("What is on the left?", "What is on the right?", "Is it day or dusk?")


async def main() -> None:
    """Ask, and print what comes back; a question that failed says why."""
    async with AsyncAskImageClient() as client:
        results = await asyncio.gather(*(client.ask(question) for question in QUESTIONS))
        for question, result in zip(QUESTIONS, results):
            said = result.answer if result.status.code == Status.OK else result.status.message
            print(f"{question} {said}")

        stream = client.stream("Describe the scene.")
        async for piece in stream:  # leaving this loop would stop the model at the next token
            print(piece, end="", flush=True)
        print(f" [{result_line(stream.result)}]")


def result_line(result: Any) -> str:
    """Confidence of a result, and the stamp of its picture."""
    stamp = result.header.stamp
    return f"confidence {result.confidence:.2f}, picture of {stamp.sec}.{stamp.nanosec:09d}"


if __name__ == "__main__":
    asyncio.run(main())
