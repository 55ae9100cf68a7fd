# SPDX-License-Identifier: Apache-2.0
"""Whatever the model's logits, what comes out has the format, or is flagged."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import IncompleteAnswer, NonconformingAnswer, OptionError
from mobilevlm_ros.inference.generation.sampling import Sampler
from mobilevlm_ros.inference.structured.grammar import Constraint, GrammarCompiler
from mobilevlm_ros.inference.types import AnswerFormat, SamplingParams
from mobilevlm_ros.processing.tokenizer import StreamDecoder, Tokenizer

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("llguidance")

ROOT = Path(__file__).resolve().parents[3]
TOKENIZERS = {
    "nano": ROOT / "models" / "nano" / "tokenizer.model",
    "tiny": ROOT / "test" / "data" / "parity" / "ckpt" / "tiny-ldpnet" / "tokenizer.model",
}
SPARE = 5
"""Rows of the head beyond the vocabulary, as padded checkpoints have."""


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(TOKENIZERS[request.param])


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size + SPARE, [tokenizer.eos_id])


def write(
    constraint: Constraint, tokenizer: Tokenizer, seed: int, limit: int = 200, end: float = 0.0
) -> tuple[str, list[int]]:
    """The text and tokens of a model with random logits, whose end token is `end` more likely than others."""
    rng = np.random.default_rng(seed)
    sampler, stream = Sampler(SamplingParams(temperature=1.0, seed=seed)), StreamDecoder(tokenizer)
    text, tokens = "", []
    while not constraint.finished and len(tokens) < limit:
        logits = rng.normal(0, 3, tokenizer.vocab_size + SPARE).astype(np.float32)
        logits[tokenizer.eos_id] += end
        token, logprob, _ = sampler.pick(logits, constraint.mask())
        assert -np.inf < logprob <= 1e-9
        constraint.accept(token)
        tokens.append(token)
        piece = stream.push(token)
        text += piece if len(tokens) > 1 else tokenizer.content(token)[1:].decode()
    return text + stream.flush(), tokens


def constraint_of(grammars: GrammarCompiler, form: AnswerFormat) -> Constraint | None:
    steps = grammars.constraint(form)
    while True:
        try:
            assert next(steps) == ""
        except StopIteration as end:
            constraint: Constraint | None = end.value
            return constraint


def constrain(grammars: GrammarCompiler, form: str, **fields: object) -> Constraint:
    constraint = constraint_of(grammars, AnswerFormat(form, **fields))
    assert constraint is not None
    return constraint


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
