# SPDX-License-Identifier: Apache-2.0
"""The answer formats of a request: which exist, and which fields go together."""

from __future__ import annotations

import json
import math

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.arguments import check_number
from mobilevlm_ros.inference.structured.decimals import decimal_pattern
from mobilevlm_ros.inference.types import AnswerFormat, Request

ANSWER_FORMATS = ("integer", "number", "choice_list", "json")
TYPED = ("integer", "number", "json")
"""Formats that are enforced token by token while the answer is generated."""

LARGEST = 999_999_999_999_999.0
"""Bound of a number's magnitude: 15 digits, which a float64 holds exactly."""

PLACES = 6
"""Digits after the point of a 'number'; without a bound a model may write thirds for ever."""

MAX_SCHEMA = 65_536
"""Characters in a JSON Schema."""


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
    if form.kind == "json":
        read_schema(form.json_schema)
    elif form.json_schema:
        raise OptionError("json_schema is given, which only answer_format 'json' uses: leave it empty")


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


def read_schema(text: str) -> dict[str, object]:
    """A JSON Schema from its text. Raises OptionError if it is missing, too long, or not a JSON object."""
    if not isinstance(text, str):
        raise OptionError(f"json_schema is a {type(text).__name__}: give its text, json.dumps(schema)")
    if not text.strip():
        raise OptionError(
            "json_schema is empty: answer_format 'json' needs one, such as "
            '{"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}'
        )
    if len(text) > MAX_SCHEMA:
        raise OptionError(f"json_schema has {len(text)} characters: shorten it to {MAX_SCHEMA} or fewer")
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
