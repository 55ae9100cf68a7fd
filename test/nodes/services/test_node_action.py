# SPDX-License-Identifier: Apache-2.0
"""The action: streamed text, and cancelling at the next token."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from action_msgs.msg import GoalStatus
from mobilevlm_msgs.action import AskImage
from mobilevlm_msgs.msg import Status
from rclpy.action import ActionClient

LONG = {"max_tokens": 1500}


class Asked:
    """A goal on its way, with the feedback so far."""

    def __init__(self, graph: Any, client: ActionClient, **fields: Any) -> None:
        self.graph = graph
        self.feedback: list[Any] = []
        goal = AskImage.Goal(max_age=-1.0, wait_for_frame=20.0, timeout=60.0)
        for name, value in {"question": "What is on the left?", **fields}.items():
            setattr(goal, name, value)
        sent = client.send_goal_async(goal, lambda message: self.feedback.append(message.feedback))
        graph.until(sent.done, "the goal's acceptance")
        self.handle = sent.result()
        assert self.handle.accepted

    def result(self) -> Any:
        future = self.handle.get_result_async()
        self.graph.until(future.done, "the goal's result")
        return future.result()

    def cancel(self) -> None:
        future = self.handle.cancel_goal_async()
        self.graph.until(future.done, "the cancel response")
        assert len(future.result().goals_canceling) == 1


@pytest.fixture(scope="module")
def client(graph, endless) -> Any:
    made = graph.action("/endless/ask")
    yield made
    made.destroy()


def test_the_text_grows_until_it_is_the_answer(graph, client) -> None:
    asked = Asked(graph, client, max_tokens=40)
    result = asked.result()
    assert result.status == GoalStatus.STATUS_SUCCEEDED
    assert result.result.status.code == Status.OK
    growing = [message.text for message in asked.feedback if message.stage == "answering"]
    assert len(growing) >= 2
    assert all(later.startswith(earlier) for earlier, later in pairwise(growing))
    assert result.result.answer.startswith(growing[-1].strip())
    assert {message.stage for message in asked.feedback} >= {"waiting", "reading", "answering"}


def test_cancelling_stops_the_answer_and_returns_what_there_was(graph, client) -> None:
    asked = Asked(graph, client, **LONG)
    graph.until(lambda: any(message.delta for message in asked.feedback), "the first text")
    asked.cancel()
    result = asked.result()
    assert result.status == GoalStatus.STATUS_CANCELED
    assert result.result.status.code == Status.CANCELLED
    assert result.result.finish_reason == "cancelled" and result.result.answer


def test_cancelling_while_waiting_for_a_frame(graph, node) -> None:
    client = graph.action("/ask")
    asked = Asked(graph, client, camera="silent", wait_for_frame=60.0)
    asked.cancel()
    assert asked.result().status == GoalStatus.STATUS_CANCELED
    client.destroy()


def test_goals_are_handled_while_a_long_one_runs(graph, client) -> None:
    """Callbacks never wait for inference: the second goal is accepted and cancelled during the first."""
    first = Asked(graph, client, **LONG)
    graph.until(lambda: any(message.delta for message in first.feedback), "the first text")
    second = Asked(graph, client, max_tokens=4)
    second.cancel()
    assert second.result().result.status.code == Status.CANCELLED
    first.cancel()
    assert first.result().result.status.code == Status.CANCELLED
    assert Asked(graph, client, max_tokens=4).result().result.status.code == Status.OK


def test_a_refused_goal_is_aborted_with_its_status(graph, client) -> None:
    result = Asked(graph, client, question="").result()
    assert result.status == GoalStatus.STATUS_ABORTED
    assert result.result.status.code == Status.INVALID_QUESTION


def test_a_timeout_returns_the_text_so_far(graph, client) -> None:
    asked = Asked(graph, client, **LONG, timeout=0.5)
    result = asked.result()
    assert result.status == GoalStatus.STATUS_ABORTED
    assert result.result.status.code == Status.TIMEOUT
    # Feedback is a topic of its own, and may come later, or not at all.
    growing = [message.text.strip() for message in asked.feedback if message.text]
    assert growing and result.result.answer.startswith(growing[-1])
