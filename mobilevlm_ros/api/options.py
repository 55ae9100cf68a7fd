# SPDX-License-Identifier: Apache-2.0
"""What may be said with a question, and the request that it makes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, TypedDict

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.arguments import text_list
from mobilevlm_ros.inference.types import AnswerFormat, Region, Request, SamplingParams
from mobilevlm_ros.inference.validate import check_request

_SAMPLING = tuple(SamplingParams.__dataclass_fields__)


class AskOptions(TypedDict, total=False):
    """What may be said with a question; all of it optional.

    Attributes:
        choices: possible answers, at least two; each gets a probability and nothing is generated.
        answer_format: 'integer', 'number', 'choice_list', 'json', 'regex' or 'grammar'. Left out: 'json' with
            a json_schema, 'regex' with a pattern, 'grammar' with a grammar, else free text.
        minimum, maximum: range of an 'integer' or 'number'.
        json_schema: of a 'json' answer: a JSON Schema as dict or text.
        pattern: of a 'regex' answer: a regular expression that the whole answer matches.
        grammar: of a 'grammar' answer: a grammar in llguidance's dialect of Lark.
        abstain_threshold: 0 to 1; an answer less sure than that is withheld (`Answer.abstained`).
        region: the part of the picture that is asked about: (x, y, width, height) in pixels, or a Region.
        region_with_frame: show the whole picture and the region, not the region alone.
        system_prompt: text before the conversation, in place of the model's own.
        max_tokens: most tokens that are generated; 64 by default.
        temperature: 0, the default, is greedy; above 0 samples.
        top_p: nucleus of the sampled distribution, above 0 and up to 1.
        seed: of the sampling; the same seed gives the same answer.
        repetition_penalty: 0.5 to 2; above 1 makes words that were said less probable.
        stop: texts that end the answer where they appear.
        logprobs, top_logprobs: report the log-probability of each token, and of the 0 to 20 most probable
            tokens at each place (`Answer.logprobs`).
        timeout: seconds until RequestTimeout; None waits until the answer is complete.
    """

    choices: Sequence[str]
    answer_format: str
    minimum: float
    maximum: float
    json_schema: str | Mapping[str, Any]
    pattern: str
    grammar: str
    abstain_threshold: float
    region: Region | tuple[int, int, int, int]
    region_with_frame: bool
    system_prompt: str
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    repetition_penalty: float
    stop: Sequence[str]
    logprobs: bool
    top_logprobs: int
    timeout: float | None


def request_of(question: str | Request, options: AskOptions) -> Request:
    """The checked request of a question and its options.

    Raises:
        QuestionError: the question or an option cannot be used.
        TypeError: there is no such option.
    """
    known = AskOptions.__annotations__
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"use {', '.join(known)}"
            raise TypeError(f"there is no option {name!r}: {hint}")
    if isinstance(question, Request):
        return check_request(question)
    sampling = {name: options[name] for name in _SAMPLING if name in options}  # type: ignore[literal-required]
    if "stop" in sampling:
        sampling["stop"] = text_list(sampling["stop"], "stop")
    return check_request(
        Request(
            question,
            choices=text_list(options.get("choices", ()), "choices"),
            abstain_threshold=options.get("abstain_threshold", 0.0),
            system_prompt=options.get("system_prompt", ""),
            region=_region(options.get("region")),
            region_with_frame=options.get("region_with_frame", False),
            sampling=SamplingParams(**sampling),
            answer_format=_answer_format(options),
        )
    )


def _answer_format(options: AskOptions) -> AnswerFormat:
    schema, pattern, grammar = options.get("json_schema"), options.get("pattern"), options.get("grammar")
    implied = "json" if schema else "regex" if pattern else "grammar" if grammar else ""
    return AnswerFormat(
        options.get("answer_format", implied),
        options.get("minimum", 0.0),
        options.get("maximum", 0.0),
        _schema_text(schema or ""),
        pattern or "",
        grammar or "",
    )


def _schema_text(schema: str | Mapping[str, Any]) -> str:
    if isinstance(schema, str):
        return schema
    try:
        return json.dumps(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"json_schema cannot be written as JSON ({error}): give a JSON Schema") from error


def _region(region: Region | Sequence[int] | None) -> Region | None:
    if region is None or isinstance(region, Region):
        return region
    numbers = [part for part in region if isinstance(part, Integral)] if isinstance(region, Sequence) else []
    if len(numbers) != 4:
        raise OptionError(f"region is {region!r}: give (x, y, width, height) in whole pixels")
    return Region(*map(int, numbers))


def shortened(question: str | Request) -> str:
    """The question in quotes, for messages and reprs: at most 40 characters of it."""
    text = question.question if isinstance(question, Request) else question
    return repr(text if len(text) <= 40 else text[:39] + "…")
