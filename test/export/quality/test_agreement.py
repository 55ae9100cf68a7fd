# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.export.builder import build_bundle
from mobilevlm_ros.export.options import BuildOptions
from mobilevlm_ros.export.quality.agreement import measure
from mobilevlm_ros.export.quantization.precision import DecoderPrecision


@pytest.fixture(scope="module")
def samples() -> list[tuple[np.ndarray, str]]:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(2)]
    return [(picture, question) for picture in pictures for question in ("What is it?", "Is there a cone?")]


def test_an_f32_bundle_agrees_with_pytorch(tiny_checkpoint, tmp_path, samples):
    build_bundle(
        tiny_checkpoint,
        tmp_path / "b",
        BuildOptions(precision=DecoderPrecision(bits=32), vision_store="fp32"),
    )
    reference, exact = load_runtime(tiny_checkpoint, "torch"), load_runtime(tmp_path / "b", threads=1)
    done: list[int] = []
    result = measure(reference, exact, samples, max_tokens=5, progress=done.append)
    assert (result.samples, result.equal, result.fraction, result.different) == (4, 4, 1.0, ())
    assert result.worst_kl < 1e-6
    assert done == [1, 2, 3, 4]


def test_quantisation_shows_as_divergence(tiny_checkpoint, tiny_bundle, samples):
    reference, quantised = load_runtime(tiny_checkpoint, "torch"), load_runtime(tiny_bundle, threads=1)
    result = measure(reference, quantised, samples, max_tokens=5)
    assert result.equal + len(result.different) == result.samples == 4
    assert 0 < result.mean_kl <= result.worst_kl < 0.1


def test_nothing_asked_is_nothing_different(tiny_checkpoint):
    runtime = load_runtime(tiny_checkpoint, "torch")
    assert measure(runtime, runtime, []).fraction == 1.0
