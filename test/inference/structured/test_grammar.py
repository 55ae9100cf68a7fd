# SPDX-License-Identifier: Apache-2.0
"""Whatever the model's logits, what comes out has the format, or is flagged."""

import json
import sys

import pytest
from fixtures.answer_grammars import constrain, constraint_of, grammars, tokenizer, write

from mobilevlm_ros.errors import IncompleteAnswer, NonconformingAnswer, OptionError
from mobilevlm_ros.inference.structured.grammar import GrammarCompiler
from mobilevlm_ros.inference.types import AnswerFormat
from mobilevlm_ros.processing.tokenizer import Tokenizer

__all__ = ["grammars", "tokenizer"]
jsonschema = pytest.importorskip("jsonschema")

pytest.importorskip("llguidance")


def test_the_canonical_tokens_of_an_answer_are_allowed(
    grammars: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    """The answer as the tokenizer itself writes it, with the space it puts in front."""
    schema = '{"type": "object", "properties": {"ä": {"type": "string"}}, "required": ["ä"]}'
    for constraint, text in (
        (constrain(grammars, "integer"), "-120"),
        (constrain(grammars, "number", minimum=-1, maximum=1), "0.25"),
        (constrain(grammars, "json", json_schema=schema), '{"ä": "Übung 🙂 \\n"}'),
    ):
        for token in tokenizer.encode(text, bos=False):
            assert constraint.mask()[token], (text, tokenizer.delta(token))
            constraint.accept(token)
        assert constraint.finished or constraint.mask()[tokenizer.eos_id]


def test_only_an_end_token_may_end_and_only_where_the_answer_is_complete(
    grammars: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = constrain(grammars, "integer", minimum=10, maximum=99)
    first, *rest = tokenizer.encode("42", bos=False)
    for token in (first, *rest):
        mask = constraint.mask()
        assert not mask[[tokenizer.eos_id, tokenizer.bos_id, tokenizer.unk_id]].any()
        assert not mask[tokenizer.vocab_size :].any()
        constraint.accept(token)
    assert constraint.finished
    constraint.check("42", 64, 64)


def test_an_end_token_ends_what_could_go_on(grammars: GrammarCompiler, tokenizer: Tokenizer) -> None:
    constraint = constrain(grammars, "integer")
    for token in tokenizer.encode("4", bos=False):
        constraint.accept(token)
    assert not constraint.finished
    with pytest.raises(IncompleteAnswer, match=r"not a complete integer after 64 tokens .*'4'"):
        constraint.check("4", 64, 64)
    constraint.accept(tokenizer.eos_id)
    assert constraint.finished
    constraint.check("4", 64, 64)


def test_a_cut_document_is_never_passed(grammars: GrammarCompiler, tokenizer: Tokenizer) -> None:
    schema = '{"type": "array", "items": {"type": "integer"}, "minItems": 400}'
    constraint = constrain(grammars, "json", json_schema=schema)
    said, _ = write(constraint, tokenizer, 1, limit=50)
    with pytest.raises(IncompleteAnswer, match="max_tokens"):
        constraint.check(said, 64, 64)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "integer", "minimum": 5, "maximum": 3}, "greater than maximum"),
        ({"not": {}}, 'Unimplemented keys: \\["not"\\]'),
        ({"$ref": "https://example.org/schema"}, "does not fetch"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "vector"}, "no JSON Schema"),
        ({"uniqueItems": True}, "uniqueItems"),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused(
    grammars: GrammarCompiler, schema: object, message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        constrain(grammars, "json", json_schema=json.dumps(schema))
    assert "\n" not in str(caught.value)


def test_a_schema_that_was_refused_is_refused_at_once(
    grammars: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        with pytest.raises(OptionError, match="multipleOf"):
            constrain(grammars, "json", json_schema='{"type": "integer", "multipleOf": "x"}')
        monkeypatch.setattr("mobilevlm_ros.inference.structured.grammar.probe", None)


def test_properties_are_those_listed_unless_the_schema_says_otherwise(
    grammars: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    inner = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    closed = {"type": "object", "properties": {"in": inner}, "required": ["in"]}
    for seed in range(4):
        said, _ = write(constrain(grammars, "json", json_schema=json.dumps(closed)), tokenizer, seed)
        assert json.loads(said) == {"in": {"a": 1}}
    merged = {"allOf": [inner, {"type": "object", "properties": {"b": {"const": 2}}, "required": ["b"]}]}
    for schema in ({**inner, "additionalProperties": True}, {**inner, "minProperties": 1}, merged):
        constrain(grammars, "json", json_schema=json.dumps(schema))


def test_a_schema_cannot_loosen_how_it_is_enforced(grammars: GrammarCompiler, tokenizer: Tokenizer) -> None:
    lenient = {"x-guidance": {"lenient": True, "item_separator": ";"}, "not": {}}
    with pytest.raises(OptionError, match="Unimplemented"):
        constrain(grammars, "json", json_schema=json.dumps(lenient))


def test_a_document_that_a_grammar_cannot_refuse_is_refused_at_the_end(
    grammars: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer", "maximum": 9}}
    constraint = constrain(grammars, "json", json_schema=json.dumps(schema))
    constraint.accept(tokenizer.eos_id)  # as if it were complete
    constraint.check('{"a": 1}', 64, 64)
    with pytest.raises(NonconformingAnswer, match="'a' is there twice"):
        constraint.check('{"a": 1, "a": 2}', 64, 64)


@pytest.mark.parametrize("value", ["a\u0001b", "\b\f", "x\u0000", "\x7f", "tab\there", "é☃😀/\\"])
def test_control_characters_of_a_schema_are_kept(
    grammars: GrammarCompiler, tokenizer: Tokenizer, value: str
) -> None:
    schema = {"type": "object", "properties": {value: {"const": value}}, "required": [value]}
    said, _ = write(constrain(grammars, "json", json_schema=json.dumps(schema)), tokenizer, 0)
    assert json.loads(said) == {value: value}


def test_free_text_and_choices_need_no_constraint(grammars: GrammarCompiler) -> None:
    assert constraint_of(grammars, AnswerFormat()) is None
    assert constraint_of(grammars, AnswerFormat("choice_list")) is None


def test_without_the_library_the_error_says_what_to_install(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(OptionError, match=r"pip install 'mobilevlm_ros\[typed\]'"):
        constraint_of(
            GrammarCompiler(tokenizer, tokenizer.vocab_size, []),
            AnswerFormat("integer"),
        )
