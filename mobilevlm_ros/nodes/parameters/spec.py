# SPDX-License-Identifier: Apache-2.0
"""What the table of the parameters is made of, and its rows about the memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


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
    Spec("memory.answers", False, "Remember answers to questions about the cameras too.", live=True),
)
"""Of what the node remembers."""
