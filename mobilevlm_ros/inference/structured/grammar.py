# SPDX-License-Identifier: Apache-2.0
"""Answers of a given format: which tokens may come next, so that nothing else can ever be generated."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import EngineError, IncompleteAnswer, OptionError, Unsupported
from mobilevlm_ros.inference.structured.formats import TYPED, number_pattern, read_schema
from mobilevlm_ros.inference.structured.schema_probe import probe
from mobilevlm_ros.inference.types import AnswerFormat
from mobilevlm_ros.processing.tokenizer import Tokenizer

_KEPT = 64
"""Schemas that are remembered, as usable or not."""

_JSON_STYLE = {
    # As json.dumps writes it, which is what models have read most; one way only, so that the confidence is
    # about values and not about blanks.
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "json_allowed_escapes": 'nrt\\"',
}


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
        self._schemas: dict[str, tuple[str, str]] = {}  # grammar and complaint

    def constraint(self, form: AnswerFormat) -> Generator[str, None, Constraint | None]:
        """What enforces a format, token by token; None where there is nothing to enforce.

        Yields '' while a schema that is new is tried out.

        Raises:
            OptionError: llguidance is not installed; the schema cannot be satisfied, uses keywords that are
                not supported, or is too complex.
            Busy: it could not be tried out.
        """
        if form.kind not in TYPED:
            return None
        library = _library(form.kind)
        if self._vocabulary is None:
            self._vocabulary = library.LLTokenizer(_Vocabulary(self._tokenizer), slices=[])
        limits = library.LLParserLimits(verbose_errors=False)
        grammar = yield from self._grammar(form)
        matcher = library.LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise _unusable(matcher.get_error())
        return Constraint(matcher, self._vocab_size, self._stop_ids, form)

    def _grammar(self, form: AnswerFormat) -> Generator[str, None, str]:
        """In llguidance's dialect of Lark. Every answer begins with a space: the tokenizer puts it there."""
        if form.kind != "json":
            return f'start: " " VALUE\nVALUE: /{number_pattern(form)}/\n'
        text = form.json_schema
        if text not in self._schemas:
            schema = {**_closed(read_schema(text)), "x-guidance": _JSON_STYLE}
            grammar = f'start: " " value\nvalue: %json {json.dumps(schema)}\n'
            complaint = yield from probe(grammar)
            if len(self._schemas) >= _KEPT:
                del self._schemas[next(iter(self._schemas))]
            self._schemas[text] = grammar, complaint
        grammar, complaint = self._schemas[text]
        if complaint:
            raise _unusable(complaint)
        return grammar


class Constraint:
    """The state of one answer. Use: `mask`, pick a token among them, `accept` it, until `finished`."""

    def __init__(self, matcher: Any, vocab_size: int, stop_ids: frozenset[int], form: AnswerFormat) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._stop_ids = stop_ids
        self._form = form
        self._ended = False

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may come next, bool[V]; never none. Raises OptionError for too complex a schema."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise _unusable(self._matcher.get_error())
        known = np.unpackbits(bits, bitorder="little")[: self._vocab_size].astype(np.bool_)
        allowed = np.zeros(self._vocab_size, np.bool_)
        allowed[: len(known)] = known
        stops = list(self._stop_ids)
        allowed[stops] = allowed[stops].any()
        if not allowed.any():
            raise OptionError("json_schema leaves no way to complete the answer: simplify it")
        return allowed

    def accept(self, token: int) -> None:
        """Tells which of the allowed tokens was taken; a stop token ends the answer."""
        if token in self._stop_ids:
            self._ended = True
        elif not self._matcher.consume_token(token):
            raise EngineError(
                f"token {token} is against the format of the answer: {self._matcher.get_error()}"
            )

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing else may follow."""
        return self._ended or (self._matcher.is_stopped() and not self._matcher.is_error())

    def check(self, text: str, limit: int, max_tokens: int) -> None:
        """Raises IncompleteAnswer if `text`, the answer so far, was cut off at `limit` tokens before it was
        complete.
        """
        if not self.finished:
            bound = "max_tokens): allow more, or ask for less"
            if limit < max_tokens:
                bound = "the context is full): shorten the question or the session"
            raise IncompleteAnswer(
                f"the answer is not a complete {self._form.kind} after {limit} tokens ({bound}; "
                f"so far {text[:80]!r}"
            )
        if self._form.kind == "json":
            try:
                json.loads(text)
            except ValueError as error:  # such as a number of more digits than Python reads
                raise EngineError(f"the answer is not JSON after all ({error}): {text[:80]!r}") from error


def _closed(schema: Any) -> Any:
    """The schema whose objects have no properties but those it lists, unless it says otherwise.

    By JSON Schema's default any others may follow, and a small model would invent them without end. Whatever
    conforms to the result conforms to the schema. Schemas that are merged with others stay as they are.
    """
    if not isinstance(schema, dict) or "allOf" in schema:
        return schema
    listed = schema.get("properties")
    if isinstance(listed, dict) and schema.keys() & {"anyOf", "oneOf", "$ref"}:
        return schema
    closed = dict(schema)
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict):
            closed[key] = {name: _closed(part) for name, part in value.items()}
        elif key in ("anyOf", "oneOf", "prefixItems") and isinstance(value, list):
            closed[key] = [_closed(part) for part in value]
        elif key == "items":
            closed[key] = _closed(value)
    required = schema.get("required", [])
    known = (
        isinstance(listed, dict) and isinstance(required, list) and all(str(n) in listed for n in required)
    )
    if known and "minProperties" not in schema:
        closed.setdefault("additionalProperties", False)
    return closed


class _Vocabulary:
    """The bytes of every token, as llguidance asks for them."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = range(tokenizer.vocab_size)
        self.tokens = [tokenizer.content(i) for i in ids]
        self.special_token_ids = [i for i in ids if not tokenizer.is_text(i)]
        self.eos_token_id = tokenizer.eos_id
        self._longest_first = {
            p: i for i, p in enumerate(self.tokens) if i not in self.special_token_ids and p
        }
        self._longest = max(map(len, self._longest_first), default=1)

    def __call__(self, text: bytes | str) -> list[int]:
        """Ids whose bytes are the text's, longest first: SentencePiece itself would put a space in front."""
        data = text.encode() if isinstance(text, str) else text
        ids, at = [], 0
        while at < len(data):
            ends = range(min(len(data), at + self._longest), at, -1)
            end = next((e for e in ends if data[at:e] in self._longest_first), at + 1)
            ids.append(self._longest_first.get(data[at:end], self.eos_token_id))
            at = end
        return ids


def _unusable(complaint: str) -> OptionError:
    """llguidance's complaint as one sentence: without the grammar's position and source."""
    lines = [line for line in complaint.splitlines() if line.strip()] or ["unknown"]
    why = lines[0].split("failed to compile JSON schema:")[-1].strip()
    if why.startswith("regex parse error") and len(lines) > 1:
        why = f"regex: {next((line for line in lines if line.startswith('error:')), why)}"
    return OptionError(f"json_schema cannot be used: {why}; correct or simplify it")


def _library(form: str) -> ModuleType:
    try:
        import llguidance
    except ImportError as error:
        raise Unsupported(
            f"answer_format {form!r} needs llguidance ({error}); pip install 'mobilevlm_ros[typed]', or "
            "pip install llguidance"
        ) from error
    return llguidance
