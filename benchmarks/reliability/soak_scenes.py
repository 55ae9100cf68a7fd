# SPDX-License-Identifier: Apache-2.0
"""What the soak's cameras show, the questions about it, and their true answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mobilevlm_ros.simulation.questions import ask, fact, name
from mobilevlm_ros.simulation.render import Observation, observe
from mobilevlm_ros.simulation.scene import KINDS
from mobilevlm_ros.simulation.scene_sampler import sample_scene

WIDTH, HEIGHT = 1280, 720
_SMALL = (80, 60)  # pixels: the truth does not depend on the size of the picture


@dataclass(frozen=True)
class Reel:
    """Still scenes, one after the other: those of `seed`, `seed + 1`, ..., each for `scene_seconds`, and from
    the beginning after `scenes` of them. `start_ns` is when the first one began, in the camera's clock.
    """

    seed: int
    scenes: int
    scene_seconds: float
    start_ns: int

    def seed_at(self, stamp_ns: int) -> int:
        """The seed of the scene that an image of this stamp shows."""
        return self.seed + self.number((stamp_ns - self.start_ns) * 1e-9)

    def number(self, seconds: float) -> int:
        """Which scene is shown so many seconds after the start."""
        return int(seconds // self.scene_seconds) % self.scenes


@lru_cache(maxsize=4096)
def seen(seed: int) -> Observation:
    """A scene, small: enough for its truth."""
    return observe(sample_scene(seed), 0.0, *_SMALL)


@lru_cache(maxsize=16)
def picture(seed: int) -> np.ndarray:
    """RGB u8[720, 1280, 3] of a scene, exactly as its camera publishes it."""
    return observe(sample_scene(seed), 0.0, WIDTH, HEIGHT).image


Truth = Callable[[Observation], "set[str] | None"]


@dataclass(frozen=True)
class Question:
    """A question. `truth` gives the facts that are right about a scene; None where it has no single one."""

    text: str
    family: str
    truth: Truth
    choices: tuple[str, ...] = ()

    def right(self, answer: str, seed: int) -> bool | None:
        """Whether an answer is true of a scene; None where there is no single truth."""
        facts = self.truth(seen(seed))
        return None if facts is None else fact(self.family, answer) in facts


def _exactly(family: str, text: str) -> Truth:
    """The truth of a question that has no place for a noun, so that every draw of it asks the same."""

    def truth(observation: Observation) -> set[str] | None:
        pair = ask(observation, family, np.random.default_rng(0), phrasings=(text,))
        return None if pair is None else {pair.truth}

    return truth


def _there(kind: str) -> Truth:
    return lambda observation: {"yes" if any(s.thing.kind == kind for s in observation.seen) else "no"}


def _place(zone: str) -> Truth:
    def truth(observation: Observation) -> set[str] | None:
        there = [name(s) for s in observation.seen if s.thing.zone == zone]
        return set(there) if len(there) == 1 else None if there else {"nothing"}

    return truth


def _signal(observation: Observation) -> set[str]:
    return {s.thing.color for s in observation.seen if s.thing.kind == "traffic light"} or {"none"}


YES_NO = ("yes", "no")
CLEAR = Question("Is the path ahead clear?", "path", _exactly("path", "Is the path ahead clear?"))
COUNT = Question("How many objects are there?", "count", lambda scene: {str(len(scene.seen))})
SIGNAL = Question("What color is the traffic light?", "signal", _signal)
LIGHT = Question("Is it day or dusk?", "daylight", _exactly("daylight", "Is it day or dusk?"))
DESCRIBE = Question("Describe the scene.", "description", _exactly("description", "Describe the scene."))
EXISTENCE = tuple(Question(f"Is there a {kind}?", "existence", _there(kind)) for kind in KINDS)
PLACES = tuple(
    Question(f"What is {words}?", "identity", _place(zone))
    for zone, words in (("left", "on the left"), ("ahead", "ahead"), ("right", "on the right"))
)
FREE = (*EXISTENCE, CLEAR, COUNT, SIGNAL, LIGHT, DESCRIBE, *PLACES)

MONITORS = {
    "person": (EXISTENCE[KINDS.index("person")], YES_NO, "yes", 2.0),
    "ball": (EXISTENCE[KINDS.index("ball")], YES_NO, "yes", 1.0),
    "cone": (EXISTENCE[KINDS.index("cone")], YES_NO, "yes", 1.0),
    "car": (EXISTENCE[KINDS.index("car")], YES_NO, "yes", 1.0),
    "box": (EXISTENCE[KINDS.index("box")], YES_NO, "yes", 1.0),
    "path_blocked": (CLEAR, YES_NO, "no", 2.0),
    "red_light": (SIGNAL, ("red", "yellow", "green", "none"), "red", 1.0),
    "dusk": (LIGHT, ("day", "dusk"), "dusk", 0.5),
}
"""Name: question, choices, the choice that raises it, evaluations per second."""
