# SPDX-License-Identifier: Apache-2.0
from typing import Any

import numpy as np

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.inference.cache.prefix_cache import PrefixCache


def filled(runtime: Runtime, tokens: int) -> Any:
    cache = runtime.language.new_cache(capacity=tokens)
    runtime.language.forward(
        np.zeros((1, tokens, runtime.language.hidden_size), np.float32), cache, num_logits=0
    )
    return cache


def test_the_least_recently_used_goes_when_the_budget_is_passed(runtime: Runtime) -> None:
    one = filled(runtime, 8)
    kept: PrefixCache[str] = PrefixCache(budget=2 * one.nbytes)
    for key in "ab":
        kept.put(key, filled(runtime, 8))
    assert kept.get("a") is not None
    kept.put("c", filled(runtime, 8))
    assert ["a" in kept, "b" in kept, "c" in kept] == [True, False, True]
    assert kept.nbytes == 2 * one.nbytes


def test_replacing_a_key_counts_once(runtime: Runtime) -> None:
    kept: PrefixCache[str] = PrefixCache(budget=1 << 30)
    kept.put("a", filled(runtime, 8))
    kept.put("a", filled(runtime, 4))
    assert (len(kept), kept.nbytes) == (1, filled(runtime, 4).nbytes)
    kept.clear()
    assert (len(kept), kept.nbytes) == (0, 0)


def test_what_is_larger_than_the_budget_is_not_kept_and_displaces_nothing(runtime: Runtime) -> None:
    kept: PrefixCache[str] = PrefixCache(budget=filled(runtime, 8).nbytes)
    kept.put("a", filled(runtime, 8))
    kept.put("b", filled(runtime, 9))
    assert "a" in kept and "b" not in kept
