# SPDX-License-Identifier: Apache-2.0
"""Answers that follow a regular expression or a grammar, and models that would never end."""

import json
import re

import numpy as np
import pytest
from fixtures.answer_grammars import SPARE, constrain, constraint_of, grammars, tokenizer, write
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.generation.sampling import Sampler
from mobilevlm_ros.inference.structured.grammar import GrammarCompiler
from mobilevlm_ros.inference.types import AnswerFormat
from mobilevlm_ros.processing.tokenizer import Tokenizer

__all__ = ["grammars", "tokenizer"]
pytest.importorskip("llguidance")

PATTERNS = [
    "yes|no",
    "[A-Z]{2}-[0-9]{3}",
    "a/b",
    r"\d{1,3}",
    "(?i)left|right",
    " two  blanks ",
    "(é|ü){2}",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=8, deadline=None)
def test_a_pattern_is_matched_by_the_whole_answer(
    grammars: GrammarCompiler, tokenizer: Tokenizer, pattern: str, seed: int
) -> None:
    constraint = constrain(grammars, "regex", pattern=pattern)
    said, _ = write(constraint, tokenizer, seed)
    constraint.check(said, 64, 64)
    assert re.fullmatch(pattern, said), said


GRAMMAR = """
start: "on the " SIDE (", " SIDE)*
SIDE: "left" | "right"
"""


@given(seed=st.integers(0, 2**16))
@settings(max_examples=8, deadline=None)
def test_a_grammar_is_followed(grammars: GrammarCompiler, tokenizer: Tokenizer, seed: int) -> None:
    said, _ = write(constrain(grammars, "grammar", grammar=GRAMMAR), tokenizer, seed, end=3.0)
    assert re.fullmatch("on the (left|right)(, (left|right))*", said), said


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (AnswerFormat("regex", pattern="("), "pattern cannot be used: .*unclosed group"),
        (AnswerFormat("regex", pattern="(?=a)b"), "pattern cannot be used: .*look-around"),
        (AnswerFormat("regex", pattern=r"(a)\1"), "pattern cannot be used: .*backreferences"),
        (AnswerFormat("grammar", grammar='root ::= "yes"'), "grammar cannot be used"),
        (AnswerFormat("grammar", grammar="start: other"), 'grammar cannot be used: .*unknown name: "other"'),
        (AnswerFormat("grammar", grammar='start: "a" start'), "grammar cannot be used: "),
    ],
)
def test_a_pattern_or_grammar_that_is_no_use_is_named(
    grammars: GrammarCompiler, form: AnswerFormat, said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        constraint_of(grammars, form)


ENDLESS = [
    {"type": "integer"},
    {"type": "number"},
    {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]},
    {"type": "object", "properties": {"far": {"type": "number", "minimum": 0.25}}, "required": ["far"]},
    {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
    {"type": "object", "properties": {"any": {}}, "required": ["any"]},
]


@pytest.mark.parametrize("schema", ENDLESS, ids=json.dumps)
@pytest.mark.parametrize("favourites", ["9", "0.", "3.e"])
def test_a_model_that_loves_digits_comes_to_an_end(
    grammars: GrammarCompiler, tokenizer: Tokenizer, schema: dict, favourites: str
) -> None:
    constraint = constrain(grammars, "json", json_schema=json.dumps(schema))
    logits = np.zeros(tokenizer.vocab_size + SPARE, np.float32)
    for token in range(tokenizer.vocab_size):
        content = tokenizer.content(token)
        logits[token] = 50 if content and all(chr(byte) in favourites for byte in content) else 0
        logits[token] -= 10 * content.startswith((b'"', b"[", b"{"))
    sampler, said = Sampler(), b""
    for _ in range(120):
        if constraint.finished:
            break
        token = sampler.pick(logits, constraint.mask()).token
        constraint.accept(token)
        said += tokenizer.content(token) if tokenizer.is_text(token) else b""
    text = said.decode().strip()
    constraint.check(text, 120, 120)
    for number in re.findall(r"[0-9.e]+", text):
        assert len(number) <= 20 + 1 + 6, text
