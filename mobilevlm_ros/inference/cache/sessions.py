# SPDX-License-Identifier: Apache-2.0
"""Named conversations: what was said, about which picture, and the KV of it while there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from mobilevlm_ros.errors import Busy
from mobilevlm_ros.inference.cache.prefill import SequenceCache
from mobilevlm_ros.inference.prompt.conversation import Turn
from mobilevlm_ros.inference.types import Frame, Region


class Session:
    """A conversation. The text of its turns is what counts; the KV only saves time.

    Not thread-safe: it belongs to the thread of the inference worker, like the assistant that reads and
    extends it. One question at a time: `turn` refuses a second one.

    Attributes:
        name: as the user calls it.
        token_budget: positions that one prompt and its answer may take; older turns are forgotten beyond it.
        turns: what the next question follows, oldest first.
        frame, region, region_with_frame: the picture of the question before; None before the first.
        system_prompt: of the question before; empty when it had none of its own.
        answered: questions answered since it began, those forgotten included.
        forgotten: how many of them no longer fitted.
        tail: KV of the turns; None when it was dropped to save memory.
    """

    def __init__(
        self, name: str = "", token_budget: int = 1024, on_commit: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self.token_budget = token_budget
        self._on_commit = on_commit
        self.turns: tuple[Turn, ...] = ()
        self.frame: Frame | None = None
        self.region: Region | None = None
        self.region_with_frame = False
        self.system_prompt = ""
        self.answered = 0
        self.forgotten = 0
        self.tail: SequenceCache | None = None
        self.busy = False

    @contextmanager
    def turn(self) -> Iterator[SequenceCache | None]:
        """One question. Gives the KV of what was said, to extend; what is not committed is taken back.

        Raises Busy while another question of the session is under way.
        """
        if self.busy:
            raise Busy(f"session {self.name!r} is still answering a question: ask again when it has answered")
        self.busy = True
        tail = self.tail
        try:
            yield tail
        finally:
            self.busy = False
            if tail is not None and self.tail is tail:
                tail.restore()

    def commit(self, kept: tuple[Turn, ...], turn: Turn, tail: SequenceCache | None) -> None:
        """The question was answered: what it followed (older turns were forgotten), itself, and its KV."""
        self.forgotten += len(self.turns) - len(kept)
        self.turns = (*kept, turn)
        self.answered += 1
        self.tail = tail
        if self._on_commit is not None:
            self._on_commit()

    @property
    def nbytes(self) -> int:
        """Bytes of the kept KV."""
        return 0 if self.tail is None else self.tail.cache.nbytes


class SessionStore:
    """The sessions of a node: bounded in number, memory and time.

    Args:
        max_sessions: beyond it the least recently used one is forgotten; 0 keeps none.
        idle_seconds: a session that was not used for longer is forgotten.
        token_budget: of each session, in positions of the model's context.
        byte_budget: KV bytes of all sessions together. Beyond it the least recently used ones lose their KV,
            not their text: they answer the same, and pay for reading the conversation again.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        max_sessions: int = 16,
        idle_seconds: float = 600.0,
        token_budget: int = 1024,
        byte_budget: int = 512 << 20,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if max_sessions < 0 or idle_seconds <= 0 or token_budget <= 0 or byte_budget < 0:
            raise ValueError(
                f"max_sessions {max_sessions}, idle_seconds {idle_seconds}, token_budget {token_budget}, "
                f"byte_budget {byte_budget}: a count, time or size is negative, or nothing would be allowed"
            )
        self.max_sessions = max_sessions
        self.idle_seconds = idle_seconds
        self.token_budget = token_budget
        self.byte_budget = byte_budget
        self._clock = clock
        self._sessions: OrderedDict[str, tuple[Session, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, name: str) -> bool:
        return name in self._sessions

    @property
    def nbytes(self) -> int:
        """Bytes of the KV of all sessions."""
        return sum(session.nbytes for session, _ in self._sessions.values())

    def get(self, name: str, reset: bool = False) -> Session:
        """The session of that name, a new one where there is none, it was idle too long, or `reset`.

        It counts as used now. A reset does not disturb an answer under way: it goes on in the old session,
        which nobody will continue.
        """
        self.expire()
        session, _ = self._sessions.pop(name, (None, 0.0))
        if session is None or reset:
            session = Session(name, self.token_budget, self._trim)
        self._sessions[name] = (session, self._clock())
        self._trim()
        return session

    def expire(self) -> None:
        """Forget the sessions whose idle time is over. Each `get` does it; a timer may."""
        now = self._clock()
        for name, (session, used) in list(self._sessions.items()):
            if session.busy:
                self._sessions[name] = (session, now)
            elif now - used > self.idle_seconds:
                del self._sessions[name]

    def forget(self, name: str | None = None) -> None:
        """Forget one session (harmless if there is none of that name), or all."""
        if name is None:
            self._sessions.clear()
        else:
            self._sessions.pop(name, None)

    def _trim(self) -> None:
        while len(self._sessions) > self.max_sessions:
            self._sessions.popitem(last=False)
        over = self.nbytes - self.byte_budget
        for session, _ in self._sessions.values():
            if over <= 0:
                break
            over -= session.nbytes
            session.tail = None
