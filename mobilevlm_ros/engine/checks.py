# SPDX-License-Identifier: Apache-2.0
"""Checks that every backend makes on what goes into an engine and what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import CheckpointError, ContextOverflow, EngineError, ImageError


def check_weights(name: str, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weights themselves. Raises CheckpointError when they hold NaN or infinity."""
    if not np.isfinite(weights).all():
        raise CheckpointError(
            f"{name} holds NaN or infinity, as after a training that diverged; take an earlier checkpoint"
        )
    return weights


def check_pixels(pixels: NDArray[np.uint8], size: int) -> None:
    """Raises ImageError unless `pixels` is u8 [B, size, size, 3] with B >= 1."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3) or not len(pixels):
        raise ImageError(
            f"the encoder takes uint8 [B, {size}, {size}, 3], not {pixels.dtype} {list(pixels.shape)}; "
            "use processing.image.prepare"
        )


def check_ids(ids: NDArray[np.int64], vocab_size: int) -> None:
    """Raises ValueError unless `ids` are one-dimensional integers within the vocabulary."""
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"token ids must be integers [T], not {ids.dtype} {list(ids.shape)}")
    if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
        raise ValueError(f"token ids run from {ids.min()} to {ids.max()}, the vocabulary holds {vocab_size}")


def check_embeddings(embeddings: NDArray[np.float32], batch: int, hidden_size: int, num_logits: int) -> None:
    """Raises ValueError unless `embeddings` is f32 [batch, T, hidden_size] with T >= max(1, num_logits);
    EngineError when it holds NaN or infinity.
    """
    shape = embeddings.shape
    if embeddings.dtype != np.float32 or len(shape) != 3 or shape[0] != batch or shape[2] != hidden_size:
        raise ValueError(
            f"the decoder takes float32 [{batch}, T, {hidden_size}] with this cache, "
            f"not {embeddings.dtype} {list(shape)}"
        )
    if not 0 <= num_logits <= shape[1] or not shape[1]:
        raise ValueError(f"{num_logits} logits of {shape[1]} tokens were asked for")
    check_finite(embeddings, "the embeddings given to the decoder")


def check_room(held: int, tokens: int, capacity: int, max_length: int) -> None:
    """Raises ContextOverflow when `tokens` more do not fit behind those `held`."""
    if held + tokens > capacity:
        raise ContextOverflow(
            f"{held} tokens and {tokens} more do not fit {capacity} "
            f"(the model's context is {max_length}); shorten the question, the answer or the session"
        )


def check_finite(values: NDArray[Any], what: str) -> None:
    """Raises EngineError when `values` hold NaN or infinity."""
    if not np.isfinite(values).all():
        raise EngineError(
            f"{what} holds NaN or infinity; the bundle or the checkpoint it was built from is damaged"
        )
