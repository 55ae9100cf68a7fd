# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from mobilevlm_ros.engine.greedy import decode_greedily
from mobilevlm_ros.engine.interfaces import LanguageEngine
from mobilevlm_ros.engine.torch.backend import TorchLanguage


@pytest.fixture
def language(language_model) -> LanguageEngine:
    return TorchLanguage(language_model())


def begin(language: LanguageEngine, prompt: list[int], capacity: int | None = None):
    cache = language.new_cache(capacity=capacity)
    return cache, language.forward(language.embed(np.array(prompt))[None], cache)[0, -1]


def likeliest(language: LanguageEngine, prompt: list[int], count: int) -> list[int]:
    """The answer, reading the whole prompt again for each token."""
    ids: list[int] = []
    while len(ids) < count:
        ids.append(int(begin(language, prompt + ids)[1].argmax()))
    return ids


def test_the_answer_is_that_of_reading_everything_again_for_each_token(language: LanguageEngine) -> None:
    expected = likeliest(language, [1, 5, 9], 6)
    ids, logits = decode_greedily(language, *begin(language, [1, 5, 9]), (), 6)
    assert ids == expected
    assert logits.argmax(-1).tolist() == expected


def test_it_ends_before_a_stop_id_and_keeps_the_logits_that_chose_it(language: LanguageEngine) -> None:
    expected = likeliest(language, [1, 5, 9], 6)
    stop = expected[-1]
    ids, logits = decode_greedily(language, *begin(language, [1, 5, 9]), (stop,), 6)
    assert ids == expected[: expected.index(stop)]
    assert int(logits[-1].argmax()) == stop and len(logits) == len(ids) + 1


def test_it_ends_where_the_cache_does(language: LanguageEngine) -> None:
    ids, _ = decode_greedily(language, *begin(language, [1, 5, 9], capacity=5), (), 20)
    assert len(ids) == 3  # the last is chosen and not read
