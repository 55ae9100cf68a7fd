# SPDX-License-Identifier: Apache-2.0
"""What the graphs for TensorRT are called, and their tensors: export, build and run agree on these."""

from __future__ import annotations

VISION = "vision.fp16.onnx"
"""Every version: types are explicit, layer norms decomposed, opset 17. ONNX Runtime on a GPU reads it too."""
DECODER = "decoder.trt.onnx"
"""TensorRT 10 and newer: 4-bit weights (DequantizeLinear by blocks, opset 21)."""
DECODER_8 = "decoder.trt8.onnx"
"""TensorRT 8.5 and 8.6: 16-bit weights, opset 17."""

PIXELS, IMAGE_EMBEDDINGS = "pixels", "image_embeddings"
EMBEDDINGS = "embeddings"
POSITIONS = "positions"
PAST_POSITIONS = "past_positions"
LOGIT_ROWS = "logit_rows"
LOGITS = "logits"

UNUSED = 1 << 30
"""Position of a slot of the cache that holds no token: after every question, so that none attends to it."""

MAX_TOKENS = 256
"""Most tokens read in one run; longer prompts are read in pieces."""
MAX_LOGITS = 64
"""Most positions whose logits one run computes."""


def past(layer: int, kind: str) -> str:
    """Input: `kind` is 'key' or 'value'."""
    return f"past.{layer}.{kind}"


def new(layer: int, kind: str) -> str:
    """Output: what the tokens just read add to the cache."""
    return f"new.{layer}.{kind}"
