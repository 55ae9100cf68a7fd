# SPDX-License-Identifier: Apache-2.0
"""From a bundle to answers, through plans, on the stand-ins."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.engine.cuda.device import Gpu
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.engine.tensorrt import backend, names
from mobilevlm_ros.engine.tensorrt.builder import WORKSPACE_BYTES
from mobilevlm_ros.engine.tensorrt.library import Library
from mobilevlm_ros.errors import BundleError, EngineError
from mobilevlm_ros.export.builder import build_bundle
from mobilevlm_ros.export.options import BuildOptions

ORIN = Gpu("Orin", (8, 7))


@pytest.fixture(scope="module")
def sealed(tiny_checkpoint, tmp_path_factory) -> Path:
    """A bundle for every GPU engine; do not change it."""
    path = tmp_path_factory.mktemp("gpu") / "tiny"
    steps = []
    build_bundle(
        tiny_checkpoint,
        path,
        BuildOptions(backends=("cuda", "tensorrt", "tensorrt8")),
        progress=lambda done, total, what: steps.append((done, total)),
    )
    assert steps[-1][0] == steps[-1][1]
    return path


@pytest.fixture
def bundle(sealed, tmp_path) -> Bundle:
    return Bundle.open(shutil.copytree(sealed, tmp_path / "tiny"))


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("version", ["8.5.2", "8.6.1", "10.3.0", "10.16.1", "11.4.0"])
def test_every_version_answers_like_the_checkpoint(bundle, make_trt, cuda, tiny_checkpoint, version):
    trt = make_trt(version)
    vision, language = backend.load(bundle, library=Library(trt), cuda=cuda, gpu=ORIN)
    reference = load_runtime(tiny_checkpoint, "torch")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    expected = reference.vision.encode(pixels)
    image = vision.encode(pixels)
    assert relative(image, expected) < 1e-2
    logits = language.forward(expected[:1], language.new_cache())
    exact = reference.language.forward(expected[:1], reference.language.new_cache())
    assert relative(logits, exact) < (0.3 if version >= "1" and not version.startswith("8") else 1e-2)
    # What was asked of TensorRT:
    (vision_network, vision_config), (network, config) = trt.log
    assert vision_network.path.endswith(names.VISION)
    assert network.path.endswith(names.DECODER_8 if version.startswith("8") else names.DECODER)
    assert config.pools == {"workspace": WORKSPACE_BYTES}
    assert [len(c.profiles) for c in (vision_config, config)] == [1, 2]
    if version.startswith("8"):
        assert (network.flags, config.flags) == (1, ["fp16", "obey"])
        softmax, product, constant, shape = network.layers
        assert softmax.precision is trt.DataType.FLOAT and softmax.output_types == {0: trt.DataType.FLOAT}
        assert product.precision is trt.DataType.HALF
        assert constant.precision is shape.precision is None
    else:
        assert (network.flags, config.flags) == (2 if version.startswith("10") else 0, [])
        assert config.progress_monitor is not None


def test_the_4_bit_decoder_reads_the_weights_it_was_given(language_model, trt_language, embeddings):
    """Same greedy ids, and the same logits, as the definition on the dequantised weights."""
    import torch

    from mobilevlm_ros.engine.torch.backend import TorchLanguage
    from mobilevlm_ros.export.graphs.tensorrt_decoder import quantize_positive

    model = language_model(num_key_value_heads=2)
    engine = trt_language(model, int4=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "lm_head.weight" or (name.startswith("model.layers.") and "_proj" in name):
                block = 64 if parameter.shape[1] % 64 == 0 else 32
                levels, scales = quantize_positive(parameter.numpy(), block)
                restored = levels * np.repeat(scales.astype(np.float32), block, axis=1)
                parameter.copy_(torch.from_numpy(restored))
    reference = TorchLanguage(model)
    caches = engine.new_cache(), reference.new_cache()
    both = (engine, reference)
    logits = [e.forward(embeddings(1, 9), c, 9) for e, c in zip(both, caches)]
    for _ in range(20):
        assert relative(*logits) < 5e-3
        best = [int(row[0, -1].argmax()) for row in logits]
        assert best[0] == best[1]
        token = reference.embed(np.array(best[:1]))[None]
        logits = [e.forward(token, c) for e, c in zip(both, caches)]


def test_plans_are_built_once_and_again_when_they_do_not_fit(bundle, make_trt, cuda, caplog):
    caplog.set_level("INFO")
    trt = make_trt("10.3.0")

    def load(gpu: Gpu = ORIN, module=trt) -> int:
        before = len(trt.log)
        backend.load(bundle, library=Library(module), cuda=cuda, gpu=gpu)
        return len(trt.log) - before

    assert load() == 2
    assert "building a TensorRT 10.3.0 plan of vision.fp16.onnx" in caplog.text
    assert load() == 0
    paths = backend.compile_plans(bundle, library=Library(trt), gpu=ORIN)
    assert all(path.parent == bundle.path / "plans" and path.exists() for path in paths)
    assert load(Gpu("Orin Nano", (8, 7))) == 2  # another board: plans of its own
    assert load() == 0
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[: len(content) // 2])
    assert load() == 1
    assert "building it again" in caplog.text
    trt.refuse_plans = 1
    assert load() == 1  # TensorRT itself says no
    trt.refuse_plans = 4
    with pytest.raises(EngineError, match=r"could not load the plan of vision\.fp16\.onnx: the plan is not"):
        load()
    Bundle.open(bundle.path)  # still sound


def test_the_timing_cache_is_kept_and_a_foreign_one_is_not_used(bundle, make_trt, cuda):
    trt = make_trt("10.3.0")
    library = Library(trt)
    backend.compile_plans(bundle, library=library, gpu=ORIN)
    assert trt.log[1][1].timing.content == b"timing"  # the decoder's build had the encoder's
    (cache,) = (bundle.path / "plans").glob("timing*")
    cache.write_bytes(b"of another GPU")
    for plan in (bundle.path / "plans").glob("*.plan"):
        plan.unlink()
    backend.compile_plans(bundle, library=library, gpu=ORIN)
    assert trt.log[2][1].timing.content == b""


def test_a_bundle_without_the_graphs_says_how_to_build_it(tiny_bundle, make_trt, cuda):
    bundle = Bundle.open(tiny_bundle)
    for version, backends in (("10.3.0", "tensorrt`"), ("8.6.1", "tensorrt8`")):
        with pytest.raises(
            EngineError, match=rf"has no decoder.*TensorRT {version} needs.*--backends {backends}"
        ):
            backend.load(bundle, library=Library(make_trt(version)), cuda=cuda, gpu=ORIN)


def test_a_version_that_is_too_old_and_an_absent_one_are_told(make_trt):
    with pytest.raises(EngineError, match=r"TensorRT 8\.4\.1 is too old: 8\.5"):
        Library(make_trt("8.4.1"))
    from mobilevlm_ros.engine.tensorrt.library import load_library

    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(EngineError, match=r"cannot be imported .*python3-libnvinfer"):
            load_library()


def test_the_8_bit_encoder_is_not_for_tensorrt(tiny_checkpoint, tmp_path):
    with pytest.raises(BundleError, match="build with --vision fp16"):
        build_bundle(
            tiny_checkpoint, tmp_path / "b", BuildOptions(vision_store="int8", backends=("tensorrt",))
        )
    assert not (tmp_path / "b").exists()
    bundle = build_bundle(tiny_checkpoint, tmp_path / "b", BuildOptions(vision_store="int8"))
    assert not any("fp16" in name for name in bundle.manifest.files)
