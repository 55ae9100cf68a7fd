# SPDX-License-Identifier: Apache-2.0
"""What a decoder's logits say."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import EngineError


def log_softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Log-probabilities f64[..., V] of logits [..., V].

    Raises:
        EngineError: a logit is NaN or +inf, so the engine failed and no token can be trusted.
    """
    values = np.asarray(logits, dtype=np.float64)
    peak = values.max(axis=-1, keepdims=True)
    # max() propagates NaN; -inf alone in a row means that nothing is possible.
    if not np.isfinite(peak).all():
        raise EngineError(
            "the engine returned logits that are not numbers: check the image and rebuild the bundle"
        )
    shifted = values - peak
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised
