# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mobilevlm_ros.engine.bundle import MANIFEST
from mobilevlm_ros.engine.onnxruntime import backend as ort
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import BundleError, CheckpointError, EngineError, ImageError

ROOT = Path(__file__).parents[2]


def test_auto_says_what_it_chose_and_why(tiny_bundle, caplog):
    with caplog.at_level("INFO"):
        runtime = load_runtime(tiny_bundle, threads=1)
    assert runtime.backend_name == "onnxruntime-cpu"
    assert runtime.reason == "the best backend on a machine without an NVIDIA GPU"
    assert runtime.fallbacks == ()
    assert "tiny runs on onnxruntime-cpu" in caplog.text


def test_what_fails_is_passed_over_and_told(tiny_bundle, monkeypatch, caplog):
    from mobilevlm_ros.engine import runtime as module
    from mobilevlm_ros.engine.cuda.device import ORIN, Gpu

    monkeypatch.setattr(module, "find_gpu", lambda: Gpu("Orin", ORIN))
    broken = {**module.BACKENDS, "tensorrt": lambda *arguments: {}["libnvinfer"]}
    monkeypatch.setattr(module, "BACKENDS", broken)
    loaded = load_runtime(tiny_bundle, threads=1)
    assert (loaded.backend_name, loaded.reason) == (
        "onnxruntime-cpu",
        "the best backend that loads here, with Orin (sm_87)",
    )
    first, second = loaded.fallbacks
    assert first == "tensorrt cannot run this bundle here: KeyError: 'libnvinfer'"
    assert second.startswith("onnxruntime-cuda cannot run this bundle here: ")
    assert first in caplog.text
    assert len(load_runtime(tiny_bundle, "onnxruntime", threads=1).fallbacks) == 1


def test_the_torch_backend_runs_the_checkpoint(tiny_checkpoint, tiny_bundle):
    reference = load_runtime(tiny_checkpoint, "torch")
    served = load_runtime(tiny_bundle, "onnxruntime", threads=1)
    assert (reference.backend_name, reference.reason) == ("torch", "asked for")
    for name in ("image_size", "num_tokens", "hidden_size"):
        assert getattr(reference.vision, name) == getattr(served.vision, name)
    for name in ("hidden_size", "vocab_size", "max_length"):
        assert getattr(reference.language, name) == getattr(served.language, name)
    assert reference.bundle.manifest.stop_ids == served.bundle.manifest.stop_ids
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    expected = reference.vision.encode(pixels)
    np.testing.assert_allclose(served.vision.encode(pixels), expected, atol=2e-3 * np.abs(expected).max())
    ids = np.array([1, 7, 300])
    np.testing.assert_allclose(served.language.embed(ids), reference.language.embed(ids), atol=1e-4)


def test_unusable_arguments_are_refused(tiny_bundle):
    with pytest.raises(EngineError, match="unknown backend 'cuda'; choose one of auto, tensorrt, onnx"):
        load_runtime(tiny_bundle, "cuda")
    with pytest.raises(EngineError, match="threads is -1"):
        load_runtime(tiny_bundle, threads=-1)
    with pytest.raises(CheckpointError, match="directory of a MobileVLM checkpoint"):
        load_runtime(tiny_bundle, "torch")


def test_a_sealed_but_unreadable_graph_is_an_engine_error(tiny_bundle, tmp_path):
    from mobilevlm_ros.engine.bundle import Bundle, Manifest, seal

    broken = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    (broken / "vision.onnx").write_bytes(b"not a graph")
    manifest = Bundle.open(tiny_bundle).manifest
    values = {**vars(manifest), "files": seal(list(manifest.files), broken)}
    (broken / MANIFEST).write_text(Manifest(**values).to_json())
    with pytest.raises(EngineError, match=r"vision\.onnx"):
        load_runtime(broken)


def test_an_old_onnxruntime_is_told_what_it_lacks(tiny_bundle, monkeypatch):
    from mobilevlm_ros.engine.bundle import Bundle, Manifest

    bundle = Bundle.open(tiny_bundle)
    needy = Bundle(bundle.path, Manifest(**{**vars(bundle.manifest), "requires": {"onnxruntime": "1.22"}}))
    monkeypatch.setattr(onnxruntime, "__version__", "1.20.1")
    with pytest.raises(EngineError, match=r"needs onnxruntime >= 1\.22, this is 1\.20\.1; run `pip install"):
        ort.load(needy)
    ort.load(bundle, threads=1)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 48, 48, 3), np.float32),
        np.zeros((1, 49, 48, 3), np.uint8),
        np.zeros((48, 48, 3), np.uint8),
        np.zeros((1, 3, 48, 48), np.uint8),
        np.zeros((0, 48, 48, 3), np.uint8),
    ],
    ids=["dtype", "size", "rank", "layout", "empty"],
)
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_wrong_pixels_are_refused(tiny_bundle, tiny_checkpoint, backend, pixels):
    vision = load_runtime(tiny_checkpoint if backend == "torch" else tiny_bundle, backend, threads=1).vision
    with pytest.raises(ImageError, match="uint8"):
        vision.encode(pixels)


def test_idle_threads_sleep_unless_told_to_spin():
    entry = "session.intra_op.allow_spinning"
    assert ort.session_options().get_session_config_entry(entry) == "0"
    assert ort.session_options(spin=True).get_session_config_entry(entry) == "1"
    assert ort.session_options(3).intra_op_num_threads == 3
    assert ort.session_options().intra_op_num_threads == ort.physical_cores() >= 1


def test_serving_imports_nothing_of_the_build_side(tiny_bundle):
    script = f"""
import sys
import numpy as np
from mobilevlm_ros.engine.runtime import load_runtime
runtime = load_runtime({str(tiny_bundle)!r}, threads=1)
embeddings = runtime.vision.encode(np.zeros((1, 48, 48, 3), np.uint8))
logits = runtime.language.forward(embeddings, runtime.language.new_cache())
assert logits.shape == (1, 1, 704)
heavy = {{"torch", "onnx", "safetensors", "transformers", "PIL", "rclpy"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert result.returncode == 0, result.stderr


def test_the_default_is_the_bundle_that_comes_along(tiny_bundle, tmp_path, monkeypatch):
    from mobilevlm_ros.engine import runtime

    module = (
        tmp_path / "prefix" / "lib" / "python3" / "site-packages" / "mobilevlm_ros" / "engine" / "runtime.py"
    )
    monkeypatch.setattr(runtime, "__file__", str(module))
    with pytest.raises(BundleError, match="reinstall the package, or name a bundle"):
        runtime.shipped_bundle()
    share = tmp_path / "prefix" / "share" / "mobilevlm_ros" / "models" / "nano" / "bundle"
    shutil.copytree(tiny_bundle, share)
    assert runtime.shipped_bundle() == share
    source = module.parents[2] / "models" / "nano" / "bundle"
    shutil.copytree(tiny_bundle, source)
    assert runtime.shipped_bundle() == source
