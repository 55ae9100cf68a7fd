# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from mobilevlm_ros.engine.splice import splice
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN


def embed(ids: np.ndarray) -> np.ndarray:
    return np.repeat(ids[:, None], 2, 1).astype(np.float32)


@pytest.mark.parametrize(("before", "after"), [([1, 5], [7]), ([], [7, 8]), ([1], []), ([], [])])
def test_the_image_stands_in_the_place_of_its_token(before: list[int], after: list[int]) -> None:
    image = np.full((3, 2), 100, np.float32)
    found, tail = splice([*before, IMAGE_TOKEN, *after], image, embed)
    assert found[:, 0].tolist() == [*before, 100, 100, 100, *after]
    assert tail == len(after)


def test_a_prompt_without_a_picture_is_refused() -> None:
    with pytest.raises(ValueError):
        splice([1, 2], np.zeros((1, 2), np.float32), embed)
