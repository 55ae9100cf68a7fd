# SPDX-License-Identifier: Apache-2.0
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.engine.logits import log_softmax
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.inference.choices.scoring import candidates, probabilities, score, variants


def finish(steps: Generator[str, None, Any]) -> Any:
    """The result of work that may be set aside where it yields."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_many_long_choices_are_scored_in_steps(runtime: Runtime) -> None:
    language, tokenizer = runtime.language, runtime.tokenizer
    cache = language.new_cache()
    prompt = np.array(tokenizer.encode("The light is"), np.int64)
    logits = language.forward(language.embed(prompt)[None], cache)[0, -1]
    sequences, _ = candidates([f"the colour number {i} of many" for i in range(64)], tokenizer)
    steps = score(logits, cache, language, sequences)
    assert len([None for _ in iter(lambda: next(steps, None), None)]) > 10
    assert len(finish(score(logits, cache, language, sequences))) == len(sequences)


def test_variants_are_as_given_capitalised_and_lower_case() -> None:
    assert variants("yes") == ("yes", "Yes")
    assert variants("STOP sign") == ("STOP sign", "stop sign")
    assert variants("Stop Sign") == ("Stop Sign", "stop sign")


def test_the_end_token_is_scored_only_where_one_choice_continues_another(runtime: Runtime) -> None:
    eos = runtime.tokenizer.eos_id
    apart, _ = candidates(("yes", "no"), runtime.tokenizer)
    nested, owners = candidates(("stop", "stop sign"), runtime.tokenizer)
    assert all(ids[-1] != eos for ids in apart)
    assert all(ids[-1] == eos for ids in nested)
    assert sorted(set(owners)) == [0, 1]


def test_scores_are_those_of_reading_each_sequence_alone(runtime: Runtime) -> None:
    language, tokenizer = runtime.language, runtime.tokenizer
    prompt = np.array(tokenizer.encode("The light is"), np.int64)
    cache = language.new_cache()
    logits = language.forward(language.embed(prompt)[None], cache)[0, -1]
    sequences, _ = candidates(("red", "a green traffic light", "green", "a green ball"), tokenizer)
    expected = []
    for ids in sequences:
        both = np.concatenate((prompt, np.array(ids, np.int64)))
        rows = language.forward(language.embed(both)[None], language.new_cache(), num_logits=len(ids) + 1)
        table = log_softmax(rows)[0]
        expected.append(np.mean([table[i, token] for i, token in enumerate(ids)]))
    before = cache.length
    assert finish(score(logits, cache, language, sequences)) == pytest.approx(np.array(expected), abs=0.02)
    assert cache.length == before


def test_variants_of_a_choice_add_up() -> None:
    odds = probabilities(np.log(np.array([0.2, 0.2, 0.1])), [0, 0, 1], 2)
    assert odds == pytest.approx((0.8, 0.2))


def test_very_improbable_choices_still_make_a_distribution() -> None:
    assert sum(probabilities(np.array([-2000.0, -2001.0]), [0, 1], 2)) == pytest.approx(1)
