# SPDX-License-Identifier: Apache-2.0
"""The graphs and the code of ONNX Runtime on GPUs, executed on the CPU; the cache is in test_cache.py."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.engine.cuda.device import ORIN, Gpu
from mobilevlm_ros.engine.onnxruntime import cuda as ort_cuda
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import DeviceLost, DeviceMemoryError, EngineError
from mobilevlm_ros.export.quantization.precision import DecoderPrecision


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def test_a_bundle_answers_as_on_the_cpu(tiny_bundle):
    vision, language = ort_cuda.load(Bundle.open(tiny_bundle), threads=1, device="cpu")
    reference = load_runtime(tiny_bundle, "onnxruntime-cpu", threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    expected = reference.vision.encode(pixels)
    assert relative(vision.encode(pixels), expected) < 1e-2
    logits = reference.language.forward(expected[:1], reference.language.new_cache())
    # The CPU's graph rounds activations to 8 bits.
    assert relative(language.forward(expected[:1], language.new_cache()), logits) < 0.05


@pytest.mark.parametrize("bits", [4, 32])
@pytest.mark.parametrize("geometry", [{}, {"num_key_value_heads": 2}, {"hidden_size": 128}], ids=str)
def test_twenty_greedy_steps_are_those_of_the_exact_decoder(
    language_model, export, export_half, embeddings, bits, geometry
):
    model = language_model(**geometry)
    precision = DecoderPrecision(bits=bits, accuracy_level=0)
    both = export(model, precision), export_half(model, precision)
    caches = [engine.new_cache() for engine in both]
    inputs = embeddings(1, 70, model.config.language.hidden_size)  # more than the least room
    logits = [engine.forward(inputs, cache, 70) for engine, cache in zip(both, caches)]
    for _ in range(20):
        assert relative(logits[1], logits[0]) < 5e-3
        ids = [int(rows[0, -1].argmax()) for rows in logits]
        assert ids[0] == ids[1]
        token = both[0].embed(np.array(ids[:1]))[None]
        logits = [engine.forward(token, cache) for engine, cache in zip(both, caches)]


def test_a_build_for_cpus_and_a_bundle_without_the_graphs_are_told(tiny_bundle):
    if ort_cuda.PROVIDER not in onnxruntime.get_available_providers():
        with pytest.raises(EngineError, match=r"is the build for CPUs; .*pip install onnxruntime-gpu"):
            load_runtime(tiny_bundle, "onnxruntime-cuda")
    bundle = Bundle.open(tiny_bundle)
    del bundle.manifest.files[ort_cuda.DECODER_HALF]
    with pytest.raises(EngineError, match=r"has no decoder\.fp16\.onnx, which GPUs need; build it again"):
        ort_cuda.load(bundle, device="cpu")


def test_what_onnx_runtime_says_becomes_an_error_that_says_what_to_do(monkeypatch):
    kernel = RuntimeError(
        "CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution"
    )
    monkeypatch.setattr(ort_cuda, "find_gpu", lambda: Gpu("Orin", ORIN))
    monkeypatch.setattr(ort_cuda.platform, "machine", lambda: "aarch64")
    told = str(ort_cuda.translated(kernel, "the decoder"))
    assert "holds no code for Jetson Orin (sm_87)" in told and "Jetson AI Lab" in told
    monkeypatch.setattr(ort_cuda.platform, "machine", lambda: "x86_64")
    assert "holds no code for Orin (sm_87)" in str(ort_cuda.translated(kernel, "the decoder"))
    full = ort_cuda.translated(RuntimeError("BFCArena: Failed to allocate memory for requested buffer"), "x")
    assert isinstance(full, DeviceMemoryError) and "smaller bundle" in str(full)
    lost = ort_cuda.translated(RuntimeError("CUDA failure 700: an illegal memory access"), "x")
    assert isinstance(lost, DeviceLost) and "start this process again" in str(lost)
