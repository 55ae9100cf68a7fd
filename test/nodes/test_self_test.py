# SPDX-License-Identifier: Apache-2.0
"""The question that a model must answer before it may answer others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.errors import EngineError
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.nodes.self_test import knows_the_scene, self_test


class Garbled:
    """A language engine that takes tokens for others: it runs, and computes the wrong thing."""

    def __init__(self, runtime: Runtime) -> None:
        self._inner = runtime.language
        self._vocabulary = runtime.bundle.manifest.vocab_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def embed(self, ids: np.ndarray) -> np.ndarray:
        return self._inner.embed((ids + 7) % self._vocabulary)


def without_source(runtime: Runtime) -> Runtime:
    """The same runtime as that of a model that does not know the scene."""
    manifest = dataclasses.replace(runtime.bundle.manifest, source={})
    return dataclasses.replace(runtime, bundle=dataclasses.replace(runtime.bundle, manifest=manifest))


@pytest.fixture(scope="module")
def runtime(nano: Path) -> Runtime:
    return load_runtime(nano, threads=1)


def test_nano_says_what_the_picture_shows(runtime: Runtime) -> None:
    assert knows_the_scene(runtime)
    verdict = self_test(Assistant(runtime))
    assert verdict.said == "A white ball on the left, a green ball ahead and a person in purple on the right."
    assert verdict.seconds > 0


def test_a_wrong_answer_of_nano_is_refused(runtime: Runtime) -> None:
    wrong = dataclasses.replace(runtime, language=Garbled(runtime))
    with pytest.raises(EngineError, match=r"self-test .* instead of 'A white ball"):
        self_test(Assistant(wrong))


def test_another_model_only_has_to_say_something(runtime: Runtime) -> None:
    other = without_source(runtime)
    assert not knows_the_scene(other)
    assert self_test(Assistant(other)).said


def test_another_model_that_says_nothing_is_refused(runtime: Runtime) -> None:
    every_token = tuple(range(runtime.bundle.manifest.vocab_size))
    manifest = dataclasses.replace(runtime.bundle.manifest, source={}, stop_ids=every_token)
    mute = dataclasses.replace(runtime, bundle=dataclasses.replace(runtime.bundle, manifest=manifest))
    with pytest.raises(EngineError, match=r"empty answer.*self_test:=false"):
        self_test(Assistant(mute))
