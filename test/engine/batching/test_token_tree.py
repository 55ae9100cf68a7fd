# SPDX-License-Identifier: Apache-2.0
"""The bookkeeping of branches, and that an engine which follows it reads each branch as if alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.engine.batching.token_tree import TokenTree
from mobilevlm_ros.engine.bundle import DECODER_TREE, PREFILL_TREE, Bundle
from mobilevlm_ros.engine.onnxruntime import backend as ort
from mobilevlm_ros.engine.onnxruntime.language import LEAST_PREFILL
from mobilevlm_ros.errors import EngineError
from mobilevlm_ros.export.builder import build_bundle
from mobilevlm_ros.export.options import BuildOptions


def piece(text: str) -> np.ndarray:
    """Embeddings f32 [T, 1] that are equal where the letters are."""
    return np.array([[ord(letter)] for letter in text], np.float32)


def read_back(seen: dict[int, str], rows, start: int) -> dict[int, str]:
    """Notes a run's letters, and returns what each wanted row sees, in order of positions."""
    for row, embedding in enumerate(rows.embeddings):
        seen[start + row] = chr(int(embedding[0]))
    first = len(rows.embeddings) - rows.needs_logits
    return {
        row - first: "".join(seen.get(at, "") for at in np.flatnonzero(rows.visible[row]))
        for row in range(first, len(rows.embeddings))
    }


def test_what_is_common_is_read_once():
    rows = TokenTree(3).grow({0: piece("is a cat?"), 1: piece("is a dog?"), 7: piece("who?")})
    assert len(rows.embeddings) == len("is a ") + len("cat?") + len("dog?") + len("who?")
    assert rows.needs_logits == 3
    assert rows.positions.min() == 3
    seen = read_back({}, rows, 3)
    assert {branch: seen[int(at[0])] for branch, at in rows.logit_rows.items()} == {
        0: "is a cat?",
        1: "is a dog?",
        7: "who?",
    }
    assert rows.visible[:, :3].all()


def test_a_branch_that_another_one_continues_and_one_that_is_asked_twice():
    rows = TokenTree(0).grow({0: piece("ab"), 1: piece("abcd"), 2: piece("ab")})
    assert len(rows.embeddings) == 4
    assert rows.logit_rows[0] == rows.logit_rows[2] != rows.logit_rows[1]
    assert read_back({}, rows, 0)[int(rows.logit_rows[0][0])] == "ab"


words = st.text("ab", min_size=1, max_size=5)


@settings(deadline=None)
@given(
    st.integers(0, 4),
    st.lists(st.dictionaries(st.integers(0, 3), words, min_size=1), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_each_token_sees_the_prompt_and_its_own_branch(prompt, runs, num_logits):
    tree, texts, letters = TokenTree(prompt), dict.fromkeys(range(4), ""), {}
    for run in runs:
        start = tree.length
        rows = tree.grow({branch: piece(text) for branch, text in run.items()}, num_logits)
        assert tree.length == start + len(rows.embeddings) == rows.visible.shape[1]
        later = np.triu(rows.visible[:, start:], 1)
        assert not later.any()  # what is read in one run is causal in the order of rows
        seen = read_back(letters, rows, start)
        for branch, text in run.items():
            texts[branch] += text
            needs_logits = min(num_logits, len(text))
            assert len(rows.logit_rows[branch]) == needs_logits
            for back, at in enumerate(reversed(rows.logit_rows[branch].tolist())):
                expected = texts[branch][: len(texts[branch]) - back]
                assert seen[at] == expected
                row = len(rows.embeddings) - rows.needs_logits + at
                assert rows.positions[row] == prompt + len(expected) - 1
                assert rows.visible[row, :prompt].all()


def test_damage_is_found(language_model, export, embeddings):
    engine = export(language_model(), tree=True)
    cache = engine.new_cache()
    engine.forward(embeddings(1, 3), cache)
    spoilt = embeddings(1, 2)[0]
    spoilt[1, 3] = np.inf
    with pytest.raises(EngineError, match="NaN or infinity"):
        engine.branches(cache, 9).read({0: embeddings(1, 2)[0], 1: spoilt})
    assert cache.length == 3


def test_bundles_have_trees_and_many_tokens_are_read_by_the_prefill_graph(
    tiny_checkpoint: Path, tmp_path: Path
):
    bundle = build_bundle(tiny_checkpoint, tmp_path / "b", BuildOptions(fast_prefill=True))
    assert {DECODER_TREE, PREFILL_TREE} <= set(bundle.manifest.files)
    fast = ort.load_language(Bundle.open(bundle.path), threads=1)
    build_bundle(tiny_checkpoint, tmp_path / "without")
    plain = ort.load_language(Bundle.open(tmp_path / "without"), threads=1)
    tokens = [fast.embed(np.arange(5 + i, 35 + i) % fast.vocab_size) for i in range(3)]
    assert 3 * 29 > LEAST_PREFILL
    results = []
    for engine in (plain, fast):
        cache = engine.new_cache()
        engine.forward(fast.embed(np.arange(9))[None], cache)
        results.append(np.stack(engine.branch(tokens, cache)))
    difference = np.abs(results[0] - results[1]).max() / results[0].std()
    assert 0 < difference < 0.2  # other kernels, the same thing


def test_an_older_onnxruntime_takes_the_plain_graphs(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    bundle = Bundle.open(tiny_bundle)
    engine = ort.load_language(bundle, threads=1)
    cache = engine.new_cache()
    engine.forward(engine.embed(np.arange(9))[None], cache)
    tokens = [engine.embed(np.arange(start, start + 6)) for start in (3, 5, 9)]
    assert engine.supports_tree_attention
    expected = engine.branch(tokens, cache)
    monkeypatch.setattr(onnxruntime, "__version__", "1.21.1")
    old = ort.load_language(bundle, threads=1)
    assert not old.supports_tree_attention
    np.testing.assert_allclose(old.branch(tokens, cache), expected, atol=1e-4)
