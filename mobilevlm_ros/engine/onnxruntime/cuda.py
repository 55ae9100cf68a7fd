# SPDX-License-Identifier: Apache-2.0
"""The ONNX Runtime backend on NVIDIA GPUs: 16-bit activations, the KV cache stays on the GPU."""

from __future__ import annotations

import ctypes
import platform
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mobilevlm_ros.engine.batching.per_sequence import (
    CachedSequence,
    PerSequenceLanguage,
    room_for,
)
from mobilevlm_ros.engine.bundle import Bundle, Manifest
from mobilevlm_ros.engine.cuda.device import ORIN, find_gpu
from mobilevlm_ros.engine.cuda.runtime import Cuda
from mobilevlm_ros.engine.embedding_table import read_embedding_table
from mobilevlm_ros.engine.interfaces import LanguageEngine, VisionEngine
from mobilevlm_ros.engine.onnxruntime.backend import OrtVision, session_options
from mobilevlm_ros.engine.onnxruntime.graph_check import check_decoder, check_vision
from mobilevlm_ros.engine.onnxruntime.session import open_bundle_session
from mobilevlm_ros.errors import BundleError, DeviceLost, DeviceMemoryError, EngineError

VISION_HALF = "vision.fp16.onnx"
DECODER_HALF = "decoder.fp16.onnx"
PROVIDER = "CUDAExecutionProvider"

_JETSON_WHEELS = (
    "PyPI's aarch64 wheel of onnxruntime-gpu holds no code for Jetson Orin (sm_87); install the wheel that "
    "is made for your JetPack (Jetson AI Lab), or use the tensorrt backend"
)


def load(
    bundle: Bundle, *, threads: int = 0, spin: bool = False, device: str = "cuda"
) -> tuple[VisionEngine, LanguageEngine]:
    """Engines on the GPU. Raises EngineError, BundleError.

    `device` 'cpu' runs the very same graphs on the CPU, slowly: a way to check them without a GPU.
    """
    for name in (VISION_HALF, DECODER_HALF):
        if name not in bundle.manifest.files:
            raise EngineError(
                f"bundle {bundle.path} has no {name}, which GPUs need; build it again with `mobilevlm build` "
                "(with --vision fp16 or fp32, as GPUs do not run the 8-bit encoder)"
            )
    if device == "cuda":
        _check_provider()
    memory: Memory = Cuda() if device == "cuda" else HostMemory()
    names = (VISION_HALF, DECODER_HALF)
    sessions = [_open(bundle, name, session_options(threads, spin), device) for name in names]
    check_vision(sessions[0], bundle.manifest)
    check_decoder(sessions[1], bundle.manifest)
    vision = OrtVision(sessions[0], bundle.manifest)
    language = OrtCudaLanguage(sessions[1], read_embedding_table(bundle), bundle.manifest, memory, device)
    _try(vision, language)
    return vision, language


class Memory(Protocol):
    """Copies between buffers of the device."""

    def copy_rows(
        self, to: int, to_pitch: int, source: int, pitch: int, width: int, rows: int, stream: int
    ) -> None:
        """See Cuda.copy_rows."""

    def synchronize(self, stream: int) -> None:
        """See Cuda.synchronize."""


class HostMemory:
    """Memory of the CPU."""

    def copy_rows(
        self, to: int, to_pitch: int, source: int, pitch: int, width: int, rows: int, stream: int
    ) -> None:
        """See Memory.copy_rows."""
        for row in range(rows):
            ctypes.memmove(to + row * to_pitch, source + row * pitch, width)

    def synchronize(self, stream: int) -> None:
        """Nothing is ever under way."""


class OrtSequence(CachedSequence):
    """Keys and values f16 [1, kv_heads, room, head_dim] on the device, two buffers per layer."""

    def __init__(self, capacity: int, manifest: Manifest, memory: Memory, device: str) -> None:
        super().__init__(capacity)
        self._manifest, self._memory, self._device = manifest, memory, device
        self._room = 0
        self.buffers: list[Any] = []

    def reserve(self, length: int) -> None:
        """Makes room for `length` tokens, keeping those held. Raises DeviceMemoryError."""
        if length > self._room:
            self._take(self, length)

    def copy(self, capacity: int) -> OrtSequence:
        """See Row.copy."""
        twin = OrtSequence(capacity, self._manifest, self._memory, self._device)
        twin._take(self, self.length)
        twin.length = self.length
        return twin

    def _take(self, source: OrtSequence, length: int) -> None:
        """New buffers with room for `length` tokens, which hold those of `source`."""
        manifest = self._manifest
        room = room_for(length, manifest.context_length)
        shape = (1, manifest.num_kv_heads, room, manifest.head_dim)
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        try:
            fresh = [make(shape, np.float16, self._device, 0) for _ in range(2 * manifest.num_layers)]
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise translated(error, "allocating a KV cache") from error
        token = manifest.head_dim * 2  # bytes
        for new, old in zip(fresh, source.buffers):
            self._memory.copy_rows(
                new.data_ptr(),
                room * token,
                old.data_ptr(),
                source._room * token,
                source.length * token,
                manifest.num_kv_heads,
                0,
            )
        self._memory.synchronize(0)
        self.buffers, self._room = fresh, room


class OrtCudaLanguage(PerSequenceLanguage):
    """The decoder graph over buffers on the device."""

    row_type = OrtSequence

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        table: NDArray[np.floating[Any]],
        manifest: Manifest,
        memory: Memory,
        device: str,
    ) -> None:
        super().__init__(table, manifest)
        self._session, self._memory, self._device = session, memory, device

    def _new_row(self, capacity: int) -> OrtSequence:
        return OrtSequence(capacity, self._manifest, self._memory, self._device)

    def _read(
        self, row: CachedSequence, embeddings: NDArray[np.float32], num_logits: int
    ) -> NDArray[np.float32]:
        assert isinstance(row, OrtSequence)
        total = row.length + len(embeddings)
        row.reserve(total)
        binding = self._session.io_binding()
        inputs = {
            "embeddings": half(embeddings[None]),
            "num_logits": np.array([num_logits], np.int64),
            "seqlens_k": np.array([total - 1], np.int32),
            "total_sequence_length": np.array([total], np.int32),
        }
        try:
            for name, array in inputs.items():
                binding.bind_cpu_input(name, array)
            for index, buffer in enumerate(row.buffers):
                name = f"{index // 2}.{('key', 'value')[index % 2]}"
                binding.bind_ortvalue_input(f"past.{name}", buffer)
                binding.bind_ortvalue_output(f"present.{name}", buffer)
            binding.bind_output("logits", "cpu")
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            logits = binding.get_outputs()[_index(self._session, "logits")].numpy()
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise translated(error, "the decoder") from error
        return np.asarray(logits[0], np.float32)


def half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """f32 to f16, contiguous; what does not fit becomes the greatest f16, not infinity."""
    limit = np.finfo(np.float16).max
    return np.ascontiguousarray(np.clip(values, -limit, limit).astype(np.float16))


def _index(session: onnxruntime.InferenceSession, name: str) -> int:
    return [output.name for output in session.get_outputs()].index(name)


def _check_provider() -> None:
    if PROVIDER not in onnxruntime.get_available_providers():
        raise EngineError(
            f"onnxruntime {onnxruntime.__version__} is the build for CPUs; for this GPU: "
            "pip uninstall onnxruntime && pip install onnxruntime-gpu (on Jetson the wheel that is made for "
            "your JetPack)"
        )
    if hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on: finds CUDA and cuDNN in NVIDIA's wheels
        onnxruntime.preload_dlls()


def _open(
    bundle: Bundle, name: str, options: onnxruntime.SessionOptions, device: str
) -> onnxruntime.InferenceSession:
    providers = [PROVIDER, "CPUExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    try:
        session = open_bundle_session(bundle, name, options, providers)
    except BundleError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
        raise translated(error, f"loading {bundle.path / name}") from error
    if session.get_providers()[0] != providers[0]:  # ONNX Runtime takes the CPU without a word
        raise EngineError(
            f"onnxruntime {onnxruntime.__version__} could not start CUDA; it needs the CUDA and cuDNN it was "
            "built for (pip install 'onnxruntime-gpu[cuda,cudnn]', or see the lines it printed above)"
        )
    return session


def _try(vision: OrtVision, language: OrtCudaLanguage) -> None:
    """Runs each graph once: a wheel without code for this GPU loads, and fails only here."""
    pixels = np.zeros((1, vision.image_size, vision.image_size, 3), np.uint8)
    try:
        vision.encode(pixels)
    except EngineError as error:
        raise translated(error, "the image encoder") from error
    language.forward(np.zeros((1, 1, language.hidden_size), np.float32), language.new_cache())


def translated(error: Exception, what: str) -> EngineError:
    """What ONNX Runtime raised as one of our errors, with what to do; `what` was being done."""
    text = str(error)
    lower = text.lower()
    if "no kernel image" in lower:
        gpu = find_gpu()
        if platform.machine() == "aarch64" and gpu is not None and gpu.capability == ORIN:
            return EngineError(f"{_JETSON_WHEELS} ({what}: {text})")
        return EngineError(
            f"this onnxruntime-gpu holds no code for {gpu}; install one that does ({what}: {text})"
        )
    if "out of memory" in lower or "failed to allocate memory" in lower:
        return DeviceMemoryError(
            f"the GPU has no memory left for {what}: {text}; close other programs that use it, or use a "
            "smaller bundle"
        )
    if "cuda failure" in lower and any(word in lower for word in ("illegal", "launch failure", "no device")):
        return DeviceLost(f"the GPU cannot be used any more ({what}: {text}); start this process again")
    return EngineError(f"{what} failed: {text}")
