# SPDX-License-Identifier: Apache-2.0
"""A conversation about one picture, or about several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mobilevlm_ros.api.options import AskOptions
from mobilevlm_ros.api.picture import frames_of
from mobilevlm_ros.api.stream import Stream
from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.inference.cache.sessions import Session
from mobilevlm_ros.inference.types import Answer, Frame, Request

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mobilevlm_ros.api.picture import Pictures


class _Put(Protocol):
    """Puts a question to the model, in a conversation."""

    def __call__(
        self, image: Pictures, question: str | Request, options: AskOptions, session: Session
    ) -> Stream: ...


class Chat:
    """A conversation about one picture, or about several. Made by `MobileVLM.chat`.

    The model remembers as many turns as its context holds; `Answer.forgotten_turns` says when the oldest ones
    had to go.
    """

    def __init__(self, put: _Put, session: Session, frames: tuple[Frame, ...]) -> None:
        self._put = put
        self._session = session
        self._frames = frames

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Questions and answers that the model remembers, oldest first."""
        return [(turn.question, turn.answer) for turn in self._session.turns]

    def ask(
        self, question: str | Request, image: Pictures | None = None, **options: Unpack[AskOptions]
    ) -> Answer:
        """The answer to the next question.

        Args:
            question: plain language; it may refer to the ones before.
            image: what the conversation is about from now on, one picture or a list; None: the same as
                before.
            options: see `AskOptions`.

        Raises:
            Busy: another question of this conversation is under way.
            MobileVLMError: as `MobileVLM.ask`.
        """
        return self.stream(question, image, **options).wait()

    def stream(
        self, question: str | Request, image: Pictures | None = None, **options: Unpack[AskOptions]
    ) -> Stream:
        """The next answer, piece by piece. Arguments and errors as for `ask`."""
        if image is not None:
            self._frames = frames_of(image)
        if not self._frames:
            raise ImageError("the conversation has no picture yet: chat(image), or ask(question, image)")
        return self._put(self._frames, question, options, self._session)

    def __repr__(self) -> str:
        return f"Chat({len(self._session.turns)} turns)"
