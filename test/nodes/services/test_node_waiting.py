# SPDX-License-Identifier: Apache-2.0
"""Questions that wait for a frame: how many may, who gives way, and what becomes of them in the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import Transition
from mobilevlm_msgs.action import AskImage as AskImageAction
from mobilevlm_msgs.msg import Metrics, Status
from mobilevlm_msgs.srv import AskImage

PLACES = 4
PICTURE = np.full((16, 16, 3), 90, np.uint8)

SHORT_LEASE = """<?xml version="1.0" encoding="UTF-8" ?>
<dds xmlns="http://www.eprosima.com"><profiles>
<participant profile_name="p" is_default_profile="true"><rtps><builtin><discovery_config>
<leaseDuration><sec>2</sec></leaseDuration><leaseAnnouncement><sec>0</sec><nanosec>500000000</nanosec>
</leaseAnnouncement></discovery_config></builtin></rtps></participant></profiles></dds>"""
"""So that the node notices within 2 s, instead of 20, that this client was killed."""

VANISHES = """
import os, rclpy
from mobilevlm_msgs.action import AskImage
from rclpy.action import ActionClient
rclpy.init()
node = rclpy.create_node("vanishes")
client = ActionClient(node, AskImage, "/waiting/ask")
assert client.wait_for_server(60.0)
goal = AskImage.Goal(question="Is it?", wait_for_frame=500.0, timeout=-1.0)
sent = client.send_goal_async(goal)
rclpy.spin_until_future_complete(node, sent, timeout_sec=60.0)
assert sent.result().accepted
print("accepted", flush=True)
input()
"""


@pytest.fixture(scope="module")
def waiting(second_node: Any, any_bundle: Path) -> Iterator[Any]:
    made = second_node("waiting", bundle=any_bundle, queue_size=PLACES, metrics_period=0.1)
    made.asking = made.graph.client_of(AskImage, "/waiting/ask_image")
    assert made.status().code == Status.OK
    yield made
    made.close()


def long_wait(**fields: Any) -> AskImage.Request:
    """A question to a camera that nobody publishes."""
    return AskImage.Request(question="Is it?", wait_for_frame=500.0, timeout=-1.0, **fields)


def test_a_client_that_vanishes_holds_no_place(waiting: Any, tmp_path: Path) -> None:
    (tmp_path / "lease.xml").write_text(SHORT_LEASE)
    profile = {f"FAST{name}_DEFAULT_PROFILES_FILE": str(tmp_path / "lease.xml") for name in ("DDS", "RTPS")}
    client = subprocess.Popen(
        [sys.executable, "-c", VANISHES],
        env={**os.environ, **profile},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None and client.stdout.readline() == "accepted\n"
    client.kill()
    client.communicate()
    told: list[Metrics] = []
    node = waiting.graph.node
    subscription = node.create_subscription(Metrics, "/waiting/metrics", told.append, 10)
    waiting.graph.until(
        lambda: told and told[-1].questions_cancelled == 1, "the end of the orphan's question"
    )
    assert told[-1].queue_length == 0
    assert any(message.queue_length == 1 for message in told) or told[0].questions_cancelled == 1
    node.destroy_subscription(subscription)


def test_a_client_that_leaves_at_once_holds_no_place(waiting: Any) -> None:
    """It is gone before anybody has looked who there is."""
    before = waiting.child.log().count("its client has left")
    done = subprocess.run(
        [sys.executable, "-c", VANISHES],
        input="\n",
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
        timeout=90,
        check=True,
    )
    assert done.stdout == "accepted\n"
    ended = lambda: waiting.child.log().count("its client has left") > before  # noqa: E731
    waiting.graph.until(ended, "the end of the question")


def test_no_more_wait_than_the_queue_holds_and_sources_share_it(waiting: Any) -> None:
    graph = waiting.graph
    flood = [waiting.asking.call_async(long_wait(session="flood")) for _ in range(PLACES + 3)]
    graph.until(lambda: sum(future.done() for future in flood) == 3, "the refusal of the rest")
    refused = [future.result().status for future in flood if future.done()]
    assert {status.code for status in refused} == {Status.BUSY}
    assert all("wait for a frame already: ask again later" in status.message for status in refused)

    other = waiting.asking.call_async(long_wait(session="other"))  # takes a place of the flood's
    graph.until(lambda: sum(future.done() for future in flood) == 4, "the flood's giving way")
    gave_way = [future.result().status for future in flood if future.done()][-1]
    assert gave_way.code == Status.BUSY and not other.done()

    assert waiting.status().code == Status.OK  # a question with its picture is answered, full queue or not
    graph.until(lambda: sum(future.done() for future in flood) == 5, "another one's giving way")
    assert not other.done()

    # Waiting goals and requests end with CANCELLED, as documented, when the node rests.
    actions = graph.action("/waiting/ask")
    goal = AskImageAction.Goal(question="Is it?", wait_for_frame=500.0, timeout=-1.0, session="goal")
    sent = actions.send_goal_async(goal)
    graph.until(sent.done, "the goal's acceptance")
    result = sent.result().get_result_async()
    assert waiting.change(Transition.TRANSITION_DEACTIVATE)
    graph.until(lambda: result.done() and other.done() and all(f.done() for f in flood), "everybody's end")
    assert other.result().status.code == Status.CANCELLED
    assert result.result().result.status.code == Status.CANCELLED
    assert result.result().status == GoalStatus.STATUS_ABORTED  # its client did not withdraw it
    codes = sorted(future.result().status.code for future in flood)
    assert codes == sorted([Status.BUSY] * 5 + [Status.CANCELLED] * (PLACES - 2))
    actions.destroy()
    assert waiting.change(Transition.TRANSITION_ACTIVATE)
    assert waiting.status().code == Status.OK
