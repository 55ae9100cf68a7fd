# SPDX-License-Identifier: Apache-2.0
"""Behaviour trees over real nodes."""

from __future__ import annotations

from time import monotonic, sleep

import pytest

py_trees = pytest.importorskip("py_trees", reason="ticks the behaviours")
from py_trees.common import Status  # noqa: E402

from mobilevlm_ros.client.behaviours import AskChoice, AskCondition, Questions, WaitForMonitor  # noqa: E402
from mobilevlm_ros.client.watcher import NodeWatcher  # noqa: E402
from mobilevlm_ros.errors import OptionError  # noqa: E402


def tick(behaviour, until=(Status.SUCCESS, Status.FAILURE)) -> Status:
    """Ticks until it ends; the first tick must not wait for the answer."""
    end = monotonic() + 90
    behaviour.tick_once()
    assert behaviour.status == Status.RUNNING
    while behaviour.status not in until:
        assert monotonic() < end, behaviour.feedback_message
        sleep(0.01)
        behaviour.tick_once()
    return behaviour.status


@pytest.fixture(scope="module")
def questions(node):
    made = Questions()
    yield made
    made.close()


FIELDS = {"max_age": -1.0, "wait_for_frame": 20.0, "timeout": 60.0}


def test_conditions(questions) -> None:
    def condition(question, **options):
        behaviour = AskCondition("look", questions, question, **options, **FIELDS)
        return tick(behaviour), behaviour.feedback_message

    status, told = condition("Is there a green traffic light?")
    assert status == Status.SUCCESS and told.startswith("yes (")
    assert condition("Is there a person?")[0] == Status.FAILURE
    assert condition("Is there a person?", expected="no")[0] == Status.SUCCESS
    assert condition("Is there a green traffic light?", threshold=1.1)[0] == Status.FAILURE
    status, told = condition("Hm?", camera="rear")
    assert status == Status.FAILURE and "rear" in told
    with pytest.raises(OptionError):
        AskCondition("look", questions, "Hm?", expected="maybe")


def test_a_choice_goes_to_the_blackboard(questions) -> None:
    behaviour = AskChoice(
        "light", questions, "What color is the traffic light?", ["red", "green"], "light", **FIELDS
    )
    reader = py_trees.blackboard.Client(name="reader")
    for key in ("light", "light_confidence"):
        reader.register_key(key=key, access=py_trees.common.Access.READ)
    assert tick(behaviour) == Status.SUCCESS
    assert reader.light == "green"
    assert reader.light_confidence > 0.9
    assert tick(AskChoice("light", questions, "Hm?", ["a", "b"], "other", 1.1, **FIELDS)) == Status.FAILURE
    assert not py_trees.blackboard.Blackboard.exists("other")


def test_who_is_interrupted_withdraws_his_question(questions, endless, graph, node) -> None:
    slow = Questions("/endless/ask")
    behaviour = AskChoice("slow", slow, "Describe.", [], "text", max_tokens=4096, **FIELDS)
    behaviour.tick_once()
    behaviour.stop(Status.INVALID)
    quick = AskCondition("quick", slow, "Is it?", threshold=0.0, **FIELDS)
    assert tick(quick) == Status.SUCCESS
    slow.close()


def test_waits_for_a_monitor(graph, node, any_bundle, tmp_path) -> None:
    rules = '{name: light, question: "Is there a green traffic light?", rate: 5.0, hold_time: 0.1}'
    (tmp_path / "monitors.yaml").write_text(f"monitors:\n  - {rules}\n")
    parameters = {"bundle": any_bundle, "threads": 1, "monitors_file": tmp_path / "monitors.yaml"}
    images = [f"{name}:=/{name}" for name in ("image", "image/compressed")]
    child = graph.start("mobilevlm_node", parameters, "__ns:=/bt", *images)
    with NodeWatcher("/bt/mobilevlm") as watcher:
        assert tick(WaitForMonitor("wait", watcher, "light")) == Status.SUCCESS
        other = WaitForMonitor("wait", watcher, "other")
        other.tick_once()
        assert other.status == Status.RUNNING
        other.stop(Status.INVALID)
    child.stop()
    graph.children.remove(child)
