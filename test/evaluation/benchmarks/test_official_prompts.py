# SPDX-License-Identifier: Apache-2.0
"""Prompts, token ids and pixels equal those that the official loops gave the official model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.evaluation.benchmarks.registry import BENCHMARKS, load
from mobilevlm_ros.evaluation.runner.prompts import pixels, render
from mobilevlm_ros.processing.image import normalize
from mobilevlm_ros.processing.tokenizer import Tokenizer

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_the_model_is_given(name: str) -> None:
    tokenizer = Tokenizer(DATA / "parity" / "ckpt" / "tiny-ldpnetv2" / "tokenizer.model")
    _, dataset = load(name, DATA / "eval" / name)
    records = json.loads((DATA / "eval" / name / "loader.json").read_text())
    assert len(records) >= 8
    for question, record in zip(dataset.questions, records):
        prompt = render(question, "v1")
        assert prompt == record["prompt_to_model"]
        assert tokenizer.encode_prompt(prompt) == record["input_ids"]
        assert question.max_tokens == record["official_max_new_tokens"]
        line = record["answer_line"]
        assert question.question_id == line["question_id"]
        assert question.saved_prompt == line["prompt"]
        assert {key: line[key] for key in question.extra} == dict(question.extra)
        assert (question.picture is None) == (record["image"] is None)
        if question.picture is not None:
            given = normalize(pixels(question.picture, 336, "pad")[None])
            shown = record["image"]
            assert list(given.shape) == shown["shape"]
            assert float(given.mean()) == pytest.approx(shown["mean"], abs=1e-5)
            assert float(given.std()) == pytest.approx(shown["std"], abs=1e-5)
            np.testing.assert_allclose(given[0, :, ::48, ::48], np.array(shown["grid48"]), atol=1e-5)
