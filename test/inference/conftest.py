# SPDX-License-Identifier: Apache-2.0
"""One runtime and one picture for all tests of inference."""

from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene import Scene


@pytest.fixture(scope="session")
def runtime(any_bundle: Path) -> Runtime:
    return load_runtime(any_bundle, backend="onnxruntime", threads=1)


@pytest.fixture(scope="session")
def frame() -> Frame:
    return Frame(
        observe(Scene.sample(3), 0.0, 320, 240).image, stamp_ns=5, frame_id="optical", camera="front"
    )


@pytest.fixture(scope="session")
def other_frame() -> Frame:
    noise = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    return Frame(noise, stamp_ns=5, frame_id="optical", camera="front")
