# SPDX-License-Identifier: Apache-2.0
"""Any schema: a document that conforms, or an error."""

import json

import pytest
from fixtures.answer_grammars import constrain, grammars, tokenizer, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import IncompleteAnswer, OptionError
from mobilevlm_ros.inference.structured.grammar import GrammarCompiler
from mobilevlm_ros.processing.tokenizer import Tokenizer

__all__ = ["grammars", "tokenizer"]
jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("llguidance")

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | st.text('ab é\n"\\{', max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("xy", max_size=2), inner, max_size=2),
    max_leaves=3,
)


def ranges(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[dict[str, float]]:
    return st.fixed_dictionaries({}, optional={"minimum": numbers, "maximum": numbers})


def kind(name: str) -> st.SearchStrategy[dict[str, object]]:
    """{"type": name} with that type's own bounds."""
    bounds: dict[str, st.SearchStrategy[dict[str, object]]] = {
        "integer": ranges(st.integers(-50, 2000)),
        "number": ranges(st.integers(-9, 9) | st.decimals(-9, 9, places=2).map(float)),
        "string": st.fixed_dictionaries(
            {}, optional={"minLength": st.integers(0, 3), "maxLength": st.integers(0, 6)}
        )
        | st.sampled_from([{"pattern": "^[a-c]{2,4}$"}, {"format": "date"}]),
    }
    return bounds.get(name, st.just({})).map(lambda more: {"type": name, **more})


LEAVES = st.one_of(
    st.sampled_from(["integer", "number", "string", "boolean", "null"]).flatmap(kind),
    st.lists(VALUES, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    VALUES.map(lambda value: {"const": value}),
)


def nested(inner: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
    properties = st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    objects = st.builds(
        lambda p, needed, more: {
            "type": "object",
            "properties": p,
            "required": [name for name in p if name in needed],
            "additionalProperties": more,
        },
        properties,
        st.sets(st.sampled_from("abc")),
        st.just(False) | inner,
    )
    arrays = st.builds(
        lambda items, low, high: {"type": "array", "items": items, "minItems": low, "maxItems": high},
        inner,
        st.integers(0, 2),
        st.integers(0, 3),
    )
    return objects | arrays | st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some})


SCHEMAS = st.recursive(LEAVES, nested, max_leaves=5)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, seed=st.integers(0, 99))
def test_any_schema_gives_a_document_that_conforms_or_an_error(
    schema: dict[str, object], seed: int, grammars: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    for text in (json.dumps(schema), json.dumps(schema, ensure_ascii=False)):
        try:
            constraint = constrain(grammars, "json", json_schema=text)
        except OptionError as error:
            if "json_schema cannot be used" not in str(error):
                raise
            return
        said, _ = write(constraint, tokenizer, seed)
        try:
            constraint.check(said, 64, 64)
        except IncompleteAnswer:
            continue
        jsonschema.Draft202012Validator(schema).validate(json.loads(said))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.floats(-1e6, 1e6) | st.integers(-20, 20),
    st.floats(1e-3, 1e6) | st.integers(1, 300),
    st.sampled_from(["integer", "number"]),
    st.integers(0, 99),
)
def test_numbers_are_always_within_their_range(
    grammars: GrammarCompiler, tokenizer: Tokenizer, low: float, width: float, form: str, seed: int
) -> None:
    try:
        constraint = constrain(grammars, form, minimum=low, maximum=low + width)
    except OptionError as error:
        if "lies between" not in str(error) and "not below" not in str(error):
            raise
        return
    said, _ = write(constraint, tokenizer, seed)
    constraint.check(said, 64, 64)  # a number is never so long that it needs the limit
    value = int(said) if form == "integer" else float(said)
    assert low <= value <= low + width


def test_an_integer_without_a_range_is_any_integer(grammars: GrammarCompiler, tokenizer: Tokenizer) -> None:
    said = {write(constrain(grammars, "integer"), tokenizer, seed, end=-2.0)[0] for seed in range(40)}
    values = [int(text) for text in said]
    assert min(values) < 0 < max(values)
    assert all(str(value) == text for value, text in zip(values, said))
