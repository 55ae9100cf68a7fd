# SPDX-License-Identifier: Apache-2.0
"""What a bundle shall be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from mobilevlm_ros.export.graphs.gpu import CUDA
from mobilevlm_ros.export.quantization.calibration_set import CalibrationSet
from mobilevlm_ros.export.quantization.precision import DecoderPrecision

AUTO = "auto"
"""Of BuildOptions.vision_store."""


@dataclass(frozen=True)
class BuildOptions:
    """How `build_bundle` reads a checkpoint, and what it makes of it.

    Attributes:
        name: the model id that answers report; None: the checkpoint's own.
        revision: branch, tag or commit of a hub id.
        mmproj: the GGUF file of the image encoder, where the directory holds several.
        precision: how the decoder's matrices are stored.
        vision_store: one of graphs.vision_layers.STORES, or AUTO: the smallest that keeps the encoder's
            output to a cosine of quality.comparison.LEAST_COSINE.
        calibration: conversations for which GPTQ rounds the decoder's matrices; None rounds to nearest.
        quality: conversations that tell what quantisation changed, which the manifest reports; None: none.
        backends: those of graphs.gpu.GPU_BACKENDS that shall run the bundle beside the CPU.
        fast_prefill: adds prefill.onnx: the language model once more in 8 bits, which reads prompts about
            twice as fast on a CPU.
    """

    name: str | None = None
    revision: str | None = None
    mmproj: Path | None = None
    precision: DecoderPrecision = field(default_factory=DecoderPrecision)
    vision_store: str = "fp16"
    calibration: CalibrationSet | None = None
    quality: CalibrationSet | None = None
    backends: Collection[str] = (CUDA,)
    fast_prefill: bool = False

    @property
    def store(self) -> str:
        """`vision_store`, but for TensorRT, which has no 8-bit encoder for AUTO to choose."""
        return "fp16" if self.vision_store == AUTO and set(self.backends) - {CUDA} else self.vision_store
