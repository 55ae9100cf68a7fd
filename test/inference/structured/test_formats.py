# SPDX-License-Identifier: Apache-2.0
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.structured.formats import check_format
from mobilevlm_ros.inference.types import AnswerFormat, Request, SamplingParams

GOOD = (
    Request("?"),
    Request("?", choices=("a", "b")),
    Request("?", choices=("a", "b"), answer_format=AnswerFormat("choice_list")),
    Request("?", answer_format=AnswerFormat("integer")),
    Request("?", answer_format=AnswerFormat("integer", minimum=-3, maximum=0)),
    Request("?", answer_format=AnswerFormat("number", minimum=0.1, maximum=0.2)),
    Request("?", answer_format=AnswerFormat("json", json_schema='{"type": "integer"}')),
)
BAD = {
    "one of integer": Request("?", answer_format=AnswerFormat("xml")),
    "without choices": Request("?", answer_format=AnswerFormat("choice_list")),
    "contradict": Request("?", choices=("a", "b"), answer_format=AnswerFormat("integer")),
    "leave stop empty": Request(
        "?", sampling=SamplingParams(stop=(".",)), answer_format=AnswerFormat("integer")
    ),
    "not below": Request("?", answer_format=AnswerFormat("integer", minimum=3, maximum=3)),
    "minimum 3 is not below maximum 1": Request(
        "?", answer_format=AnswerFormat("number", minimum=3, maximum=1)
    ),
    "no integer lies between": Request("?", answer_format=AnswerFormat("integer", minimum=0.2, maximum=0.8)),
    "no number lies between": Request("?", answer_format=AnswerFormat("number", minimum=1e-8, maximum=2e-8)),
    "out of reach": Request("?", answer_format=AnswerFormat("integer", minimum=0, maximum=1e16)),
    "minimum nan": Request("?", answer_format=AnswerFormat("number", minimum=float("nan"), maximum=1)),
    "maximum inf": Request("?", answer_format=AnswerFormat("number", minimum=0, maximum=float("inf"))),
    "leave them 0": Request("?", answer_format=AnswerFormat(minimum=1, maximum=2)),
    "json_schema is empty": Request("?", answer_format=AnswerFormat("json")),
    "pattern is empty": Request("?", answer_format=AnswerFormat("regex")),
    "grammar is empty": Request("?", answer_format=AnswerFormat("grammar", grammar=" ")),
    "only answer_format 'regex'": Request(
        "?", answer_format=AnswerFormat("grammar", pattern="a", grammar="start: /a/")
    ),
    "only answer_format 'json'": Request("?", answer_format=AnswerFormat(json_schema="{}")),
    "is not JSON": Request("?", answer_format=AnswerFormat("json", json_schema="{")),
    "NaN is no JSON number": Request("?", answer_format=AnswerFormat("json", json_schema='{"const": NaN}')),
    "is a JSON list": Request("?", answer_format=AnswerFormat("json", json_schema="[]")),
    "1048578 characters": Request(
        "?", answer_format=AnswerFormat("json", json_schema='"' + "x" * 2**20 + '"')
    ),
    # Python 3.13's parser goes deeper, and finds the end missing.
    "recursion|is not JSON": Request("?", answer_format=AnswerFormat("json", json_schema='{"items":' * 7000)),
}


@pytest.mark.parametrize("request_", GOOD, ids=lambda r: r.answer_format or "free")
def test_fields_that_go_together(request_: Request) -> None:
    check_format(request_)


@pytest.mark.parametrize("message", BAD)
def test_fields_that_do_not_say_so(message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_format(BAD[message])


@given(st.floats(), st.floats(), st.sampled_from(["integer", "number"]), st.text())
def test_any_range_and_schema_is_accepted_or_refused(low: float, high: float, form: str, schema: str) -> None:
    for request in (
        Request("?", answer_format=AnswerFormat(form, minimum=low, maximum=high)),
        Request("?", answer_format=AnswerFormat("json", json_schema=schema)),
    ):
        with contextlib.suppress(OptionError):
            check_format(request)
