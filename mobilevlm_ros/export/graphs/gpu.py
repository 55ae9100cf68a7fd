# SPDX-License-Identifier: Apache-2.0
"""What a bundle holds for GPUs beside the CPU's graphs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from mobilevlm_ros.engine.bundle import DECODER, VISION
from mobilevlm_ros.engine.onnxruntime.cuda import DECODER_HALF, VISION_HALF
from mobilevlm_ros.engine.tensorrt import names
from mobilevlm_ros.errors import BundleError
from mobilevlm_ros.export.graphs.half_precision import half_decoder, half_vision
from mobilevlm_ros.export.graphs.tensorrt_decoder import export_decoder
from mobilevlm_ros.export.layer_loader import Weights
from mobilevlm_ros.model.config import LanguageConfig

CUDA, TENSORRT, TENSORRT_8 = "cuda", "tensorrt", "tensorrt8"
GPU_BACKENDS = (CUDA, TENSORRT, TENSORRT_8)
"""cuda: ONNX Runtime on a GPU, some kilobytes. tensorrt: 10 and newer, about as large as the CPU's decoder.
tensorrt8: 8.5 and 8.6, 2 bytes per weight."""


def export_gpu(
    backends: Collection[str],
    weights: Weights,
    config: LanguageConfig,
    directory: Path,
    on_layer: Callable[[], None] = lambda: None,
) -> list[str]:
    """Writes what `backends` need beside the CPU's graphs in `directory`, and returns the files' names.

    `on_layer` is called as often as `layers` says. Raises BundleError when the 8-bit encoder stands in the
    way.
    """
    if not backends:
        return []
    vision = half_vision(directory / VISION)
    if vision is None:
        if set(backends) - {CUDA}:
            raise BundleError("TensorRT does not run the 8-bit encoder; build with --vision fp16")
        return []
    (directory / VISION_HALF).write_bytes(vision)
    files = [VISION_HALF]
    if CUDA in backends:
        (directory / DECODER_HALF).write_bytes(half_decoder(directory / DECODER))
        files.append(DECODER_HALF)
    for backend, name, int4 in ((TENSORRT, names.DECODER, True), (TENSORRT_8, names.DECODER_8, False)):
        if backend in backends:
            files += export_decoder(weights, config, directory / name, int4=int4, on_layer=on_layer)
    return files


def layers(backends: Collection[str], config: LanguageConfig) -> int:
    """How often `export_gpu` calls `on_layer`."""
    return (config.num_hidden_layers + 1) * len({TENSORRT, TENSORRT_8} & set(backends))
