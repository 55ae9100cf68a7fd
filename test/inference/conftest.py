# SPDX-License-Identifier: Apache-2.0
"""One runtime, two pictures and a reading without any cache for all tests of inference."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene


@pytest.fixture(scope="session")
def runtime(any_bundle: Path) -> Runtime:
    return load_runtime(any_bundle, backend="onnxruntime", threads=1)


@pytest.fixture(scope="session")
def frame() -> Frame:
    return Frame(
        observe(sample_scene(3), 0.0, 320, 240).image, stamp_ns=5, frame_id="optical", camera="front"
    )


@pytest.fixture(scope="session")
def other_frame() -> Frame:
    noise = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    return Frame(noise, stamp_ns=5, frame_id="optical", camera="front")


@pytest.fixture(scope="session")
def from_scratch(runtime: Runtime) -> Callable[..., NDArray[np.float32]]:
    """Logits f32[V] after a rendered prompt and its pictures u8[H, W, 3], read in one run from nothing."""

    def read(text: str, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        language, vision = runtime.language, runtime.vision
        rows, left = [], list(images)
        for token in runtime.tokenizer.encode_prompt(text):
            if token == IMAGE_TOKEN:
                pixels = prepare(left.pop(0), vision.image_size, fast=True)
                rows.append(vision.encode(pixels[None])[0])
            else:
                rows.append(language.embed(np.array([token], np.int64)))
        assert not left
        return language.forward(np.concatenate(rows)[None], language.new_cache())[0, -1]

    return read
