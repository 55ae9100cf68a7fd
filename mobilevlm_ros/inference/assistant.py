# SPDX-License-Identifier: Apache-2.0
"""Answers a question about a frame: assembles the prompt, reuses prefixes, decodes or scores choices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.base import KVCache
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import ContextOverflow, OptionError, RequestCancelled
from mobilevlm_ros.inference import choices as scoring
from mobilevlm_ros.inference.prefix_cache import PrefixCache
from mobilevlm_ros.inference.sampling import Sampler
from mobilevlm_ros.inference.sessions import Session
from mobilevlm_ros.inference.stopping import StopFilter
from mobilevlm_ros.inference.types import Answer, Frame, Latency, Request
from mobilevlm_ros.inference.validate import MAX_QUESTION, check_frame, check_request
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.prompt import TEMPLATES, image_question
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN, StreamDecoder

CAPTION_PROMPT = "Describe the scene."

Steps = Generator[str, None, Answer]
"""Work cut at token boundaries: yields text as it grows ('' between stages), returns the answer."""


@dataclass
class _Split:
    """Time spent in each part; time between a yield and `resume` belongs to someone else."""

    seconds: dict[str, float] = field(default_factory=dict)
    mark: float = field(default_factory=perf_counter)

    def lap(self, part: str) -> None:
        now = perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.mark
        self.mark = now

    def resume(self) -> None:
        self.mark = perf_counter()

    def latency(self) -> Latency:
        return Latency(**self.seconds)


@dataclass
class _Prompt:
    """A prompt that the model has read: KV, the logits after it (f32[V]), how much was reused."""

    cache: KVCache
    logits: NDArray[np.float32]
    tokens: int
    reused: int


class Assistant:
    """One model at work. Not thread-safe: everything runs on the thread of the inference worker.

    Args:
        runtime: the engines and tokenizer of a bundle.
        prefix_budget: bytes of image prefixes to keep; 0 keeps none.
        max_question: characters in a question.
        fast_preprocessing: OpenCV instead of PIL to resize frames (within the tolerance `processing.image`
            states).
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        prefix_budget: int = 256 << 20,
        max_question: int = MAX_QUESTION,
        fast_preprocessing: bool = True,
    ) -> None:
        self.runtime = runtime
        self.max_question = max_question
        self.fast_preprocessing = fast_preprocessing
        manifest = runtime.bundle.manifest
        self._template = TEMPLATES[manifest.template]
        self._aspect = manifest.image_aspect
        self._stop_ids = frozenset(manifest.stop_ids)
        self._images: PrefixCache[tuple[bytes, tuple[int, ...]]] = PrefixCache(prefix_budget)
        self._systems: dict[tuple[int, ...], KVCache] = {}
        self._last: tuple[Frame, NDArray[np.uint8], bytes] | None = None

    def ask(
        self,
        frame: Frame,
        request: Request,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer at once.

        Args:
            frame: the picture.
            request: the question.
            should_stop: asked before each stage and token; True cancels, and it may
                raise RequestTimeout itself.
            on_text: gets the text piece by piece as it grows.

        Raises:
            QuestionError, ImageError: the request or the frame cannot be used.
            ContextOverflow: the prompt leaves no room for an answer.
            RequestCancelled: should_stop() was true.
            EngineError: the backend failed.
        """
        steps = self.steps(frame, request)
        try:
            while True:
                if should_stop is not None and should_stop():
                    raise RequestCancelled("the request was cancelled before its answer was complete")
                piece = next(steps)
                if piece and on_text is not None:
                    on_text(piece)
        except StopIteration as end:
            answer: Answer = end.value
            return answer
        finally:
            steps.close()

    def caption(self, frame: Frame, prompt: str = CAPTION_PROMPT, max_tokens: int = 64) -> Steps:
        """Steps of a greedy description of the frame."""
        return self.steps(frame, Request(prompt, max_tokens=max_tokens))

    def steps_many(self, frame: Frame, requests: Sequence[Request]) -> Generator[str, None, list[Answer]]:
        """Answers to several requests about one frame, in their order: one encode, one shared prefix."""
        answers = []
        for request in requests:
            answers.append((yield from self.steps(frame, request)))
        return answers

    def steps(self, frame: Frame, request: Request, session: Session | None = None) -> Steps:
        """The same work as `ask`, one token boundary at a time; bad input raises at the first step."""
        if session is not None:
            raise OptionError("sessions are not supported yet: leave the session out")
        request = check_request(request, self.max_question)
        check_frame(frame)
        split = _Split()
        prompt = yield from self._read(frame, request, split)
        if request.choices:
            return self._choose(prompt, request, split)
        return (yield from self._decode(prompt, request, split))

    def forget(self) -> None:
        """Drop every kept image prefix."""
        self._images.clear()
        self._last = None

    def _read(self, frame: Frame, request: Request, split: _Split) -> Generator[str, None, _Prompt]:
        """Encode and prefill what is not known yet."""
        vision, language = self.runtime.vision, self.runtime.language
        head, tail = self._tokens(request)
        prefix = len(head) + vision.num_tokens
        if prefix + len(tail) >= language.max_length:
            raise ContextOverflow(
                f"the prompt takes {prefix + len(tail)} of {language.max_length} positions and leaves "
                "none for an answer: shorten the question"
            )
        pixels, digest = self._pixels(frame)
        key = (digest, head)
        known = self._images.get(key)
        new: list[NDArray[np.float32]] = []
        if known is None:
            image = vision.encode(pixels[None])[0]
            split.lap("encode")
            yield ""
            split.resume()
            known = self._systems.get(head)
            if known is None:
                new.append(language.embed(np.array(head, dtype=np.int64)))
            new.append(image)
        reused = 0 if known is None else known.length
        room = prefix + len(tail)
        if not request.choices:  # they are scored on copies
            room = min(language.max_length, room + request.max_tokens)
        cache = language.new_cache(1, room) if known is None else known.copy(capacity=room)
        new.append(language.embed(np.array(tail, dtype=np.int64)))
        logits = language.forward(np.concatenate(new)[None], cache)
        if reused < prefix:
            self._keep(cache, key, prefix)
        split.lap("prefill")
        yield ""
        split.resume()
        return _Prompt(cache, logits[0, -1], prefix + len(tail), reused)

    def _keep(self, cache: KVCache, key: tuple[bytes, tuple[int, ...]], prefix: int) -> None:
        """Snapshot the image prefix, and the system prompt the first time it is seen."""
        _, head = key
        if self._images.budget > 0:
            self._images.put(key, _snapshot(cache, prefix))
        if head not in self._systems:
            self._systems[head] = _snapshot(cache, len(head))

    def _choose(self, prompt: _Prompt, request: Request, split: _Split) -> Answer:
        sequences, owners = scoring.candidates(request.choices, self.runtime.tokenizer)
        longest = max(map(len, sequences))
        if prompt.tokens + longest > self.runtime.language.max_length:
            raise ContextOverflow(
                f"the prompt and its longest choice take {prompt.tokens + longest} of "
                f"{self.runtime.language.max_length} positions: shorten the question or the choices"
            )
        scores = scoring.score(prompt.logits, prompt.cache, self.runtime.language, sequences)
        odds = scoring.probabilities(scores, owners, len(request.choices))
        best = int(np.argmax(odds))
        split.lap("prefill")
        return Answer(
            text=request.choices[best],
            confidence=odds[best],
            choice_probabilities=odds,
            latency=split.latency(),
            prompt_tokens=prompt.tokens,
            reused_tokens=prompt.reused,
            finish_reason="choice",
        )

    def _decode(self, prompt: _Prompt, request: Request, split: _Split) -> Steps:
        tokenizer, language = self.runtime.tokenizer, self.runtime.language
        sampler = Sampler(request.temperature, request.top_p, request.seed, request.repetition_penalty)
        stream, shown = StreamDecoder(tokenizer), StopFilter(request.stop)
        pieces: list[str] = []
        probabilities: list[float] = []
        logits, finish = prompt.logits, "length"
        limit = min(request.max_tokens, language.max_length - prompt.tokens)
        while len(probabilities) < limit:
            token, probability = sampler.pick(logits)
            if token in self._stop_ids:
                finish = "stop"
                break
            probabilities.append(probability)
            pieces.append(shown.push(stream.push(token)))
            split.lap("decode")
            yield pieces[-1]
            split.resume()
            if shown.stopped:
                finish = "stop"
                break
            if len(probabilities) < limit:
                embedding = language.embed(np.array([token], dtype=np.int64))
                logits = language.forward(embedding[None], prompt.cache)[0, -1]
        pieces.append(shown.push(stream.flush()) + shown.flush())
        split.lap("decode")
        return Answer(
            text="".join(pieces).strip(),
            confidence=min(probabilities, default=0.0),  # a sentence is as sure as its least sure word
            latency=split.latency(),
            prompt_tokens=prompt.tokens,
            reused_tokens=prompt.reused,
            generated_tokens=len(probabilities),
            finish_reason=finish,
        )

    def _tokens(self, request: Request) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids before and after the image."""
        question = request.question
        if request.choices and not question.endswith(scoring.SHORT_ANSWER.strip()):
            question += scoring.SHORT_ANSWER
        text = self._template.render([(image_question(question), None)])
        ids = self.runtime.tokenizer.encode_prompt(text)
        at = ids.index(IMAGE_TOKEN)
        return tuple(ids[:at]), tuple(ids[at + 1 :])

    def _pixels(self, frame: Frame) -> tuple[NDArray[np.uint8], bytes]:
        """What the encoder will see, u8[S, S, 3], and its digest: the identity of a frame, never its stamp.

        A looping bag or a simulation that forgets its stamps must not get another picture's answer.
        """
        if self._last is None or self._last[0] is not frame:
            size = self.runtime.vision.image_size
            pixels = prepare(frame.image, size, aspect=self._aspect, fast=self.fast_preprocessing)
            digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
            self._last = (frame, pixels, digest)
        return self._last[1], self._last[2]


def _snapshot(cache: KVCache, length: int) -> KVCache:
    """The first `length` positions of a cache, without room to grow."""
    kept = cache.copy(capacity=cache.length)
    kept.truncate(length)
    return kept


def with_queue_time(answer: Answer, seconds: float) -> Answer:
    """The answer with the time it waited for its turn, in seconds."""
    return replace(answer, latency=replace(answer.latency, queue=max(0.0, seconds)))
