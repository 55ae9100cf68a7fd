# SPDX-License-Identifier: Apache-2.0
"""Whether a finished JSON document conforms to its schema, by the `jsonschema` library.

A grammar cannot express all that a schema says (no name twice, exactly one of several, numbers of many
digits), so what it let through is checked once more. Patterns are matched by llguidance, which enforced them:
in linear time, where Python's `re` may take for ever.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from mobilevlm_ros.errors import OptionError, Unsupported
from mobilevlm_ros.inference.structured.schema_probe import ByteTokenizer

_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ANY_ESCAPE = {"json_allowed_escapes": 'nrtu\\"'}


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises OptionError for what is no JSON Schema, Unsupported where `jsonschema` is not installed."""
    library = _library()
    kind = library.validators.validator_for(schema, default=library.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except library.SchemaError as error:
        raise OptionError(f"json_schema is no JSON Schema: {_told(error)}; correct it") from error


def complaint(text: str, schema: Mapping[str, Any]) -> str:
    """Why a text is no document that conforms to the schema; the empty string if it is."""
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        return str(error)
    library = _library()
    kind = library.validators.validator_for(schema, default=library.Draft202012Validator)
    try:
        found = library.exceptions.best_match(
            _linear(kind)(schema, registry=_no_others()).iter_errors(document)
        )
    except Exception as error:  # a reference into nowhere, a circle: not known to conform
        return f"the schema cannot be applied ({type(error).__name__}: {error})"
    return "" if found is None else _told(found)


def _told(error: Any) -> str:
    where = "".join(f"[{step!r}]" for step in error.absolute_path)
    message = error.message if len(error.message) <= 200 else error.message[:199] + "…"
    return message + (f" (at {where})" if where else "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits} is too large")
    return number


def _no_others() -> Any:
    """Schemas beside the one at hand: none. The default would fetch them from the network."""
    from referencing import Registry

    return Registry()


@lru_cache(maxsize=8)
def _linear(kind: Any) -> Any:
    """A validator whose patterns are matched in linear time."""
    library = _library()

    def pattern(validator: Any, expression: str, instance: Any, _: Any) -> Iterator[Any]:
        if validator.is_type(instance, "string") and not matches(expression, instance):
            yield library.ValidationError(f"{instance!r} does not match {expression!r}")

    def pattern_properties(validator: Any, patterns: Any, instance: Any, _: Any) -> Iterator[Any]:
        if validator.is_type(instance, "object"):
            for expression, schema in patterns.items():
                for name in [name for name in instance if matches(expression, name)]:
                    yield from validator.descend(instance[name], schema, path=name, schema_path=expression)

    def additional_properties(validator: Any, others: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if not validator.is_type(instance, "object"):
            return
        patterns = schema.get("patternProperties", {})
        for name in [name for name in instance if name not in schema.get("properties", {})]:
            if any(matches(expression, name) for expression in patterns):
                continue
            if others is False:
                yield library.ValidationError(f"the property {name!r} is not allowed")
            else:
                yield from validator.descend(instance[name], others, path=name)

    return library.validators.extend(
        kind,
        {
            "pattern": pattern,
            "patternProperties": pattern_properties,
            "additionalProperties": additional_properties,
        },
    )


def matches(expression: str, text: str) -> bool:
    """Whether a pattern of JSON Schema is found in a text."""
    import llguidance

    schema = {"type": "string", "pattern": expression, "x-guidance": _ANY_ESCAPE}
    matcher = llguidance.LLMatcher(_bytes(), f"start: %json {json.dumps(schema)}", log_level=0)
    # Only the control characters are escaped, and in the one way that the grammar takes.
    written = "".join(_ESCAPED.get(c) or (f"\\u{ord(c):04x}" if c < " " or c == "\x7f" else c) for c in text)
    document = f'"{written}"'.encode("utf-8", "replace")
    return matcher.try_consume_tokens(list(document)) == len(document) and matcher.is_accepting()


@lru_cache(maxsize=1)
def _bytes() -> Any:
    import llguidance

    vocabulary: Any = ByteTokenizer()  # whatever has its attributes will do
    return llguidance.LLTokenizer(vocabulary, slices=[])


def _library() -> Any:
    try:
        import jsonschema
    except ImportError as error:
        raise Unsupported(
            f"answer_format 'json' needs jsonschema ({error}); pip install 'mobilevlm_ros[typed]', or "
            "pip install jsonschema"
        ) from error
    return jsonschema
