# SPDX-License-Identifier: Apache-2.0
"""Asks a model about a picture that needs no camera before it may answer anybody. Needs no ROS."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter

from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.engine.runtime import Runtime, shipped_bundle
from mobilevlm_ros.errors import BundleError, EngineError
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.steps import finish
from mobilevlm_ros.inference.types import Frame, Request, SamplingParams
from mobilevlm_ros.simulation.questions import describe
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

SEED = 5
"""Of the simulated scene: a ball on the left, a ball ahead, a person on the right."""

SIZE = (640, 480)
"""Pixels of the picture."""

_DESCRIBE = Request("Describe the scene.", sampling=SamplingParams(max_tokens=32))
# Enough to see that it speaks.
_GLANCE = Request("Describe the scene.", sampling=SamplingParams(max_tokens=4))
_PATH = Request("Can I drive on?", choices=("yes", "no"))
_BLOCKED = "no"


@dataclass(frozen=True)
class SelfTestResult:
    """A self-test that was passed: what was said, and how long it took in seconds."""

    said: str
    seconds: float


def self_test(assistant: Assistant) -> SelfTestResult:
    """`self_test_steps` to their end, on this thread."""
    return finish(self_test_steps(assistant))


def self_test_steps(assistant: Assistant) -> Generator[str, None, SelfTestResult]:
    """Ask for a description and, with choices, about the path; this also warms the engines up.

    Work for the scheduler: yields at token boundaries.

    The model that comes with the package knows the scene, so its answers must be the known ones, whatever
    precision it was built with; any other model must say something.

    Raises:
        EngineError: an answer is wrong, empty, or has no probability.
        MobileVLMError: whatever a question may raise.
    """
    start = perf_counter()
    observation = observe(sample_scene(SEED), 0.0, *SIZE)
    frame = Frame(observation.image)
    known = knows_the_scene(assistant.runtime)
    expected = describe(observation.seen)
    said = yield from assistant.steps(frame, _DESCRIBE if known else _GLANCE)
    path = yield from assistant.steps(frame, _PATH)
    assistant.forget()
    if not (math.isfinite(said.confidence) and math.isfinite(path.confidence)):
        raise EngineError(f"{_FAILED}its answers have no probability (NaN). {_ADVICE}")
    if not said.text.strip():
        raise EngineError(f"{_FAILED}{_DESCRIBE.question!r} got an empty answer. {_ADVICE}")
    # The beginning, because a bundle may have been told other words to stop at.
    if known and not said.text.startswith(expected):
        raise EngineError(f"{_FAILED}it says {said.text!r} instead of {expected!r}. {_ADVICE}")
    if known and path.text != _BLOCKED:
        raise EngineError(
            f"{_FAILED}it says {path.text!r} to {_PATH.question!r}, not {_BLOCKED!r}. {_ADVICE}"
        )
    return SelfTestResult(said.text, perf_counter() - start)


def knows_the_scene(runtime: Runtime) -> bool:
    """Whether a bundle was built from the checkpoint of the one that comes with the package."""
    source = runtime.bundle.manifest.source.get("sha256")
    return source is not None and source == _shipped_source()


@lru_cache(maxsize=1)
def _shipped_source() -> str | None:
    try:
        return Bundle.open(shipped_bundle()).manifest.source.get("sha256")
    except BundleError:
        return None


_FAILED = "the self-test on a built-in picture failed: "
_ADVICE = (
    "The bundle is damaged, or its backend computes wrongly here: try another backend or build the bundle "
    "again; the parameter self_test:=false skips this test"
)
