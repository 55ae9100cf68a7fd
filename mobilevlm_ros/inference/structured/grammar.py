# SPDX-License-Identifier: Apache-2.0
"""Answers of a given format: which tokens may come next, so that nothing else can ever be generated."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable
from types import ModuleType
from typing import Any

from mobilevlm_ros.errors import Unsupported
from mobilevlm_ros.inference.structured.conformance import check_schema
from mobilevlm_ros.inference.structured.constraint import Constraint, unusable
from mobilevlm_ros.inference.structured.formats import TYPED, number_pattern, read_schema, source
from mobilevlm_ros.inference.structured.number_digits import NumberDigits, leading_digits
from mobilevlm_ros.inference.structured.schema import closed
from mobilevlm_ros.inference.structured.schema_probe import probe
from mobilevlm_ros.inference.structured.vocabulary import Vocabulary
from mobilevlm_ros.inference.types import AnswerFormat
from mobilevlm_ros.processing.tokenizer import Tokenizer

_KEPT = 64
"""Schemas, regular expressions and grammars that are remembered, as usable or not."""

_JSON_STYLE: dict[str, Any] = {
    # As json.dumps writes it, which is what models have read most; one way only, so that the confidence is
    # about values and not about blanks.
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "json_allowed_escapes": 'nrt\\"',
    "coerce_one_of": True,  # as anyOf; the finished document is held to oneOf
}

_CONTROL = re.compile(r"\\u00[01][0-9a-f]|\\u007f|\x7f|\\b|\\f|\\\\[xuc]")
"""In a schema as json.dumps writes it: a control character, or a pattern that may mean one."""


class GrammarCompiler:
    """Makes the constraints of one model's answers. Costs nothing until the first typed answer.

    Args:
        tokenizer: the model's.
        vocab_size: size V of its logits.
        stop_ids: tokens that end an answer.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._stop_ids = frozenset(stop_ids) | {tokenizer.eos_id}
        self._vocabulary: Any = None
        self._leading = leading_digits(())
        self._tried: dict[tuple[str, str], tuple[str, str]] = {}  # grammar and complaint

    def constraint(self, form: AnswerFormat) -> Generator[str, None, Constraint | None]:
        """What enforces a format, token by token; None where there is nothing to enforce.

        Yields '' while a schema, regular expression or grammar that is new is tried out.

        Raises:
            OptionError: llguidance is not installed; the schema, regular expression or grammar cannot be
                satisfied, uses what is not supported, or is too complex.
            Busy: it could not be tried out.
        """
        if form.kind not in TYPED:
            return None
        library = _library(form.kind)
        if self._vocabulary is None:
            vocabulary: Any = Vocabulary(self._tokenizer)  # whatever has its attributes will do
            self._vocabulary = library.LLTokenizer(vocabulary, slices=[])
            self._leading = leading_digits(vocabulary.tokens)
        limits = library.LLParserLimits(verbose_errors=False)
        if form.kind == "json":
            check_schema(read_schema(form))
        grammar = yield from self._grammar(form)
        matcher = library.LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise unusable(form, matcher.get_error())
        digits = NumberDigits(self._leading) if form.kind == "json" else None
        return Constraint(matcher, self._tokenizer, self._vocab_size, self._stop_ids, form, digits)

    def _grammar(self, form: AnswerFormat) -> Generator[str, None, str]:
        """In llguidance's dialect of Lark. Every answer begins with a space: the tokenizer puts it there."""
        if form.kind in ("integer", "number"):
            return f'start: " " VALUE\nVALUE: /{number_pattern(form)}/\n'
        key = form.kind, source(form)
        if key not in self._tried:
            grammar = _translated(form)
            complaint = yield from probe(grammar)
            if len(self._tried) >= _KEPT:
                del self._tried[next(iter(self._tried))]
            self._tried[key] = grammar, complaint
        grammar, complaint = self._tried[key]
        if complaint:
            raise unusable(form, complaint)
        return grammar


def _translated(form: AnswerFormat) -> str:
    if form.kind == "json":
        schema = closed(read_schema(form))
        # Where a text needs other control characters than line ends and tabs, \u is a way to write them.
        more = "u" if _CONTROL.search(json.dumps(schema)) else ""
        style = {**_JSON_STYLE, "json_allowed_escapes": _JSON_STYLE["json_allowed_escapes"] + more}
        return f'start: " " value\nvalue: %json {json.dumps({**schema, "x-guidance": style})}\n'
    if form.kind == "regex":
        return f'start: " " VALUE\nVALUE: /{_library(form.kind).regex_to_lark(form.pattern, "d")}/\n'
    grammars = [{"lark_grammar": 'start: " " @answer'}, {"name": "answer", "lark_grammar": form.grammar}]
    return json.dumps({"grammars": grammars})


def _library(form: str) -> ModuleType:
    try:
        import llguidance
    except ImportError as error:
        raise Unsupported(
            f"answer_format {form!r} needs llguidance ({error}); pip install 'mobilevlm_ros[typed]', or "
            "pip install llguidance"
        ) from error
    return llguidance
