# SPDX-License-Identifier: Apache-2.0
"""A model of the front door, a picture, and the same model without the front door."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mobilevlm_ros import MobileVLM
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene


@pytest.fixture(scope="module")
def vlm(any_bundle: Path) -> Generator[MobileVLM, None, None]:
    with MobileVLM(any_bundle, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def rgb() -> NDArray[np.uint8]:
    return observe(sample_scene(3), 0.0, 320, 240).image


@pytest.fixture(scope="module")
def assistant(any_bundle: Path) -> Assistant:
    """The same model, asked without the front door."""
    return Assistant(load_runtime(any_bundle, threads=1))
