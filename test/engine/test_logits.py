# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from mobilevlm_ros.engine.logits import log_softmax
from mobilevlm_ros.errors import EngineError


def test_log_probabilities_sum_to_one_in_every_row() -> None:
    logits = np.random.default_rng(0).normal(0, 30, (4, 5, 40)).astype(np.float32)
    found = log_softmax(logits)
    assert found.dtype == np.float64 and found.shape == logits.shape
    np.testing.assert_allclose(np.exp(found).sum(-1), 1)
    np.testing.assert_array_equal(found.argmax(-1), logits.argmax(-1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_the_engines_fault(bad: float) -> None:
    with pytest.raises(EngineError, match="not numbers"):
        log_softmax(np.array([[0.0, bad]], np.float32))
