# SPDX-License-Identifier: Apache-2.0
"""From a bundle to engines on TensorRT: finds the plans, or has them built."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilevlm_ros.engine.batching.per_sequence import room_for
from mobilevlm_ros.engine.bundle import Bundle, Manifest
from mobilevlm_ros.engine.cuda.device import Gpu, find_gpu
from mobilevlm_ros.engine.cuda.runtime import Cuda
from mobilevlm_ros.engine.embedding_table import read_embedding_table
from mobilevlm_ros.engine.interfaces import LanguageEngine, VisionEngine
from mobilevlm_ros.engine.tensorrt import api, names
from mobilevlm_ros.engine.tensorrt.builder import Range, Recipe, build
from mobilevlm_ros.engine.tensorrt.engine import TrtLanguage, TrtVision, deserialize
from mobilevlm_ros.engine.tensorrt.library import Library, load_library
from mobilevlm_ros.engine.tensorrt.plans import TIMING, Key, PlanCache
from mobilevlm_ros.errors import EngineError

logger = logging.getLogger(__name__)

_USUAL_PROMPT = 160  # tokens: an image's 144 and a short question
_USUAL_ROOM = 512


def load(
    bundle: Bundle, *, library: Library | None = None, cuda: Cuda | None = None, gpu: Gpu | None = None
) -> tuple[VisionEngine, LanguageEngine]:
    """Engines on the GPU; builds plans that are missing, which takes minutes.

    `library`, `cuda` and `gpu` stand in for what the machine has. Raises EngineError, BundleError.
    """
    library = library or load_library()
    gpu = gpu or _gpu()
    files = graphs(bundle, library)
    cuda = cuda or Cuda()
    vision, decoder = (engine(bundle, name, library, gpu) for name in files)
    manifest = bundle.manifest
    return (
        TrtVision(library, vision, cuda, manifest),
        TrtLanguage(library, decoder, cuda, read_embedding_table(bundle), manifest),
    )


def compile_plans(bundle: Bundle, *, library: Library | None = None, gpu: Gpu | None = None) -> list[Path]:
    """Builds the plans that are missing, and returns where all are. Raises EngineError, BundleError."""
    library, gpu = library or load_library(), gpu or _gpu()
    paths = []
    for name in graphs(bundle, library):
        engine(bundle, name, library, gpu)
        paths.append(PlanCache.beside(bundle.path).path(name, _key(bundle, name, library, gpu)))
    return paths


def graphs(bundle: Bundle, library: Library) -> tuple[str, str]:
    """The graphs of encoder and decoder that this TensorRT reads. Raises EngineError if one is missing."""
    decoder, backend = (names.DECODER, "tensorrt") if library.typed else (names.DECODER_8, "tensorrt8")
    for name in (names.VISION, decoder):
        if name not in bundle.manifest.files:
            raise EngineError(
                f"bundle {bundle.path} has no {name}, which TensorRT {library.version_text} needs; build it "
                f"again with `mobilevlm build CHECKPOINT -o BUNDLE --backends {backend}`"
            )
    return names.VISION, decoder


def engine(bundle: Bundle, name: str, library: Library, gpu: Gpu) -> api.ICudaEngine:
    """The engine of one graph, from its plan, which is built if none fits. Raises EngineError."""
    cache = PlanCache.beside(bundle.path)
    profiles = profiles_of(name, bundle.manifest)
    recipe = Recipe(bundle.file(name), profiles)
    key = _key(bundle, name, library, gpu)
    timing = cache.folder / TIMING.format(version=key.tensorrt, capability=key.capability)

    def make() -> bytes:
        return build(library, recipe, timing)

    loaded = deserialize(library, cache.get(name, key, make), tuple(profiles[0]))
    if loaded is None:
        logger.warning("TensorRT refuses the plan of %s: building it again", name)
        cache.discard(name, key)
        loaded = deserialize(library, cache.get(name, key, make), tuple(profiles[0]))
    if loaded is None:
        raise library.fail(f"load the plan of {name}", "Remove the bundle's folder `plans` and start again")
    return loaded


def profiles_of(name: str, manifest: Manifest) -> tuple[Mapping[str, Range], ...]:
    """Shapes that a graph's plan must serve: the decoder's are for prompts and for single tokens."""
    if name == names.VISION:
        image = (1, manifest.image_size, manifest.image_size, 3)
        return ({names.PIXELS: (image, image, image)},)
    context, heads, size = manifest.context_length, manifest.num_kv_heads, manifest.head_dim
    rooms = [min(tokens, context) for tokens in (room_for(1, context), _USUAL_ROOM, context)]
    most = min(names.MAX_TOKENS, context)
    prompt = (1, min(_USUAL_PROMPT, most), most)
    return (
        _decoder_profile(manifest, prompt, (1, 1, names.MAX_LOGITS), rooms, heads, size),
        _decoder_profile(manifest, (1, 1, 1), (1, 1, 1), rooms, heads, size),
    )


def _decoder_profile(
    manifest: Manifest,
    tokens: Sequence[int],
    logits: Sequence[int],
    rooms: Sequence[int],
    heads: int,
    size: int,
) -> dict[str, Range]:
    def ranges(lengths: Sequence[int], *more: int) -> Any:
        return tuple((length, *more) for length in lengths)

    profile: dict[str, Range] = {
        names.EMBEDDINGS: ranges(tokens, manifest.hidden_size),
        names.POSITIONS: ranges(tokens),
        names.PAST_POSITIONS: ranges(rooms),
        names.LOGIT_ROWS: ranges(logits),
    }
    for layer in range(manifest.num_layers):
        for kind in ("key", "value"):
            room: Any = tuple((heads, length, size) for length in rooms)
            profile[names.past(layer, kind)] = room
    return profile


def _key(bundle: Bundle, name: str, library: Library, gpu: Gpu) -> Key:
    precision = "typed" if library.typed else "fp16 by layer"
    profiles = profiles_of(name, bundle.manifest)
    return Key.of(_sha256(bundle, name), library.version_text, gpu, precision, profiles)


def _sha256(bundle: Bundle, name: str) -> str:
    """Of a graph and its weights, as the manifest has them; `vision.fp16.onnx` shares the CPU's weights."""
    files = bundle.manifest.files
    weights = "vision.onnx.data" if name == names.VISION else f"{name}.data"
    return f"{files[name]['sha256']}+{files[weights]['sha256']}"


def _gpu() -> Gpu:
    gpu = find_gpu()
    if gpu is None:
        raise EngineError(
            "no NVIDIA GPU was found (nvidia-smi, on Jetson `sudo tegrastats`); use backend onnxruntime-cpu"
        )
    return gpu
