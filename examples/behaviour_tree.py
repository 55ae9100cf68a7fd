# SPDX-License-Identifier: Apache-2.0
"""A behaviour tree that drives on only while nobody is in the way and the light is not red (py_trees).

pip install '.[bt]'
python examples/behaviour_tree.py [CAMERA]          # with a node running; it ticks until the tree has decided
"""

from __future__ import annotations

import sys
from time import sleep

import py_trees
from py_trees.common import Status

from mobilevlm_ros.client.behaviours import AskChoice, AskCondition, Questions

PERIOD = 0.05
"""Seconds between ticks. No tick waits for an answer."""


def light_is_not_red() -> py_trees.behaviour.Behaviour:
    """Whether what `AskChoice` put on the blackboard is another colour."""
    return py_trees.behaviours.CheckBlackboardVariableValue(
        "not red", py_trees.common.ComparisonExpression("light", "red", lambda seen, red: seen != red)
    )


def drive_on(questions: Questions, camera: str = "") -> py_trees.behaviour.Behaviour:
    """SUCCESS: drive on. FAILURE: stop; the tip of the tree says why."""
    tree = py_trees.composites.Sequence("drive on", memory=True)
    look = {"camera": camera, "wait_for_frame": 5.0}
    tree.add_children(
        [
            AskCondition(
                "nobody ahead", questions, "Is there a person?", expected="no", threshold=0.8, **look
            ),
            AskChoice(
                "light",
                questions,
                "What color is the traffic light?",
                ["red", "green", "there is none"],
                key="light",
                **look,
            ),
            light_is_not_red(),
        ]
    )
    return tree


def main() -> int:
    """Tick until the tree has decided; 0 when the robot may drive on."""
    questions = Questions()
    tree = drive_on(questions, *sys.argv[1:2])
    try:
        tree.tick_once()
        while tree.status == Status.RUNNING:
            sleep(PERIOD)
            tree.tick_once()
        print(py_trees.display.unicode_tree(tree, show_status=True))
        for leaf in tree.children:
            print(f"{leaf.name}: {leaf.status.name.lower()} {leaf.feedback_message}".rstrip())
        print("drive on" if tree.status == Status.SUCCESS else "stop")
        return 0 if tree.status == Status.SUCCESS else 1
    except KeyboardInterrupt:
        return 130
    finally:
        tree.stop(Status.INVALID)
        questions.close()


if __name__ == "__main__":
    sys.exit(main())
