# SPDX-License-Identifier: Apache-2.0
"""Named conversations: what was said, about which picture, and the KV of it while there is room."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
        frames, region, region_with_frame: the pictures of the question before; none before the first.
        system_prompt: of the question before; empty when it had none of its own.
        answered: questions answered since it began, those forgotten included.
        forgotten: how many of them no longer fitted.
        sequence: KV of the turns; None when it was dropped to save memory.
    """

    def __init__(
        self, name: str = "", token_budget: int = 1024, on_commit: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self.token_budget = token_budget
        self._on_commit = on_commit
        self.turns: tuple[Turn, ...] = ()
        self.frames: tuple[Frame, ...] = ()
        self.region: Region | None = None
        self.region_with_frame = False
        self.system_prompt = ""
        self.answered = 0
        self.forgotten = 0
        self.sequence: SequenceCache | None = None
        self.busy = False

    @classmethod
    def after(cls, turns: tuple[Turn, ...], token_budget: int) -> Session:
        """A conversation in which these were said before."""
        session = cls(token_budget=token_budget)
        session.turns, session.answered = turns, len(turns)
        return session

    @property
    def frame(self) -> Frame | None:
        """The last picture of the question before; None before the first."""
        return self.frames[-1] if self.frames else None

    @contextmanager
    def turn(self) -> Iterator[SequenceCache | None]:
        """One question. Gives the KV of what was said, to extend; what is not committed is taken back.

        Raises Busy while another question of the session is under way.
        """
        if self.busy:
            raise Busy(f"session {self.name!r} is still answering a question: ask again when it has answered")
        self.busy = True
        sequence = self.sequence
        try:
            yield sequence
        finally:
            self.busy = False
            if sequence is not None and self.sequence is sequence:
                sequence.restore()

    def commit(self, kept: tuple[Turn, ...], turn: Turn, sequence: SequenceCache | None) -> None:
        """The question was answered: what it followed (older turns were forgotten), itself, and its KV."""
        self.forgotten += len(self.turns) - len(kept)
        self.turns = (*kept, turn)
        self.answered += 1
        self.sequence = sequence
        if self._on_commit is not None:
            self._on_commit()

    @property
    def nbytes(self) -> int:
        """Bytes of the kept KV."""
        return 0 if self.sequence is None else self.sequence.cache.nbytes


@dataclass(frozen=True)
class SessionLimits:
    """Bounds of the conversations that are remembered. Immutable: a change is a new value.

    Attributes:
        max_sessions: of them at a time; 0 keeps none.
        idle_seconds: a session that was not used for longer is forgotten.
        token_budget: of a new session, in positions of the model's context.
        byte_budget: KV bytes of all sessions together. Beyond it the least recently used ones lose their KV,
            not their text: they answer the same, and pay for reading the conversation again.

    Raises:
        ValueError: a bound is negative, or would allow nothing.
    """

    max_sessions: int = 16
    idle_seconds: float = 600.0
    token_budget: int = 1024
    byte_budget: int = 512 << 20

    def __post_init__(self) -> None:
        if self.max_sessions < 0 or self.idle_seconds <= 0 or self.token_budget <= 0 or self.byte_budget < 0:
            raise ValueError(f"{self}: a count, time or size is negative, or nothing would be allowed")


PROTECTED = 60.0
"""Seconds after its last question in which a session gives way to no newer one."""


class SessionStore:
    """The sessions of a node: bounded in number, memory and time.

    When all places are taken, the session that was used least recently gives way, if that was more than
    PROTECTED seconds ago. Where all were used since, the one that began last gives way: whoever begins many
    sessions at once loses his own, not everybody's.

    Belongs to the thread of the inference worker. Only `name in store`, `len(store)` and `camera` may be
    asked from any thread: they read an immutable value that each change replaces.

    Args:
        limits: until `get` brings others.
        clock: monotonic time in seconds.
    """

    def __init__(self, limits: SessionLimits | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._limits = SessionLimits() if limits is None else limits
        self._clock = clock
        self._sessions: OrderedDict[str, _Entry] = OrderedDict()  # the least recently used first
        self._cameras: Mapping[str, str | None] = {}  # by session; never changed, only replaced
        self._began = itertools.count()

    def __len__(self) -> int:
        return len(self._cameras)

    def __contains__(self, name: str) -> bool:
        return name in self._cameras

    def camera(self, name: str) -> str | None:
        """Of the picture that a session is about; None: there is no such session, or no picture yet."""
        return self._cameras.get(name)

    @property
    def nbytes(self) -> int:
        """Bytes of the KV of all sessions."""
        return sum(entry.session.nbytes for entry in self._sessions.values())

    def get(self, name: str, reset: bool = False, limits: SessionLimits | None = None) -> Session:
        """The session of that name, a new one where there is none, it was idle too long, or `reset`.

        It counts as used now. A reset does not disturb an answer under way: it goes on in the old session,
        which nobody will continue.

        Args:
            limits: that hold from now on; None = those that held before.
        """
        if limits is not None:
            self._limits = limits
        self.expire()
        entry = self._sessions.get(name)
        if entry is None or reset:
            session = Session(name, self._limits.token_budget, self._on_commit)
            if entry is None:
                self._make_room()
            entry = _Entry(session, next(self._began))
        entry.used = self._clock()
        self._sessions[name] = entry
        self._sessions.move_to_end(name)
        while len(self._sessions) > self._limits.max_sessions:  # the limit was lowered, or is 0
            self._sessions.popitem(last=False)
        self._trim_bytes()
        self._publish()
        return entry.session

    def expire(self) -> None:
        """Forget the sessions whose idle time is over. Each `get` does it; a timer may."""
        now = self._clock()
        for name, entry in list(self._sessions.items()):
            if entry.session.busy:
                entry.used = now
            elif now - entry.used > self._limits.idle_seconds:
                del self._sessions[name]
        self._publish()

    def forget(self, name: str | None = None) -> None:
        """Forget one session (harmless if there is none of that name), or all."""
        if name is None:
            self._sessions.clear()
        else:
            self._sessions.pop(name, None)
        self._publish()

    def _make_room(self) -> None:
        """Forget one session, where there is no place for another one."""
        if not self._sessions or len(self._sessions) < self._limits.max_sessions:
            return
        oldest, entry = next(iter(self._sessions.items()))
        if self._clock() - entry.used <= PROTECTED:
            oldest = max(self._sessions, key=lambda name: self._sessions[name].order)
        del self._sessions[oldest]

    def _on_commit(self) -> None:
        self._trim_bytes()
        self._publish()

    def _trim_bytes(self) -> None:
        over = self.nbytes - self._limits.byte_budget
        for entry in self._sessions.values():
            if over <= 0:
                break
            over -= entry.session.nbytes
            entry.session.sequence = None

    def _publish(self) -> None:
        frames = {name: entry.session.frame for name, entry in self._sessions.items()}
        self._cameras = {name: None if frame is None else frame.camera for name, frame in frames.items()}


@dataclass
class _Entry:
    """A session, which one of all it is, and when it was used last (the store's clock)."""

    session: Session
    order: int
    used: float = 0.0
