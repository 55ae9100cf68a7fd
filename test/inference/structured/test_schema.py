# SPDX-License-Identifier: Apache-2.0
"""Objects are closed where they can be: compared with llguidance alone, and with jsonschema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.structured.conformance import complaint
from mobilevlm_ros.inference.structured.schema import closed
from mobilevlm_ros.inference.structured.schema_probe import ByteTokenizer

jsonschema = pytest.importorskip("jsonschema")
llguidance = pytest.importorskip("llguidance")

STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "coerce_one_of": True}
NAMES = ("a", "b", "c", "d")
LEAVES = (
    {"type": "integer", "minimum": 0, "maximum": 9},
    {"type": "boolean"},
    {"const": "x"},
    {"enum": [1, 2]},
)


@pytest.fixture(scope="module")
def vocabulary() -> Any:
    return llguidance.LLTokenizer(ByteTokenizer(), slices=[])


def matcher(vocabulary: Any, schema: dict[str, Any]) -> Any:
    return llguidance.LLMatcher(
        vocabulary, f"start: %json {json.dumps({**schema, 'x-guidance': STYLE})}", log_level=0
    )


def written(vocabulary: Any, schema: dict[str, Any], seed: int, limit: int = 200) -> str | None:
    """A document that the grammar of a schema lets through, drawn at random; None where it gets too long."""
    made, rng, text = matcher(vocabulary, schema), np.random.default_rng(seed), b""
    assert not made.is_error(), made.get_error()
    while not made.is_stopped() and len(text) < limit:
        bits = np.unpackbits(np.frombuffer(made.compute_bitmask(), np.uint8), bitorder="little")[:257]
        choices = np.flatnonzero(bits)
        if len(choices) == 0 or (256 in choices and rng.random() < 0.5):
            break
        token = int(rng.choice(choices[choices < 256]))
        made.consume_token(token)
        text += bytes([token])
    return text.decode("utf-8", "replace") if made.is_accepting() else None


def takes(vocabulary: Any, schema: dict[str, Any], document: object) -> bool:
    made, text = matcher(vocabulary, schema), json.dumps(document).encode()
    return not made.is_error() and made.try_consume_tokens(list(text)) == len(text) and made.is_accepting()


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Object schemas; some require what they list."""

    def made(properties: dict[str, Any], required: bool) -> dict[str, Any]:
        schema = {"type": "object", "properties": properties}
        return {**schema, "required": list(properties)} if required else schema

    return st.builds(
        made, st.dictionaries(st.sampled_from(NAMES), values, min_size=1, max_size=3), st.booleans()
    )


def composed(parts: st.SearchStrategy[Any], definitions: str = "PQ") -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of several that describe one value together, with and without sibling keywords."""
    reference = st.sampled_from(definitions).map(lambda name: {"$ref": f"#/$defs/{name}"})
    several = st.lists(parts | reference, min_size=1, max_size=3)
    return st.one_of(
        st.builds(lambda all_of: {"allOf": all_of}, several),
        st.builds(lambda any_of: {"anyOf": any_of}, several),
        st.builds(lambda base, all_of: {**base, "allOf": all_of}, parts, several),
        st.builds(lambda base, any_of: {**base, "anyOf": any_of}, parts, several),
        st.builds(lambda base, target: {**base, **target}, parts, reference),
        st.builds(lambda one, other: {"allOf": one, "anyOf": other}, several, several),
        reference,
    )


leaves = st.sampled_from(LEAVES)
flat = objects(leaves)
places = flat | composed(flat)
nested = objects(leaves | places | places.map(lambda items: {"type": "array", "items": items, "maxItems": 2}))
schemas = st.builds(
    lambda schema, p, q: {**schema, "$defs": {"P": p, "Q": q}},
    nested | composed(nested),
    flat,
    flat | composed(flat, "P"),
)


def names_in(document: object) -> Iterator[str]:
    if isinstance(document, dict):
        yield from document
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            yield from names_in(part)


@given(schema=schemas, seed=st.integers(0, 2**16))
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
def test_what_llguidance_alone_takes_is_taken_closed_and_conforms(
    vocabulary: Any, schema: dict[str, Any], seed: int
) -> None:
    alone = matcher(vocabulary, schema)
    assume(not alone.is_error())
    shut = closed(schema)
    text = written(vocabulary, shut, seed)  # it compiles too
    assume(text is not None)
    assert text is not None
    document = json.loads(text)
    jsonschema.validate(document, schema)
    assert complaint(text, schema) == ""
    assert set(names_in(document)) <= set(NAMES)
    assert takes(vocabulary, schema, document) or "anyOf" in json.dumps(schema)


P = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
Q = {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}
BOTH = {"a": True, "b": False}
DEFS = {"$defs": {"P": P, "Q": Q, "R": {"allOf": [{"$ref": "#/$defs/P"}, {"$ref": "#/$defs/Q"}]}}}
TOGETHER = {
    "definitions through allOf": {"allOf": [{"$ref": "#/$defs/P"}, {"$ref": "#/$defs/Q"}]},
    "a definition beside properties": {"$ref": "#/$defs/P", **{k: Q[k] for k in ("properties", "required")}},
    "allOf beside properties": {**P, "allOf": [{"$ref": "#/$defs/Q"}]},
    "anyOf beside properties": {**P, "anyOf": [{"$ref": "#/$defs/Q"}, {"const": 1}]},
    "allOf within allOf": {"allOf": [{"allOf": [P]}, {"allOf": [{"$ref": "#/$defs/Q"}]}]},
    "a definition that composes": {"$ref": "#/$defs/R"},
    "required beside a definition": {"$ref": "#/$defs/P", "required": ["b"]},
}


@pytest.mark.parametrize("kind", TOGETHER)
@pytest.mark.parametrize("around", ["{}", '{{"list": [{}]}}'])
def test_definitions_may_be_composed(vocabulary: Any, kind: str, around: str) -> None:
    schema = TOGETHER[kind]
    document: Any = BOTH
    if around != "{}":
        schema = {"type": "object", "properties": {"list": {"type": "array", "items": schema}}}
        document = {"list": [BOTH]}
    schema = {**schema, **DEFS}
    shut = closed(schema)
    assert takes(vocabulary, schema, document) and takes(vocabulary, shut, document)
    other = {"list": [{**BOTH, "z": 1}]} if "list" in document else {**BOTH, "z": 1}
    assert not takes(vocabulary, shut, other)
    if kind != "required beside a definition":
        wrong = {"list": [{**BOTH, "b": 1}]} if "list" in document else {**BOTH, "b": 1}
        assert not takes(vocabulary, shut, wrong)


def test_a_definition_keeps_its_form_where_it_stands_alone(vocabulary: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"one": {"$ref": "#/$defs/P"}, "two": {"allOf": [{"$ref": "#/$defs/P"}, Q]}},
        **DEFS,
    }
    shut = closed(schema)
    assert takes(vocabulary, shut, {"one": {"a": True}, "two": BOTH})
    assert not takes(vocabulary, shut, {"one": BOTH})


def test_alternatives_do_not_let_in_each_others_properties(vocabulary: Any) -> None:
    shut = closed({"anyOf": [P, Q]})
    assert takes(vocabulary, shut, {"a": True}) and takes(vocabulary, shut, {"b": True})
    assert not takes(vocabulary, shut, BOTH)


def test_what_several_say_of_one_property_is_closed_together(vocabulary: Any) -> None:
    inner = [{"type": "object", "properties": {"v": {"type": "array", "items": part}}} for part in (P, Q)]
    shut = closed({**inner[0], "allOf": [inner[1]]})
    assert takes(vocabulary, shut, {"v": [BOTH]})
    assert not takes(vocabulary, shut, {"v": [{**BOTH, "z": 1}]})


def test_two_groups_of_alternatives_keep_what_they_say(vocabulary: Any) -> None:
    either = {"anyOf": [P, {"type": "object", "properties": {"c": {"type": "boolean"}}}]}
    shut = closed(
        {"allOf": [either, {"anyOf": [Q, {"type": "object", "properties": {"d": {"type": "boolean"}}}]}]}
    )
    assert takes(vocabulary, shut, BOTH) and takes(vocabulary, shut, {"a": True, "d": True})
    assert not takes(vocabulary, shut, {"a": True, "d": 1})
    assert not takes(vocabulary, shut, {**BOTH, "z": 1})


def test_a_list_that_holds_itself_is_closed_at_every_level(vocabulary: Any) -> None:
    tree = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "next": {"$ref": "#"}},
        "required": ["a"],
    }
    shut = closed(tree)
    assert takes(vocabulary, shut, {"a": True, "next": {"a": False}})
    assert not takes(vocabulary, shut, {"a": True, "next": {"a": False, "z": 1}})
    looped = {"$defs": {"T": {**tree, "properties": {"next": {"allOf": [{"$ref": "#/$defs/T"}, Q]}}}}}
    assert json.dumps(closed({"$ref": "#/$defs/T", **looped}))
    assert json.dumps(closed({"allOf": [{"$ref": "#"}]}))


@pytest.mark.parametrize(
    "said",
    [
        {"additionalProperties": True},
        {"additionalProperties": {"type": "integer"}},
        {"patternProperties": {"^z": {"type": "integer"}}},
    ],
)
def test_a_schema_that_lets_others_in_is_taken_at_its_word(vocabulary: Any, said: dict[str, Any]) -> None:
    for schema in ({**P, **said}, {"allOf": [P, {"properties": {"a": True, "b": True}, **said}]}):
        assert takes(vocabulary, closed(schema), {"a": True, "z": 1})


def test_a_property_that_is_only_required_may_be_there(vocabulary: Any) -> None:
    shut = closed({**P, "required": ["a", "z"]})
    assert takes(vocabulary, shut, {"a": True, "z": [1]})
    assert not takes(vocabulary, shut, {"a": True, "z": 1, "y": 1})


LARGE = 10**15
RANGES = [
    ({"type": "integer"}, LARGE - 1, LARGE),
    ({"type": ["integer", "null"]}, 1 - LARGE, -LARGE),
    ({"type": "number"}, 0.5, LARGE),
    ({"type": "integer", "minimum": 3}, LARGE - 1, LARGE),
    ({"type": "integer", "minimum": 10**17}, 10**17, 10**17 - 1),
    ({"type": "integer", "maximum": 10**17}, 10**17, 10**17 + 1),
    ({"type": "integer", "exclusiveMaximum": -(10**16)}, -2 * 10**16, -(10**15)),
    ({"allOf": [{"type": "integer"}, {"minimum": 10**16, "maximum": 10**16 + 8}]}, 10**16 + 8, 10**16 + 10),
    ({"type": "integer", "const": 10**16}, 10**16, 10**15),
    ({"type": "integer", "enum": [10**16, 3]}, 10**16, 10**15),
]


@pytest.mark.parametrize(("schema", "inside", "outside"), RANGES)
def test_numbers_have_a_range_and_keep_their_own(
    vocabulary: Any, schema: dict[str, Any], inside: float, outside: float
) -> None:
    assert takes(vocabulary, closed(schema), inside)
    assert not takes(vocabulary, closed(schema), outside)


def test_a_schema_that_would_become_huge_is_refused() -> None:
    levels = {
        f"L{i}": {
            "allOf": [
                {"$ref": f"#/$defs/L{i + 1}"},
                {
                    "anyOf": [
                        {"$ref": f"#/$defs/L{i + 1}", "properties": {f"{side}{i}": True}} for side in "lr"
                    ]
                },
            ]
        }
        for i in range(40)
    }
    with pytest.raises(OptionError, match="simplify"):
        closed({"$ref": "#/$defs/L0", "$defs": {**levels, "L40": P}})
    deep: dict[str, Any] = {}
    for _ in range(20_000):
        deep = {"items": deep}
    with pytest.raises(OptionError, match="nested too deep"):
        closed(deep)
