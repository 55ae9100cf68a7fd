# SPDX-License-Identifier: Apache-2.0
"""The answer formats of a request: which exist, and which fields go together."""

from __future__ import annotations

import json
import math

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.arguments import check_number
from mobilevlm_ros.inference.structured.decimals import decimal_pattern
from mobilevlm_ros.inference.types import AnswerFormat, Request

ANSWER_FORMATS = ("integer", "number", "choice_list", "json", "regex", "grammar")
TYPED = ("integer", "number", "json", "regex", "grammar")
"""Formats that are enforced token by token while the answer is generated."""

LARGEST = 999_999_999_999_999.0
"""Bound of a number's magnitude: 15 digits, which a float64 holds exactly."""

PLACES = 6
"""Digits after the point of a 'number'; without a bound a model may write thirds for ever."""

MAX_SCHEMA = 65_536
"""Characters in a JSON Schema, a regular expression or a grammar."""

_SOURCES = {"json": "json_schema", "regex": "pattern", "grammar": "grammar"}
"""The field that describes the answers of a format."""

_EXAMPLES = {
    "json": '{"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}',
    "regex": "[A-Z]{2}-[0-9]{3}",
    "grammar": 'start: "on the " SIDE, and on the next line SIDE: "left" | "right"',
}


def check_format(request: Request) -> None:
    """Raises OptionError where the answer's format, its range or schema, choices and stop disagree."""
    form = request.answer_format
    if not isinstance(form, AnswerFormat):
        raise OptionError(f"answer_format is {form!r}: give AnswerFormat({form!r})")
    for name in ("minimum", "maximum"):
        check_number(getattr(form, name), name)
    if form.kind not in ("", *ANSWER_FORMATS):
        raise OptionError(
            f"answer_format is {form.kind!r}: leave it empty for free text, or give one of "
            + ", ".join(ANSWER_FORMATS)
        )
    if form.kind == "choice_list" and not request.choices:
        raise OptionError("answer_format 'choice_list' is given without choices: list at least two")
    if form.kind in TYPED and request.choices:
        raise OptionError(
            f"answer_format {form.kind!r} and choices contradict each other: leave one of them out"
        )
    if form.kind and request.sampling.stop:
        raise OptionError(f"stop cuts an answer that has a format ({form.kind}): leave stop empty")
    if form.kind in ("integer", "number"):
        number_pattern(form)
    elif form.minimum != 0 or form.maximum != 0:
        raise OptionError(
            f"minimum and maximum are {form.minimum:g} and {form.maximum:g}, which only answer_format "
            "'integer' or 'number' uses: leave them 0"
        )
    for kind, field in _SOURCES.items():
        if form.kind != kind and getattr(form, field):
            raise OptionError(f"{field} is given, which only answer_format {kind!r} uses: leave it empty")
    if form.kind == "json":
        read_schema(form)
    elif form.kind in _SOURCES:
        source(form)


def source_name(form: AnswerFormat) -> str:
    """Name of the field that describes the answers of a 'json', 'regex' or 'grammar' format."""
    return _SOURCES[form.kind]


def source(form: AnswerFormat) -> str:
    """That field's text. Raises OptionError if it is missing, no text, or too long."""
    name = source_name(form)
    text = getattr(form, name)
    if not isinstance(text, str):
        raise OptionError(
            f"{name} is a {type(text).__name__}: give its text"
            + ", json.dumps(schema)" * (form.kind == "json")
        )
    if not text.strip():
        raise OptionError(
            f"{name} is empty: answer_format {form.kind!r} needs one, such as {_EXAMPLES[form.kind]}"
        )
    if len(text) > MAX_SCHEMA:
        raise OptionError(f"{name} has {len(text)} characters: shorten it to {MAX_SCHEMA} or fewer")
    return text


def number_pattern(form: AnswerFormat) -> str:
    """Regular expression of an 'integer' or 'number'. Raises OptionError for a range that cannot be used."""
    low, high = form.minimum, form.maximum
    if low == high == 0:
        low, high = -LARGEST, LARGEST
    if not (math.isfinite(low) and math.isfinite(high) and max(abs(low), abs(high)) <= LARGEST):
        raise OptionError(f"minimum {low:g} or maximum {high:g} is out of reach: give up to 15 digits")
    if low >= high:
        raise OptionError(
            f"minimum {low:g} is not below maximum {high:g}: give minimum < maximum, or leave both 0 for "
            "any number"
        )
    pattern = decimal_pattern(low, high, 0 if form.kind == "integer" else PLACES)
    if not pattern:
        raise OptionError(
            f"no {form.kind} lies between minimum {low:g} and maximum {high:g}: widen the range"
        )
    return pattern


def read_schema(form: AnswerFormat) -> dict[str, object]:
    """The JSON Schema of a format. Raises OptionError if it is missing, too long, or not a JSON object."""
    text = source(form)
    try:
        schema = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"json_schema is not JSON ({error}): correct it") from error
    if not isinstance(schema, dict):
        raise OptionError(
            f'json_schema is a JSON {type(schema).__name__}: give an object, such as {{"type": "integer"}}'
        )
    return schema


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")
