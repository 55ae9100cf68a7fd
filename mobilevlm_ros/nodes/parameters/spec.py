# SPDX-License-Identifier: Apache-2.0
"""What the table of the parameters is made of, and its rows about the memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.validate_full_topic_name import validate_full_topic_name


@dataclass(frozen=True)
class Spec:
    """One parameter.

    Attributes:
        live: a change takes effect at once; otherwise only while the node is unconfigured.
        bounds: lowest and highest value.
        choices: the only values.
        check: why a value cannot be used, as a sentence that begins with the parameter's name; '' when it
            can. For what bounds and choices do not say.
    """

    name: str
    default: Any
    description: str
    live: bool = False
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str] | None = None


def _check_topic(name: str) -> str:
    try:
        if name:
            validate_full_topic_name(expand_topic_name(name, "node", "/"))
    except (InvalidTopicNameException, ValueError) as error:
        return f"memory.odometry is {name!r}, which is no topic's name: {' '.join(str(error).split())}"
    return ""


MEMORY = (
    Spec(
        "memory.enabled",
        False,
        "Remember captions and changes of monitors in a file, and serve ~/search_memory (docs/memory.md).",
    ),
    Spec(
        "memory.file",
        "",
        "SQLite file of the memory; empty = ~/.ros/mobilevlm/NODE.db ($ROS_HOME in place of ~/.ros).",
    ),
    Spec(
        "memory.max_mb",
        1000,
        "Size of the memory's file, MiB; beyond it what was kept first is forgotten.",
        bounds=(16, 1_000_000),
    ),
    Spec(
        "memory.max_age",
        604800.0,
        "Seconds after which something is forgotten; negative = never.",
        bounds=(-1.0, 1e9),
    ),
    Spec("memory.thumbnails", False, "Keep a small picture, about 4 kB, with each thing remembered."),
    Spec(
        "memory.odometry",
        "",
        "Topic that says where the robot is, kept with each thing remembered: nav_msgs/Odometry, PoseStamped "
        "or PoseWithCovarianceStamped; empty = places are not kept.",
        check=_check_topic,
    ),
    Spec("memory.answers", False, "Remember answers to questions about the cameras too.", live=True),
)
"""Of what the node remembers."""
