# SPDX-License-Identifier: Apache-2.0
"""From a request, its frame and its conversation to the prompt that answers it, cut to fit the context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import ContextOverflow, OptionError
from mobilevlm_ros.inference.cache.sessions import Session
from mobilevlm_ros.inference.choices.calibration import Calibration
from mobilevlm_ros.inference.choices.choice_set import ChoiceSet
from mobilevlm_ros.inference.choices.scoring import SHORT_ANSWER
from mobilevlm_ros.inference.prompt.conversation import PromptTokens, Turn, compose, positions
from mobilevlm_ros.inference.prompt.image_views import ImageInput, ImagePreparer
from mobilevlm_ros.inference.types import Frame, Request
from mobilevlm_ros.processing.prompt_template import TEMPLATES

ANSWER_ROOM = 128
"""Positions that a conversation leaves for an answer before it forgets: a large max_tokens must not empty
it."""

FORGET_TO = 0.75
"""Part of the token budget that is left when turns are forgotten: what remains has to be read again, which is
paid once for several turns then, not for each one."""


@dataclass(frozen=True)
class Prompt:
    """What the model is to read.

    Attributes:
        prompt_tokens: the prompt.
        views: its pictures, in order.
        question: as the model reads it.
        turns: of the conversation, those that still fit.
        options: the choices; no sequences where there are none.
        reserve: positions that an answer can need, as far as the context allows.
    """

    prompt_tokens: PromptTokens
    views: tuple[ImageInput, ...]
    question: str
    turns: tuple[Turn, ...]
    options: ChoiceSet
    reserve: int


class PromptBuilder:
    """Makes prompts for one model.

    Args:
        runtime: of the bundle.
        image_preparer: prepares the pictures.
        calibration: of the bundle, for the probabilities of choices; None where it has none.
    """

    def __init__(
        self, runtime: Runtime, image_preparer: ImagePreparer, calibration: Calibration | None = None
    ) -> None:
        self._calibration = calibration
        self._template = TEMPLATES[runtime.bundle.manifest.template]
        self._tokenizer = runtime.tokenizer
        self._image_preparer = image_preparer
        self._image_tokens = runtime.vision.num_tokens
        self._context = runtime.language.max_length

    def prompt(
        self, frames: Sequence[Frame], request: Request, session: Session, system_prompt: str = ""
    ) -> Prompt:
        """The prompt of a checked request.

        The oldest turns of the session are left out where all would not fit.

        Args:
            frames: the pictures, oldest first.
            request: its own system prompt goes first, then the session's, then `system_prompt`.
            session: not changed.
            system_prompt: empty for the template's.

        Raises:
            OptionError: the region leaves the picture, or there are several pictures.
            ContextOverflow: not even the question alone fits.
        """
        if len(frames) > 1 and request.region is not None:
            raise OptionError(
                f"a region was given with {len(frames)} pictures: leave it out, or ask about one picture"
            )
        region = request.region, request.region_with_frame
        views = tuple(view for frame in frames for view in self._image_preparer.views(frame, *region))
        digests = [view.digest for view in views]
        system_prompt = request.system_prompt or session.system_prompt or system_prompt
        question = request.question
        short = request.choices or request.answer_format.kind in ("integer", "number")
        if short and not question.endswith(SHORT_ANSWER.strip()):
            question += SHORT_ANSWER
        options = ChoiceSet.of(request.choices, self._tokenizer, self._calibration)

        def tokens_after(turns: tuple[Turn, ...]) -> tuple[PromptTokens, int]:
            prompt_tokens = compose(self._template, self._tokenizer, system_prompt, digests, turns, question)
            return prompt_tokens, positions(prompt_tokens, self._image_tokens)

        reserve = options.longest or min(request.sampling.max_tokens, ANSWER_ROOM)
        limit = min(session.token_budget, self._context)
        turns = session.turns
        prompt_tokens, taken = tokens_after(turns)
        if taken + reserve > limit:
            while turns and taken + reserve > FORGET_TO * limit:
                turns = turns[1:]
                prompt_tokens, taken = tokens_after(turns)
        if taken + max(1, options.longest) > self._context:
            raise ContextOverflow(_overflow(taken, self._context, len(views), self._image_tokens, options))
        return Prompt(
            prompt_tokens, views, question, turns, options, options.longest or request.sampling.max_tokens
        )


def _overflow(taken: int, context: int, pictures: int, image_tokens: int, options: ChoiceSet) -> str:
    """Why a prompt of `taken` positions does not fit, and what to do."""
    several = f"{pictures} pictures of {image_tokens} positions each, and " if pictures > 1 else ""
    fewer = "ask about fewer pictures, or " if pictures > 1 else ""
    answer, choices = ("its choices", " or the choices") if options.longest else ("an answer", "")
    return (
        f"the prompt takes {taken} of {context} positions ({several}{taken - pictures * image_tokens} for "
        f"its text) and leaves too few for {answer}: {fewer}shorten the question{choices}"
    )
