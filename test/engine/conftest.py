# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, bundles and engines that the engine's tests share."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mobilevlm_ros.engine.build import build_bundle
from mobilevlm_ros.engine.bundle import DECODER, DECODER_TREE, Manifest
from mobilevlm_ros.engine.cudart import Cuda
from mobilevlm_ros.engine.export_decoder import DecoderPrecision, export_decoder
from mobilevlm_ros.engine.half_precision import half_decoder
from mobilevlm_ros.engine.ort import session_options
from mobilevlm_ros.engine.ort_cuda import HostMemory, OrtCudaLanguage
from mobilevlm_ros.engine.ort_language import OrtLanguage
from mobilevlm_ros.engine.random_checkpoint import CONFIGS, write_random_checkpoint
from mobilevlm_ros.engine.tensorrt import backend, names
from mobilevlm_ros.engine.tensorrt.builder import Recipe, build
from mobilevlm_ros.engine.tensorrt.engine import TrtLanguage, deserialize
from mobilevlm_ros.engine.tensorrt.export import export_decoder as export_trt_decoder
from mobilevlm_ros.engine.tensorrt.library import Library
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.model.mobilevlm import MobileVLM

PARITY = Path(__file__).parents[1] / "data" / "parity"
TOKENIZER = PARITY / "ckpt" / "tiny-ldpnet" / "tokenizer.model"
FP32 = DecoderPrecision(bits=32)
TENSORRT = Path(__file__).parent / "tensorrt"


@pytest.fixture(scope="session")
def parity() -> Path:
    """Reference checkpoints and outputs."""
    return PARITY


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a few kilobytes, 48-pixel images."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_random_checkpoint(CONFIGS["tiny"], path, TOKENIZER, dtype=torch.float32)
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 4-bit bundle of `tiny_checkpoint`; do not change it."""
    path = tmp_path_factory.mktemp("bundle") / "tiny"
    build_bundle(tiny_checkpoint, path)
    return path


@pytest.fixture(scope="session")
def parity_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes (once) the f32 bundle of a checkpoint whose reference outputs are known."""
    made: dict[str, Path] = {}

    def make(checkpoint: str) -> Path:
        if checkpoint not in made:
            made[checkpoint] = tmp_path_factory.mktemp("parity") / checkpoint
            build_bundle(PARITY / "ckpt" / checkpoint, made[checkpoint], precision=FP32, vision_store="fp32")
        return made[checkpoint]

    return make


@pytest.fixture(scope="session")
def language_model() -> Callable[..., MobileVLM]:
    """Makes a MobileVLM with random weights whose language model has the given geometry."""

    def make(**geometry: float) -> MobileVLM:
        values = {
            "vocab_size": 96,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128,
            **geometry,
        }
        language = LanguageConfig(**values)  # type: ignore[arg-type]
        torch.manual_seed(1)
        model = MobileVLM(
            MobileVLMConfig(vision=CONFIGS["tiny"].vision, language=language, projector_type="linear")
        )
        model.initialize(std=0.1)
        return model.eval()

    return make


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., OrtLanguage]:
    """Makes an ONNX Runtime engine of a model's decoder."""

    def make(model: MobileVLM, precision: DecoderPrecision = FP32, *, tree: bool = False) -> OrtLanguage:
        state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
        export_decoder(state.__getitem__, model.config.language, tmp_path / DECODER, precision)
        path = tmp_path / (DECODER_TREE if tree else DECODER)
        session = onnxruntime.InferenceSession(path, session_options(threads=1))
        table = state["model.embed_tokens.weight"]
        return OrtLanguage(session, table, Manifest.describe(model.config, "test"))

    return make


@pytest.fixture(scope="session")
def embeddings() -> Callable[..., np.ndarray]:
    """Makes random embeddings f32 [batch, tokens, hidden_size] of deviation 0.5."""

    def make(batch: int, tokens: int, hidden_size: int = 64, seed: int = 0) -> np.ndarray:
        shape = (batch, tokens, hidden_size)
        return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)

    return make


@pytest.fixture
def export_half(tmp_path: Path) -> Callable[..., OrtCudaLanguage]:
    """Makes the engine that ONNX Runtime runs on GPUs, on the CPU."""

    def make(model: MobileVLM, precision: DecoderPrecision = FP32) -> OrtCudaLanguage:
        state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
        path = tmp_path / "decoder.onnx"
        export_decoder(state.__getitem__, model.config.language, path, precision)
        path = tmp_path / "decoder.fp16.onnx"
        path.write_bytes(half_decoder(tmp_path / "decoder.onnx"))
        session = onnxruntime.InferenceSession(path, session_options(threads=1))
        table = state["model.embed_tokens.weight"]
        return OrtCudaLanguage(session, table, Manifest.describe(model.config, "test"), HostMemory(), "cpu")

    return make


@pytest.fixture(scope="session")
def compile_library() -> Callable[..., Path]:
    """Makes a shared library of one C file; skips the test where there is no compiler."""

    def make(source: Path, target: Path, *options: str) -> Path:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", target, source, *options], check=True)
        return target

    return make


@pytest.fixture(scope="session")
def unpack_wheel(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Gets a package from PyPI (once: pytest's cache keeps it) and unpacks it; skips where there is none."""

    def make(requirement: str) -> Path:
        folder = request.config.cache.mkdir("wheels") / requirement
        if not list(folder.glob("*.whl")):
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
            command += ["--quiet", "--no-input", "--disable-pip-version-check", "--dest", str(folder)]
            result = subprocess.run(
                [*command, requirement], capture_output=True, text=True, timeout=200, check=False
            )
            if result.returncode:
                why = result.stderr.strip().splitlines() or ["pip failed"]
                pytest.skip(f"{requirement} cannot be had here: {why[-1]}")
        unpacked = tmp_path_factory.mktemp("wheel")
        zipfile.ZipFile(next(folder.glob("*.whl"))).extractall(unpacked)
        return unpacked

    return make


@pytest.fixture(scope="session")
def cudart_file(compile_library: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libcudart.so without a GPU."""
    return compile_library(TENSORRT / "cudart.c", tmp_path_factory.mktemp("cudart") / "libcudart.so")


@pytest.fixture
def cudart(cudart_file: Path, tmp_path: Path) -> ctypes.CDLL:
    """A fresh copy of it: its counters start at zero."""
    library = ctypes.CDLL(str(shutil.copy(cudart_file, tmp_path / "libcudart.so")))
    library.stand_in_used.restype = ctypes.c_size_t
    library.stand_in_limit.argtypes = (ctypes.c_size_t,)
    library.stand_in_fail.argtypes = (ctypes.c_char_p, ctypes.c_int)
    return library


@pytest.fixture
def cuda(cudart: ctypes.CDLL) -> Cuda:
    """The CUDA layer over it."""
    return Cuda(cudart)


@pytest.fixture
def make_trt(cudart: ctypes.CDLL) -> Callable[[str], Any]:
    """Makes the stand-in for the module `tensorrt` of a version."""
    import stand_in
    from stand_in_runtime import Recorder

    recorder = Recorder(cudart)
    return lambda version: stand_in.make(version, recorder)


@pytest.fixture
def trt_language(make_trt: Callable[[str], Any], cuda: Cuda, tmp_path: Path) -> Callable[..., TrtLanguage]:
    """Makes the TensorRT engine of a model's decoder, over the stand-ins."""

    def make(
        model: MobileVLM, version: str = "10.3.0", trt: Any = None, int4: bool = False, **options: Any
    ) -> TrtLanguage:
        library = Library(trt or make_trt(version))
        state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
        path = tmp_path / names.DECODER
        export_trt_decoder(state.__getitem__, model.config.language, path, int4=int4)
        manifest = Manifest.describe(model.config, "test")
        profiles = backend.profiles_of(names.DECODER, manifest)
        engine = deserialize(library, build(library, Recipe(path, profiles)), tuple(profiles[0]))
        assert engine is not None
        table = state["model.embed_tokens.weight"].astype(np.float32)
        return TrtLanguage(library, engine, cuda, table, manifest, **options)

    return make
