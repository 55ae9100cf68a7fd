# SPDX-License-Identifier: Apache-2.0
"""The ONNX Runtime backend (CPU)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mobilevlm_ros.engine.bundle import (
    DECODER,
    DECODER_TREE,
    PREFILL,
    PREFILL_TREE,
    VISION,
    Bundle,
    Manifest,
)
from mobilevlm_ros.engine.checks import check_finite, check_pixels
from mobilevlm_ros.engine.embedding_table import read_embedding_table
from mobilevlm_ros.engine.interfaces import LanguageEngine, VisionEngine
from mobilevlm_ros.engine.onnxruntime.graph_check import check_decoder, check_vision
from mobilevlm_ros.engine.onnxruntime.language import OrtLanguage
from mobilevlm_ros.engine.onnxruntime.session import open_bundle_session
from mobilevlm_ros.errors import EngineError, MobileVLMError

_CPU = ["CPUExecutionProvider"]

_LEAST_FOR_TREES = (1, 22)
"""The first whose GroupQueryAttention takes a mask and positions on the CPU."""


def load(bundle: Bundle, *, threads: int = 0, spin: bool = False) -> tuple[VisionEngine, LanguageEngine]:
    """Engines on the CPU. Raises EngineError, BundleError."""
    language = load_language(bundle, threads=threads, spin=spin)
    vision = _open(bundle, VISION, session_options(threads, spin))
    check_vision(vision, bundle.manifest)
    return OrtVision(vision, bundle.manifest), language


def load_language(bundle: Bundle, *, threads: int = 0, spin: bool = False) -> OrtLanguage:
    """The decoder alone. Raises EngineError, BundleError."""
    _check_version(bundle.manifest)
    files = bundle.manifest.files
    trees = DECODER_TREE in files and _version(onnxruntime.__version__) >= _LEAST_FOR_TREES
    decoder = _open(bundle, DECODER_TREE if trees else DECODER, session_options(threads, spin))
    check_decoder(decoder, bundle.manifest)
    prefill = None
    if PREFILL in files:
        prefill = _open(bundle, PREFILL_TREE if trees else PREFILL, session_options(threads, spin))
    return OrtLanguage(decoder, read_embedding_table(bundle), bundle.manifest, prefill)


def session_options(threads: int = 0, spin: bool = False) -> onnxruntime.SessionOptions:
    """Options of every session of ours; `threads` 0 is one per physical core this process may use."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or physical_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    options.log_severity_level = 3  # errors; they come as exceptions too
    return options


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads not counted."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    cores = set()
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(topology.read_text(encoding="ascii"))
        except OSError:
            cores.add(str(cpu))
    return len(cores)


class OrtVision:
    """Encoder and projector as one graph."""

    def __init__(self, session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
        self._session = session
        self.image_size = manifest.image_size
        self.num_tokens = manifest.image_tokens
        self.hidden_size = manifest.hidden_size

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See VisionEngine.encode."""
        check_pixels(pixels, self.image_size)
        try:
            outputs = self._session.run(None, {"pixels": np.ascontiguousarray(pixels)})
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise EngineError(f"the image encoder failed: {error}") from error
        embeddings: NDArray[np.float32] = outputs[0]
        check_finite(embeddings, "the image encoder's output")
        return embeddings


def open_session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session of a graph on the CPU, of which ONNX Runtime maps the weights: for a file that we have just
    written. Raises EngineError."""
    with _translated(path):
        return onnxruntime.InferenceSession(path, options, providers=_CPU)


def _open(bundle: Bundle, name: str, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    with _translated(bundle.path / name):
        return open_bundle_session(bundle, name, options, _CPU)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except MobileVLMError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
        raise EngineError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}") from error


def _check_version(manifest: Manifest) -> None:
    needed = manifest.requires.get("onnxruntime", "0")
    if _version(onnxruntime.__version__) < _version(needed):
        raise EngineError(
            f"{manifest.name} needs onnxruntime >= {needed}, this is {onnxruntime.__version__}; "
            f'run `pip install "onnxruntime>={needed}"`, or build the bundle with 4 bits throughout'
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal() and len(part) < 6)
