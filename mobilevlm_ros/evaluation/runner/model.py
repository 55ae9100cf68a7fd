# SPDX-License-Identifier: Apache-2.0
"""One model under examination: greedy answers to the official prompts, those about one picture together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import ContextOverflow
from mobilevlm_ros.evaluation.benchmarks.types import Question
from mobilevlm_ros.evaluation.runner.prompts import pixels, render
from mobilevlm_ros.inference.batch import decoding as batch
from mobilevlm_ros.inference.cache.prefill import Prefiller, prefill_chunk
from mobilevlm_ros.inference.choices.choice_set import ChoiceSet
from mobilevlm_ros.inference.generation.decoding import AnswerDecoder, decode
from mobilevlm_ros.inference.prompt.conversation import PromptTokens
from mobilevlm_ros.inference.prompt.image_views import ImageInput
from mobilevlm_ros.inference.prompt_builder import Prompt
from mobilevlm_ros.inference.steps import finish
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.types import SamplingParams
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN

SHORT = 32
"""Tokens that answers are first written to side by side: nearly all end before, and one that does not is
written again alone to its own limit. Room for 1024 tokens each would leave no context for a batch."""

_PREFIXES = 256 << 20  # bytes of KV: the system prompt and the latest pictures
_NO_CHOICES = ChoiceSet((), (), ())


@dataclass(frozen=True)
class Written:
    """An answer: its text as the official loop writes it, and its token ids."""

    text: str
    tokens: tuple[int, ...]


class ExaminedModel:
    """Answers questions exactly as the official loops put them: greedy, no cleaning, no cut, no keyword.

    Args:
        runtime: the model.
        together: questions about one picture share its prefix and are written side by side where the engine
            can. False: each on its own, as the official loops do, for measuring.
    """

    def __init__(self, runtime: Runtime, together: bool = True) -> None:
        self.runtime = runtime
        self._together = together
        self._stop_ids = frozenset(runtime.bundle.manifest.stop_ids)
        budget = _PREFIXES if together else 0
        self._prefiller = Prefiller(runtime.vision, runtime.language, budget, prefill_chunk(runtime))

    def answer(self, questions: Sequence[Question]) -> list[Written]:
        """Answers to questions about the same pictures (or one question without any), in their order.

        Raises EvaluationError for a picture that cannot be read, ContextOverflow for a prompt that leaves no
        room for an answer, EngineError.
        """
        views = self._views(questions[0])
        prompts = [self._prompt(question, views) for question in questions]
        answers: dict[int, Written] = {}
        if self._together and views:
            answers = self._side_by_side(dict(enumerate(prompts)), questions)
        for i, (question, prompt) in enumerate(zip(questions, prompts)):
            if i not in answers:
                answers[i] = self._alone(prompt, question.max_tokens)
        return [answers[i] for i in range(len(questions))]

    def ids(self, question: Question) -> list[int]:
        """The prompt's token ids, IMAGE_TOKEN for the picture."""
        return self.runtime.tokenizer.encode_prompt(render(question, self.runtime.bundle.manifest.template))

    def _views(self, question: Question) -> tuple[ImageInput, ...]:
        manifest = self.runtime.bundle.manifest
        shown = [pixels(p, manifest.image_size, manifest.image_aspect) for p in question.pictures]
        return tuple(ImageInput(p, hashlib.blake2b(p.tobytes(), digest_size=16).digest()) for p in shown)

    def _prompt(self, question: Question, views: tuple[ImageInput, ...]) -> Prompt:
        digests = iter([view.digest for view in views])
        tokens: PromptTokens = tuple(next(digests) if i == IMAGE_TOKEN else i for i in self.ids(question))
        taken, context = self._prefiller.positions(tokens), self.runtime.language.max_length
        if taken >= context:
            raise ContextOverflow(
                f"question {question.question_id} (row {question.row}) takes {taken} of {context} positions "
                "and leaves no room for an answer"
            )
        return Prompt(tokens, views, question.prompt, (), _NO_CHOICES, question.max_tokens)

    def _side_by_side(self, prompts: dict[int, Prompt], questions: Sequence[Question]) -> dict[int, Written]:
        """Those that end within SHORT tokens, or within their own limit."""
        tasks = {
            i: batch.Task(prompt, self._decoder(prompt, min(SHORT, questions[i].max_tokens)))
            for i, prompt in prompts.items()
        }
        done: dict[int, Written] = {}
        for group in batch.groups(tasks, self._prefiller, self.runtime.language):
            finish(batch.decode_group(self._prefiller, group, self.runtime.language))
            for i, task in group.items():
                decoder = task.decoder
                if decoder.finish == "stop" or len(decoder.tokens) >= questions[i].max_tokens:
                    done[i] = self._written(decoder.tokens)
        return done

    def _alone(self, prompt: Prompt, max_tokens: int) -> Written:
        watch = Stopwatch()
        decoder = self._decoder(prompt, max_tokens)
        read = finish(self._prefiller.read(prompt.prompt_tokens, prompt.views, decoder.limit, watch))
        finish(decode(read, decoder, self.runtime.language, watch))
        return self._written(decoder.tokens)

    def _decoder(self, prompt: Prompt, max_tokens: int) -> AnswerDecoder:
        left = self.runtime.language.max_length - self._prefiller.positions(prompt.prompt_tokens)
        limit = min(max_tokens, left)
        return AnswerDecoder(
            SamplingParams(max_tokens=max_tokens), self.runtime.tokenizer, self._stop_ids, limit
        )

    def _written(self, tokens: Sequence[int]) -> Written:
        """As the official loop decodes: special tokens skipped, stripped, a trailing '</s>' taken off."""
        text = self.runtime.tokenizer.decode(tokens).strip().removesuffix("</s>").strip()
        return Written(text, tuple(tokens))
