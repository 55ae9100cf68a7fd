# SPDX-License-Identifier: Apache-2.0
"""Answers questions about frames: one model, its memory of pictures, and the work cut at token boundaries."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import EngineError
from mobilevlm_ros.inference.batch import choices as batch_choices
from mobilevlm_ros.inference.batch import decoding as batch_decoding
from mobilevlm_ros.inference.cache.prefill import Prefiller, SequenceCache, prefill_chunk
from mobilevlm_ros.inference.cache.sessions import Session
from mobilevlm_ros.inference.choices import multi_label
from mobilevlm_ros.inference.choices.calibration import Calibration
from mobilevlm_ros.inference.generation.decoding import AnswerDecoder, TokenConstraint, decode
from mobilevlm_ros.inference.generation.prompt_lookup import DRAFT_LENGTHS, Drafts
from mobilevlm_ros.inference.prompt.conversation import Turn
from mobilevlm_ros.inference.prompt.image_views import ImagePreparer
from mobilevlm_ros.inference.prompt_builder import Prompt, PromptBuilder
from mobilevlm_ros.inference.steps import Steps, finish, silently
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.structured.grammar import GrammarCompiler
from mobilevlm_ros.inference.types import Answer, Frame, Frames, Request, SamplingParams
from mobilevlm_ros.inference.validate import MAX_QUESTION, check_frames, check_request

CAPTION_PROMPT = "Describe the scene."

SESSION_ROOM = 256
"""Positions added to a session's cache, so that most follow-ups need not copy it."""


class Assistant:
    """One model at work. Not thread-safe: everything runs on the thread of the inference worker.

    Args:
        runtime: the engines and tokenizer of a bundle.
        prefix_budget: bytes of KV to keep for system prompts and pictures; 0 keeps none.
        max_question: characters in a question.
        fast_preprocessing: OpenCV instead of PIL to resize frames (within the tolerance `processing.image`
            states).
        system_prompt: text before a conversation that has none of its own; empty: the template's. Another
            one: `with_system_prompt`.
        calibrate: rescale the probabilities of choices as the bundle's calibration says, where it has one.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        prefix_budget: int = 256 << 20,
        max_question: int = MAX_QUESTION,
        fast_preprocessing: bool = True,
        system_prompt: str = "",
        calibrate: bool = True,
    ) -> None:
        self.runtime = runtime
        self.max_question = max_question
        self._system_prompt = system_prompt
        manifest = runtime.bundle.manifest
        self._stop_ids = frozenset(manifest.stop_ids)
        self._image_preparer = ImagePreparer(manifest.image_size, manifest.image_aspect, fast_preprocessing)
        self._prompter = PromptBuilder(
            runtime, self._image_preparer, Calibration.load(runtime.bundle) if calibrate else None
        )
        self._grammars = GrammarCompiler(runtime.tokenizer, runtime.language.vocab_size, manifest.stop_ids)
        self._drafts = Drafts(runtime)
        self._prefiller = Prefiller(runtime.vision, runtime.language, prefix_budget, prefill_chunk(runtime))

    def __repr__(self) -> str:
        return f"Assistant({self.runtime.bundle.manifest.name!r}, {self.runtime.backend_name})"

    def ask(
        self,
        frames: Frames,
        request: Request,
        session: Session | None = None,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer at once.

        Args:
            frames: the picture, or several that the question is about, oldest first.
            request: the question.
            session: the conversation it continues; None: none.
            should_stop: asked before each stage and token; True cancels, and it may
                raise RequestTimeout itself.
            on_text: gets the text piece by piece as it grows.

        Raises:
            QuestionError, ImageError: the request or a frame cannot be used.
            ContextOverflow: the prompt leaves no room for an answer.
            RequestCancelled: should_stop() was true.
            EngineError: the backend failed, or memory ran out.
            Busy: the session is answering another question.
        """
        return finish(self.steps(frames, request, session), should_stop, on_text)

    def caption(self, frame: Frame, prompt: str = CAPTION_PROMPT, max_tokens: int = 64) -> Steps:
        """Steps of a greedy description of the frame; the one before it, of the same camera, is its draft."""
        return self._steps(
            frame, Request(prompt, sampling=SamplingParams(max_tokens=max_tokens)), drafted=True
        )

    def steps(self, frames: Frames, request: Request, session: Session | None = None) -> Steps:
        """The same work as `ask`, one token boundary at a time; bad input raises at the first step.

        In a session, `session.frames` with no region stand for the pictures of the question before.
        Unless the last step is taken, the session stays as it was.
        """
        return self._steps(frames, request, session)

    def _steps(
        self, frames: Frames, request: Request, session: Session | None = None, drafted: bool = False
    ) -> Steps:
        request = check_request(request, self.max_question)
        shown = check_frames(frames)
        with self._memory():
            if session is not None:
                return (yield from self._turn(shown, request, session, SESSION_ROOM))
            # Nobody will continue it, and only the context bounds it.
            alone = Session(token_budget=self.runtime.language.max_length)
            spare = DRAFT_LENGTHS[-1] if drafted else 0
            return replace((yield from self._turn(shown, request, alone, spare, drafted)), session_turn=0)

    def steps_many(self, frames: Frames, requests: Sequence[Request]) -> Generator[str, None, list[Answer]]:
        """Answers to several requests about one frame (or the same several), in their order: but for
        rounding, those one by one.

        One encode and one prefix. Questions whose choices differ in their first token are read together;
        free answers are written side by side where the engine can, the others in turn. Yields '' at token
        boundaries. Latencies are shares of the work done together.
        """
        checked = [check_request(request, self.max_question) for request in requests]
        shown = check_frames(frames)
        answers: dict[int, Answer] = {}
        with self._memory():
            prompts = {
                i: self._prompter.prompt(shown, request, Session(), self._system_prompt)
                for i, request in enumerate(checked)
                if request.answer_format.kind != "choice_list"
            }
            chosen = {i: prompt for i, prompt in prompts.items() if prompt.options.longest}
            language = self.runtime.language
            found = yield from batch_choices.choose_all(self._prefiller, list(chosen.values()), language)
            answers.update(zip(chosen, found, strict=True))
            tasks = {}
            for i in [i for i in prompts if i not in chosen]:
                tasks[i] = yield from self._task(prompts[i], checked[i])
            for group in batch_decoding.groups(tasks, self._prefiller, language):
                answers.update((yield from batch_decoding.decode_group(self._prefiller, group, language)))
        for i, request in enumerate(checked):
            if i in answers:
                answers[i] = answers[i].above(request.abstain_threshold)
            else:
                answers[i] = yield from silently(self.steps(shown, request))
        return [answers[i] for i in range(len(checked))]

    def with_system_prompt(self, system_prompt: str) -> Assistant:
        """The same assistant, with all that it remembers, but with this text before a conversation.

        May be called from any thread; this one stays as it is. Each distinct text is read once.
        """
        other = copy.copy(self)
        other._system_prompt = system_prompt
        return other

    @property
    def prefix_bytes(self) -> int:
        """Bytes of KV kept for system prompts and pictures; at most `prefix_budget`."""
        return self._prefiller.nbytes

    def forget(self) -> None:
        """Drop every kept picture and prefix."""
        self._prefiller.clear()
        self._image_preparer.clear()

    def _turn(
        self, frames: tuple[Frame, ...], request: Request, session: Session, spare: int, drafted: bool = False
    ) -> Steps:
        """One question of a conversation; `spare` positions are left for the next ones, or for a draft."""
        language = self.runtime.language
        # A schema that cannot be used is refused before the picture is read.
        constraint = yield from self._grammars.constraint(request.answer_format)
        watch = Stopwatch()
        with session.turn() as sequence:
            if frames == session.frames and request.region is None:
                request = replace(request, region=session.region, region_with_frame=session.region_with_frame)
            if request.answer_format.kind == "choice_list":
                answer = yield from self._list(frames, request, session)
                return answer.above(request.abstain_threshold)
            prompt = self._prompter.prompt(frames, request, session, self._system_prompt)
            read = yield from self._prefiller.read(
                prompt.prompt_tokens, prompt.views, prompt.reserve, watch, sequence, spare
            )
            if request.choices:
                chosen = prompt.options.answer(read.logits, read.cache, language)
                answer = yield from watch.timed("prefill", chosen)
                prompt_tokens = read.prompt_tokens
            else:
                decoder = self._decoder(request, read.tokens, constraint, DRAFT_LENGTHS[-1] if drafted else 0)
                draft = self._drafts.of(frames[-1].camera, read.cache, decoder.limit) if drafted else None
                generation = yield from decode(read, decoder, language, watch, draft)
                answer = generation.answer()
                prompt_tokens = (*read.prompt_tokens, *generation.tokens[: read.cache.length - read.tokens])
            forgotten = _commit(
                session,
                frames,
                request,
                prompt,
                answer.text,
                SequenceCache(prompt_tokens, read.cache, read.cache.length),
            )
        answer = replace(
            answer,
            latency=watch.latency(),
            prompt_tokens=read.tokens,
            reused_tokens=read.reused,
            session_turn=session.answered,
            forgotten_turns=forgotten,
        )
        return answer.above(request.abstain_threshold)

    def _task(self, prompt: Prompt, request: Request) -> Generator[str, None, batch_decoding.Task]:
        constraint = yield from self._grammars.constraint(request.answer_format)
        return batch_decoding.Task(
            prompt, self._decoder(request, self._prefiller.positions(prompt.prompt_tokens), constraint)
        )

    def _decoder(
        self, request: Request, taken: int, constraint: TokenConstraint | None, spare: int = 0
    ) -> AnswerDecoder:
        """Of the answer to a prompt that takes so many positions; it leaves `spare` where more are left."""
        left = self.runtime.language.max_length - taken
        limit = min(request.sampling.max_tokens, left - spare if left > spare else left)
        return AnswerDecoder(request.sampling, self.runtime.tokenizer, self._stop_ids, limit, constraint)

    def _list(self, frames: tuple[Frame, ...], request: Request, session: Session) -> Steps:
        """Each choice on its own, side by side; the conversation remembers one question and one answer."""
        prompts = [
            self._prompter.prompt(frames, question, session, self._system_prompt)
            for question in multi_label.questions(request)
        ]
        answers = yield from batch_choices.choose_all(self._prefiller, prompts, self.runtime.language)
        answer = multi_label.combine(request, answers)
        shortest = min(prompts, key=lambda prompt: len(prompt.turns))
        shortest = replace(shortest, question=request.question)
        forgotten = _commit(session, frames, request, shortest, answer.text, session.sequence)
        return replace(answer, session_turn=session.answered, forgotten_turns=forgotten)

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Where memory runs out, give back what was kept and say so."""
        try:
            yield
        except MemoryError as error:
            self.forget()
            raise EngineError(
                "memory ran out; the kept pictures were forgotten to make room: ask again, or lower the "
                "budgets of prefixes and sessions"
            ) from error


def _commit(
    session: Session,
    frames: tuple[Frame, ...],
    request: Request,
    prompt: Prompt,
    answer: str,
    sequence: SequenceCache | None,
) -> int:
    """Put the answered question into its session; returns how many turns were forgotten for it."""
    forgotten = len(session.turns) - len(prompt.turns)
    session.frames, session.region = frames, request.region
    session.region_with_frame = request.region_with_frame
    session.system_prompt = request.system_prompt or session.system_prompt
    session.commit(prompt.turns, Turn(prompt.question, answer), sequence)
    return forgotten
